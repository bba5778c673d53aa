"""Attributes of PCI functions: identity, IOMMU group, and the physical function of a virtual one.

Documentation/ABI/testing/sysfs-bus-pci; virtual functions: Documentation/PCI/pci-iov-howto.rst.
"""

import re

from genplug.hardware.attributes.family import Attribute, AttributeFamily, Reader
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice, merge_attribute_values

_VIRTUAL_FUNCTION = "virtfn"
_DEVICES = "/sys/devices/"
_ROOT = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}\Z")
"""The directory of a root bus: ``pci%04x:%02x`` with its domain and its number (drivers/pci/probe.c)."""


def _read_address(device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(AttributeValue((path.rpartition("/")[2],), path) for path in device.functions)


def _read_slot(device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(
        AttributeValue((path.rpartition("/")[2].rpartition(".")[0],), path) for path in device.functions
    )


def _read_root(device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(map(_find_root, device.functions))


def _find_root(function: str) -> AttributeValue | None:
    """Return the first root bus in the path of a function: behind a bridge with a domain of its own there are two."""
    parts = function.removeprefix(_DEVICES).split("/") if function.startswith(_DEVICES) else ()
    root = next((part for part in parts if _ROOT.match(part)), None)
    return AttributeValue((root,), function) if root is not None else None


def _read_iommu_group(device: SysfsDevice) -> AttributeValue | None:
    for path in (path for chain in device.ancestor_chains for path in chain):
        if (value := device.link(f"{path}/iommu_group")) is not None:
            return value
    return None


def _read_physical_function(device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(device.link(f"{path}/physfn") for path in device.functions)


def _read_virtual_index(device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(_read_index(device, path) for path in device.functions)


def _read_index(device: SysfsDevice, function: str) -> AttributeValue | None:
    physical = device.host.resolve(f"{function}/physfn")
    if physical is None:
        return None
    for name in device.names(physical):
        if name.startswith(_VIRTUAL_FUNCTION) and device.host.resolve(f"{physical}/{name}") == function:
            return AttributeValue((name.removeprefix(_VIRTUAL_FUNCTION),), f"{physical}/{name}")
    return None


def _file_reader(name: str) -> Reader:
    return lambda device: device.read_from_functions(name)


FAMILY = AttributeFamily(
    "pci",
    {
        "pci.address": Attribute(_read_address, "address of the nearest PCI function, for example `0000:3b:00.0`"),
        "pci.vendor": Attribute(_file_reader("vendor"), "vendor ID of the PCI function", "vendor"),
        "pci.device": Attribute(_file_reader("device"), "device ID of the PCI function", "device"),
        "pci.subsystemVendor": Attribute(
            _file_reader("subsystem_vendor"), "subsystem vendor ID of the PCI function", "subsystem_vendor"
        ),
        "pci.subsystemDevice": Attribute(
            _file_reader("subsystem_device"), "subsystem ID of the PCI function", "subsystem_device"
        ),
        "pci.class": Attribute(_file_reader("class"), "class code of the PCI function", "class"),
        "pci.slot": Attribute(_read_slot, "address of the PCI function without the function number"),
        "pci.root": Attribute(
            _read_root,
            "root bus of the PCI function, for example `pci0000:00`; the functions of a root complex share it",
        ),
        "iommu.group": Attribute(_read_iommu_group, "number of the IOMMU group", "iommu_group"),
        "sriov.pf": Attribute(
            _read_physical_function, "address of the physical function of an SR-IOV virtual function", "physfn"
        ),
        "sriov.vfIndex": Attribute(_read_virtual_index, "number of an SR-IOV virtual function", "virtfn*"),
    },
)
