"""Attributes of network devices: the interfaces of a function, or the interface that the candidate belongs to.

Documentation/ABI/testing/sysfs-class-net. An interface that was moved into another network namespace is not in /sys of
the agent, so its attributes do not exist.
"""

from collections.abc import Iterator

from genplug.hardware.attributes.family import Attribute, AttributeFamily
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice, merge_attribute_values


def _list_interfaces(device: SysfsDevice) -> Iterator[str]:
    """Yield the directories of the interfaces of the nearest device that has any."""
    for path in device.ancestors:
        if path.rpartition("/")[0].rpartition("/")[2] == "net":
            yield path
            return
        if device.host.resolve(f"{path}/net") is not None:
            yield from (f"{path}/net/{name}" for name in device.names(f"{path}/net"))
            return
    for function in device.functions:
        if function not in device.ancestors:
            yield from (f"{function}/net/{name}" for name in device.names(f"{function}/net"))


def _read_interface(device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(AttributeValue((path.rpartition("/")[2],), path) for path in _list_interfaces(device))


def _read_mac(device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(device.file(f"{path}/address") for path in _list_interfaces(device))


FAMILY = AttributeFamily(
    "net",
    {
        "net.interface": Attribute(_read_interface, "name of the network interface, for example `ens1f0`", "net/*"),
        "net.mac": Attribute(_read_mac, "MAC address of the network interface", "net/*/address"),
    },
)
