"""Attributes of every device in /sys: directory, subsystem, driver, NUMA node and local CPUs.

Documentation/admin-guide/sysfs-rules.rst; NUMA: Documentation/ABI/testing/sysfs-bus-pci.
"""

from collections.abc import Mapping

from genplug.hardware.attributes.reader import Reader
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice, merge_attribute_values


def _sysfs(sysfs_device: SysfsDevice) -> AttributeValue | None:
    return (
        AttributeValue((sysfs_device.directory,), sysfs_device.directory)
        if sysfs_device.directory is not None
        else None
    )


def _subsystem(sysfs_device: SysfsDevice) -> AttributeValue | None:
    return next(
        (fact for at in sysfs_device.ancestors if (fact := sysfs_device.link(f"{at}/subsystem")) is not None), None
    )


def _driver(sysfs_device: SysfsDevice) -> AttributeValue | None:
    """Return the driver of the nearest device on a bus: one that has none must not pass for its bridge's."""
    for at in sysfs_device.ancestors:
        if (driver := sysfs_device.link(f"{at}/driver")) is not None:
            return driver
        subsystem = sysfs_device.host.resolve(f"{at}/subsystem")
        if subsystem is not None and subsystem.startswith("/sys/bus/"):
            sysfs_device.depends.add(at)
            return None
    return merge_attribute_values(sysfs_device.link(f"{at}/driver") for at in sysfs_device.functions)


def _numa_node(sysfs_device: SysfsDevice) -> AttributeValue | None:
    """Return the nearest NUMA node; below 0 the kernel says that it does not know one."""
    return merge_attribute_values(_nearest_node(sysfs_device, way) for way in sysfs_device.ancestor_chains)


def _nearest_node(sysfs_device: SysfsDevice, way: tuple[str, ...]) -> AttributeValue | None:
    for at in way:
        fact = sysfs_device.file(f"{at}/numa_node")
        if fact is not None and fact.values[0].isdigit():
            return fact
    return None


READERS: Mapping[str, Reader] = {
    "sysfs": _sysfs,
    "subsystem": _subsystem,
    "driver": _driver,
    "numaNode": _numa_node,
    "localCpus": lambda sysfs_device: sysfs_device.nearest("local_cpulist"),
}
