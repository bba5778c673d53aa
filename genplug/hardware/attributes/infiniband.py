"""InfiniBand and RoCE: the adapter that a verbs, management or connection node belongs to, and what its ports are.

Documentation/ABI/stable/sysfs-class-infiniband: ``ibdev`` of a node, ``ports/*/link_layer`` and ``node_guid`` of an
adapter. One adapter has one ``uverbs`` node and, for each port, a ``umad`` and an ``issm`` node.
"""

from collections.abc import Mapping

from genplug.hardware.attributes.reader import Reader
from genplug.hardware.attributes.sysfs_device import Fact, Place, together

_CLASS = "/sys/class/infiniband"


def _device(place: Place) -> Fact | None:
    for at in place.ancestors:
        if (fact := place.file(f"{at}/ibdev")) is not None:
            return fact
        folder, _, name = at.rpartition("/")
        if folder.rpartition("/")[2] == "infiniband":
            return Fact((name,), at)
    return together(
        Fact((name,), f"{at}/infiniband") for at in place.functions for name in place.names(f"{at}/infiniband")
    )


def _link_layer(place: Place) -> Fact | None:
    return together(
        place.file(f"{ports}/{port}/link_layer")
        for name in _names(place)
        for ports in (f"{_CLASS}/{name}/ports",)
        for port in place.names(ports)
    )


def _guid(place: Place) -> Fact | None:
    return together(place.file(f"{_CLASS}/{name}/node_guid") for name in _names(place))


def _names(place: Place) -> tuple[str, ...]:
    fact = _device(place)
    return fact.values if fact is not None else ()


READERS: Mapping[str, Reader] = {
    "ib.device": _device,
    "ib.linkLayer": _link_layer,
    "ib.guid": _guid,
}
