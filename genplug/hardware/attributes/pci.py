"""PCI functions: identity, IOMMU group, and which virtual function of which physical one (hardware: PCI and SR-IOV).

Documentation/ABI/testing/sysfs-bus-pci; virtual functions: Documentation/PCI/pci-iov-howto.rst.
"""

from collections.abc import Mapping

from genplug.hardware.attributes.reader import Reader
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice, merge_attribute_values

_VIRTUAL = "virtfn"


def _address(sysfs_device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(AttributeValue((at.rpartition("/")[2],), at) for at in sysfs_device.functions)


def _slot(sysfs_device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(
        AttributeValue((at.rpartition("/")[2].rpartition(".")[0],), at) for at in sysfs_device.functions
    )


def _iommu_group(sysfs_device: SysfsDevice) -> AttributeValue | None:
    steps = (at for way in sysfs_device.ancestor_chains for at in way)
    return next((fact for at in steps if (fact := sysfs_device.link(f"{at}/iommu_group")) is not None), None)


def _physical(sysfs_device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(sysfs_device.link(f"{at}/physfn") for at in sysfs_device.functions)


def _virtual_index(sysfs_device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(_index_of(sysfs_device, at) for at in sysfs_device.functions)


def _index_of(sysfs_device: SysfsDevice, function: str) -> AttributeValue | None:
    physical = sysfs_device.host.resolve(f"{function}/physfn")
    if physical is None:
        return None
    for name in sysfs_device.names(physical):
        if name.startswith(_VIRTUAL) and sysfs_device.host.resolve(f"{physical}/{name}") == function:
            return AttributeValue((name.removeprefix(_VIRTUAL),), f"{physical}/{name}")
    return None


READERS: Mapping[str, Reader] = {
    "pci.address": _address,
    "pci.vendor": lambda sysfs_device: sysfs_device.read_from_functions("vendor"),
    "pci.device": lambda sysfs_device: sysfs_device.read_from_functions("device"),
    "pci.subsystemVendor": lambda sysfs_device: sysfs_device.read_from_functions("subsystem_vendor"),
    "pci.subsystemDevice": lambda sysfs_device: sysfs_device.read_from_functions("subsystem_device"),
    "pci.class": lambda sysfs_device: sysfs_device.read_from_functions("class"),
    "pci.slot": _slot,
    "iommu.group": _iommu_group,
    "sriov.pf": _physical,
    "sriov.vfIndex": _virtual_index,
}
