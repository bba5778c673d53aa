"""What is known of one candidate: its attributes by name, each read when it is asked for, and once."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from genplug.hardware.attributes import drm, infiniband, pci, sysfs, usb
from genplug.hardware.attributes.custom import read_custom_attribute
from genplug.hardware.attributes.reader import Reader
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice
from genplug.hardware.candidate_attributes import path_attributes
from genplug.hardware.host import Host
from genplug.hardware.inventory import Kind, PathInfo
from genplug.spec.model import Source
from genplug.spec.names import ENVIRONMENT_PREFIX, FILE_PREFIX, NODE_NAME
from genplug.spec.template import MissingAttributeError, Values

READERS: Mapping[str, Reader] = {
    **sysfs.READERS,
    **pci.READERS,
    **usb.READERS,
    **infiniband.READERS,
    **drm.READERS,
}
"""What reads the attributes that begin at a device's sysfs_device in /sys (``genplug.spec.names.SYSFS_ATTRIBUTES``)."""


class LazyAttributes(Mapping[str, tuple[str, ...]]):
    """The attributes of one candidate of a source, as a mapping that reads when it is asked.

    Iterating yields what has been read so far and exists. ``depends`` are paths whose change may change what was read.
    """

    def __init__(self, path: str, look: PathInfo, source: Source, host: Host) -> None:
        self.depends: set[str] = set()
        self._path, self._look, self._source, self._host = path, look, source, host
        self._own = {own.name: own for own in source.attributes}
        self._by_itself = path_attributes(path, look)
        self._known: dict[str, AttributeValue | None] = {}
        self._place: SysfsDevice | None = None

    def __getitem__(self, name: str) -> tuple[str, ...]:
        fact = self.fact(name)
        if fact is None:
            raise KeyError(name)
        return fact.values

    def __iter__(self) -> Iterator[str]:
        yield from self._by_itself
        yield from (name for name, fact in self._known.items() if fact is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def fact(self, name: str) -> AttributeValue | None:
        """Return an attribute and where it comes from; None where it does not exist."""
        if name in self._by_itself:
            return AttributeValue(self._by_itself[name], "the path itself")
        if name not in self._known:
            # While it is read it does not exist: what is made of itself has been refused at load.
            self._known[name] = None
            self._known[name] = self._read(name)
        return self._known[name]

    def read(self, names: Iterable[str]) -> Values:
        """Read these attributes and return all that is known."""
        for name in names:
            self.fact(name)
        read = {name: fact.values for name, fact in self._known.items() if fact is not None}
        return {**self._by_itself, **read} if read else self._by_itself

    def _read(self, name: str) -> AttributeValue | None:
        if name in self._own:
            # Not where the device stands: that may be made of this very attribute.
            return read_custom_attribute(
                self._own[name], self, SysfsDevice(self._path, self._look, self._host, None, self.depends)
            )
        if name.startswith(FILE_PREFIX):
            return self._placed().nearest(name.removeprefix(FILE_PREFIX))
        if name.startswith(ENVIRONMENT_PREFIX):
            value = self._host.environment.get(name.removeprefix(ENVIRONMENT_PREFIX))
            return AttributeValue((value,), "the program's environment") if value else None
        if name == NODE_NAME:
            return AttributeValue((self._host.node_name,), "--node-name") if self._host.node_name else None
        if name in _NUMBERS:
            return _number(self._placed(), _NUMBERS[name])
        sysfs_device = self._placed()
        # Most nodes without a sysfs_device are of no dependency to any family.
        return READERS[name](sysfs_device) if name in READERS and sysfs_device.is_somewhere else None

    def _placed(self) -> SysfsDevice:
        if self._place is None:
            self._place = SysfsDevice(self._path, self._look, self._host, None, self.depends)
            self._place.directory = self._directory()
        return self._place

    def _directory(self) -> str | None:
        """Return the device's directory in /sys, without symlinks."""
        if self._source.sysfs is not None:
            return self._written_directory(self._source.sysfs.render_each)
        look = self._look
        if look.is_device:
            link = f"/sys/dev/{look.kind.value}/{look.major}:{look.minor}"
            if (directory := self._host.resolve(link)) is not None:
                self.depends.add(link)
        elif look.resolved.startswith("/sys/"):
            directory = look.resolved if look.kind is Kind.DIRECTORY else look.resolved.rpartition("/")[0]
        else:
            return None
        if directory is not None:
            self.depends.add(directory)
        return directory

    def _written_directory(self, rendered: "Callable[[Values], tuple[str, ...]]") -> str | None:
        try:
            paths = rendered(self)
        except MissingAttributeError:
            return None
        self.depends.update(paths)
        return next((one for path in paths if (one := self._host.resolve(path)) is not None), None)


_NUMBERS = {"major": 0, "minor": 1}


def _number(sysfs_device: SysfsDevice, part: int) -> AttributeValue | None:
    """Return a number of the node that a directory of /sys stands for."""
    fact = sysfs_device.file(f"{sysfs_device.directory}/dev") if sysfs_device.directory is not None else None
    if fact is None:
        return None
    numbers = fact.values[0].split(":")
    return AttributeValue((numbers[part],), fact.origin) if len(numbers) > part else None
