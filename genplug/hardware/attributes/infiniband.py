"""InfiniBand and RoCE: the adapter that a verbs, management or connection node belongs to, and what its ports are.

Documentation/ABI/stable/sysfs-class-infiniband: ``ibdev`` of a node, ``ports/*/link_layer`` and ``node_guid`` of an
adapter. One adapter has one ``uverbs`` node and, for each port, a ``umad`` and an ``issm`` node.
"""

from collections.abc import Mapping

from genplug.hardware.attributes.reader import Reader
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice, merge_attribute_values

_CLASS = "/sys/class/infiniband"


def _device(sysfs_device: SysfsDevice) -> AttributeValue | None:
    for at in sysfs_device.ancestors:
        if (fact := sysfs_device.file(f"{at}/ibdev")) is not None:
            return fact
        directory, _, name = at.rpartition("/")
        if directory.rpartition("/")[2] == "infiniband":
            return AttributeValue((name,), at)
    return merge_attribute_values(
        AttributeValue((name,), f"{at}/infiniband")
        for at in sysfs_device.functions
        for name in sysfs_device.names(f"{at}/infiniband")
    )


def _link_layer(sysfs_device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(
        sysfs_device.file(f"{ports}/{port}/link_layer")
        for name in _names(sysfs_device)
        for ports in (f"{_CLASS}/{name}/ports",)
        for port in sysfs_device.names(ports)
    )


def _guid(sysfs_device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(sysfs_device.file(f"{_CLASS}/{name}/node_guid") for name in _names(sysfs_device))


def _names(sysfs_device: SysfsDevice) -> tuple[str, ...]:
    fact = _device(sysfs_device)
    return fact.values if fact is not None else ()


READERS: Mapping[str, Reader] = {
    "ib.device": _device,
    "ib.linkLayer": _link_layer,
    "ib.guid": _guid,
}
