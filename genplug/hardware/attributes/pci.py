"""PCI functions: identity, IOMMU group, and which virtual function of which physical one (hardware: PCI and SR-IOV).

Documentation/ABI/testing/sysfs-bus-pci; virtual functions: Documentation/PCI/pci-iov-howto.rst.
"""

from collections.abc import Mapping

from genplug.hardware.attributes.reader import Reader
from genplug.hardware.attributes.sysfs_device import Fact, Place, together

_VIRTUAL = "virtfn"


def _address(place: Place) -> Fact | None:
    return together(Fact((at.rpartition("/")[2],), at) for at in place.functions)


def _slot(place: Place) -> Fact | None:
    return together(Fact((at.rpartition("/")[2].rpartition(".")[0],), at) for at in place.functions)


def _iommu_group(place: Place) -> Fact | None:
    steps = (at for way in place.ways for at in way)
    return next((fact for at in steps if (fact := place.link(f"{at}/iommu_group")) is not None), None)


def _physical(place: Place) -> Fact | None:
    return together(place.link(f"{at}/physfn") for at in place.functions)


def _virtual_index(place: Place) -> Fact | None:
    return together(_index_of(place, at) for at in place.functions)


def _index_of(place: Place, function: str) -> Fact | None:
    physical = place.host.resolved(f"{function}/physfn")
    if physical is None:
        return None
    for name in place.names(physical):
        if name.startswith(_VIRTUAL) and place.host.resolved(f"{physical}/{name}") == function:
            return Fact((name.removeprefix(_VIRTUAL),), f"{physical}/{name}")
    return None


READERS: Mapping[str, Reader] = {
    "pci.address": _address,
    "pci.vendor": lambda place: place.of_functions("vendor"),
    "pci.device": lambda place: place.of_functions("device"),
    "pci.subsystemVendor": lambda place: place.of_functions("subsystem_vendor"),
    "pci.subsystemDevice": lambda place: place.of_functions("subsystem_device"),
    "pci.class": lambda place: place.of_functions("class"),
    "pci.slot": _slot,
    "iommu.group": _iommu_group,
    "sriov.pf": _physical,
    "sriov.vfIndex": _virtual_index,
}
