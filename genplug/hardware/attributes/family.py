"""The description of an attribute family: what each family module exports as ``FAMILY``."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from msgspec import Struct

from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice

Reader: TypeAlias = Callable[[SysfsDevice], AttributeValue | None]
"""Reads an attribute of a device; returns None if the attribute does not exist."""


class Attribute(Struct, frozen=True):
    """One attribute, as the reference documents it.

    ``description`` is what the value is, in Markdown. ``origin`` is a glob over the end of the path that the value is
    read from; empty if it is the name of a directory.
    """

    read: Reader
    description: str
    origin: str = ""


class AttributeFamily(Struct, frozen=True):
    """Attributes of one kind of hardware, by name."""

    name: str
    attributes: Mapping[str, Attribute]
