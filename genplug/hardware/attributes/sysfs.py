"""What every device of /sys has: its directory, its subsystem and driver, and where in the machine it is."""

from collections.abc import Mapping

from genplug.hardware.attributes.reader import Reader
from genplug.hardware.attributes.sysfs_device import Fact, Place, together


def _sysfs(place: Place) -> Fact | None:
    return Fact((place.directory,), place.directory) if place.directory is not None else None


def _subsystem(place: Place) -> Fact | None:
    return next((fact for at in place.ancestors if (fact := place.link(f"{at}/subsystem")) is not None), None)


def _driver(place: Place) -> Fact | None:
    """Return the driver of the nearest device on a bus: one that has none must not pass for its bridge's."""
    for at in place.ancestors:
        if (driver := place.link(f"{at}/driver")) is not None:
            return driver
        subsystem = place.host.resolved(f"{at}/subsystem")
        if subsystem is not None and subsystem.startswith("/sys/bus/"):
            place.depends.add(at)
            return None
    return together(place.link(f"{at}/driver") for at in place.functions)


def _numa_node(place: Place) -> Fact | None:
    """Return the nearest NUMA node; below 0 the kernel says that it does not know one."""
    return together(_nearest_node(place, way) for way in place.ways)


def _nearest_node(place: Place, way: tuple[str, ...]) -> Fact | None:
    for at in way:
        fact = place.file(f"{at}/numa_node")
        if fact is not None and fact.values[0].isdigit():
            return fact
    return None


READERS: Mapping[str, Reader] = {
    "sysfs": _sysfs,
    "subsystem": _subsystem,
    "driver": _driver,
    "numaNode": _numa_node,
    "localCpus": lambda place: place.nearest("local_cpulist"),
}
