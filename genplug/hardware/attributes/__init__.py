"""Attributes of candidates: one module for each family, which exports its description as ``FAMILY``, and the table.

``lazy`` reads attributes when they are needed, ``sysfs_device`` is the directory in /sys from which families read, and
``custom`` reads the attributes that a configuration defines. An attribute that cannot be read does not exist.

To add a family, add a module, a line to :data:`FAMILIES` and tests; ``docs/generate.py`` adds it to the reference.
"""

from collections.abc import Mapping

from genplug.hardware.attributes import drm, infiniband, net, pci, sysfs, usb
from genplug.hardware.attributes.family import Attribute
from genplug.spec.names import CANDIDATE_ATTRIBUTES, NODE_NAME

FAMILIES = (sysfs.FAMILY, pci.FAMILY, usb.FAMILY, infiniband.FAMILY, net.FAMILY, drm.FAMILY)
"""Every family, in the order of the reference."""

ATTRIBUTES: Mapping[str, Attribute] = {
    name: attribute for family in FAMILIES for name, attribute in family.attributes.items()
}
"""Every attribute that is read from the device's directory in /sys, by name."""

KNOWN_ATTRIBUTES = (*CANDIDATE_ATTRIBUTES, *ATTRIBUTES, NODE_NAME)
"""The names of all built-in attributes, those with a prefix excepted."""
