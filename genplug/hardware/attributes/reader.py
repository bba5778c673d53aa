"""What the modules of the families have in common: the form of a reader of one attribute."""

from collections.abc import Callable
from typing import TypeAlias

from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice

Reader: TypeAlias = Callable[[SysfsDevice], AttributeValue | None]
"""Reads one attribute; None where it does not exist."""
