"""Attributes of InfiniBand and RoCE adapters: the adapter of a verbs, management or connection node, and its ports.

Documentation/ABI/stable/sysfs-class-infiniband: ``ibdev`` of a node, ``ports/*/link_layer`` and ``node_guid`` of an
adapter. An adapter has one ``uverbs`` node and, for each port, a ``umad`` and an ``issm`` node.
"""

from genplug.hardware.attributes.family import Attribute, AttributeFamily
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice, merge_attribute_values

_CLASS = "/sys/class/infiniband"


def _read_adapter(device: SysfsDevice) -> AttributeValue | None:
    for directory in device.ancestors:
        if (value := device.file(f"{directory}/ibdev")) is not None:
            return value
        parent, _, name = directory.rpartition("/")
        if parent.rpartition("/")[2] == "infiniband":
            return AttributeValue((name,), directory)
    return merge_attribute_values(
        AttributeValue((name,), f"{function}/infiniband/{name}")
        for function in device.functions
        for name in device.names(f"{function}/infiniband")
    )


def _read_link_layer(device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(
        device.file(f"{ports}/{port}/link_layer")
        for ports in (f"{_CLASS}/{name}/ports" for name in _adapters(device))
        for port in device.names(ports)
    )


def _read_guid(device: SysfsDevice) -> AttributeValue | None:
    return merge_attribute_values(device.file(f"{_CLASS}/{name}/node_guid") for name in _adapters(device))


def _adapters(device: SysfsDevice) -> tuple[str, ...]:
    value = _read_adapter(device)
    return value.values if value is not None else ()


FAMILY = AttributeFamily(
    "ib",
    {
        "ib.device": Attribute(
            _read_adapter, "name of the InfiniBand or RoCE device, for example `mlx5_0`", "{ibdev,infiniband/*}"
        ),
        "ib.linkLayer": Attribute(
            _read_link_layer, "link layer of its ports: `InfiniBand` or `Ethernet`", "ports/*/link_layer"
        ),
        "ib.guid": Attribute(_read_guid, "node GUID of the InfiniBand device", "node_guid"),
    },
)
