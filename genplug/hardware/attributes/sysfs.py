"""Attributes of every device in /sys: directory, subsystem, driver, NUMA node and local CPUs.

Documentation/admin-guide/sysfs-rules.rst; NUMA: Documentation/ABI/testing/sysfs-bus-pci.
"""

from genplug.hardware.attributes.family import Attribute, AttributeFamily
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice, merge_attribute_values
from genplug.spec.numbers import parse_natural


def _read_directory(device: SysfsDevice) -> AttributeValue | None:
    return AttributeValue((device.directory,), device.directory) if device.directory is not None else None


def _read_subsystem(device: SysfsDevice) -> AttributeValue | None:
    for path in device.ancestors:
        if (value := device.link(f"{path}/subsystem")) is not None:
            return value
    return None


def _read_driver(device: SysfsDevice) -> AttributeValue | None:
    """Return the driver of the nearest device on a bus; a device without a driver does not have that of its bridge."""
    for path in device.ancestors:
        if (driver := device.link(f"{path}/driver")) is not None:
            return driver
        subsystem = device.host.resolve(f"{path}/subsystem")
        if subsystem is not None and subsystem.startswith("/sys/bus/"):
            device.depends.add(path)
            return None
    return merge_attribute_values(device.link(f"{path}/driver") for path in device.functions)


def _read_numa_node(device: SysfsDevice) -> AttributeValue | None:
    """Return the nearest NUMA node; a number below 0 means that the kernel does not know it."""
    return merge_attribute_values(_read_nearest_node(device, chain) for chain in device.ancestor_chains)


def _read_nearest_node(device: SysfsDevice, chain: tuple[str, ...]) -> AttributeValue | None:
    for path in chain:
        value = device.file(f"{path}/numa_node")
        if value is not None and parse_natural(value.values[0]) is not None:
            return value
    return None


FAMILY = AttributeFamily(
    "sysfs",
    {
        "sysfs": Attribute(_read_directory, "directory of the device in `/sys`"),
        "subsystem": Attribute(_read_subsystem, "name of the subsystem", "subsystem"),
        "driver": Attribute(_read_driver, "name of the driver that is bound to the nearest device on a bus", "driver"),
        "numaNode": Attribute(_read_numa_node, "NUMA node, if the kernel knows it", "numa_node"),
        "localCpus": Attribute(
            lambda device: device.nearest("local_cpulist"), "CPUs that are local to the device", "local_cpulist"
        ),
    },
)
