"""The attributes of one candidate by name, each read when it is needed, and once."""

from collections.abc import Iterable, Iterator, Mapping

from genplug.hardware.attributes import ATTRIBUTES
from genplug.hardware.attributes.custom import read_custom_attribute
from genplug.hardware.attributes.sysfs_device import VFIO, AttributeValue, SysfsDevice
from genplug.hardware.candidate_attributes import PathAttributes
from genplug.hardware.host import Host
from genplug.hardware.inventory import Kind, PathInfo
from genplug.spec.model import Source
from genplug.spec.names import CANDIDATE_ATTRIBUTES, ENVIRONMENT_PREFIX, FILE_PREFIX, NODE_NAME
from genplug.spec.policy import Policy
from genplug.spec.template import LayeredValues, RenderError, Template, Values

_ATTRIBUTES_OF_NODES = frozenset({*ATTRIBUTES, *CANDIDATE_ATTRIBUTES})
"""The attributes that a device node has by its path, or by its directory in /sys."""
_DEVICE_NUMBERS = {"major": 0, "minor": 1}


def has_only_path_attributes(info: PathInfo, source: Source, host: Host, names: frozenset[str]) -> bool:
    """Return whether a candidate has none of these attributes, apart from those of its path.

    This is a fast path: a device node of a driver without a class has no directory in /sys.
    """
    if source.sysfs is not None or source.attributes or not info.is_device or info.resolved.startswith(VFIO):
        return False
    if not names <= _ATTRIBUTES_OF_NODES:
        return False
    return host.resolve(f"/sys/dev/{info.kind}/{info.major}:{info.minor}") is None


class LazyAttributes(Mapping[str, tuple[str, ...]]):
    """The attributes of one candidate of a source, as a mapping that reads a value when it is looked up.

    Iterating yields the attributes that have been read and exist.
    ``depends`` are the paths whose change may change what was read.
    ``refusals`` has the reason for each attribute without a value because of a read that the policy refused.
    """

    def __init__(self, path: str, info: PathInfo, source: Source, host: Host, policy: Policy) -> None:
        self.depends: set[str] = set()
        self.refusals: dict[str, str] = {}
        self._path, self._info, self._source, self._host, self._policy = path, info, source, host, policy
        self._refused_reads: list[str] = []
        self._directory_refusal = ""
        self._custom = {custom.name: custom for custom in source.attributes}
        self._of_path = PathAttributes(path, info)
        self._read_values: dict[str, AttributeValue | None] = {}
        self._device: SysfsDevice | None = None

    def __getitem__(self, name: str) -> tuple[str, ...]:
        value = self.value(name)
        if value is None:
            raise KeyError(name)
        return value.values

    def __iter__(self) -> Iterator[str]:
        yield from self._of_path
        yield from (name for name, value in self._read_values.items() if value is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def value(self, name: str) -> AttributeValue | None:
        """Return an attribute and its origin, None if it does not exist."""
        if name in self._of_path:
            return AttributeValue(self._of_path[name], "the path itself")
        if name not in self._read_values:
            # Guard against recursion; the decoder rejects circular definitions.
            self._read_values[name] = None
            count = len(self._refused_reads)
            value = self._read_values[name] = self._read(name)
            if value is None and len(self._refused_reads) > count:
                self.refusals[name] = self._refused_reads[count]
            elif value is None and self._directory_refusal and name not in self._custom:
                self.refusals[name] = self._directory_refusal
        return self._read_values[name]

    def read(self, names: Iterable[str]) -> Values:
        """Read these attributes, and return all that have been read."""
        for name in names:
            if name not in self._of_path:
                self.value(name)
        read = {name: value.values for name, value in self._read_values.items() if value is not None}
        return LayeredValues(self._of_path, read) if read else self._of_path

    def _read(self, name: str) -> AttributeValue | None:
        if name in self._custom:
            # Without the directory in /sys: it may be made of this attribute.
            device = self._build_device()
            return read_custom_attribute(self._custom[name], self, device)
        if name.startswith(FILE_PREFIX):
            return self._sysfs_device().nearest(name.removeprefix(FILE_PREFIX))
        if name.startswith(ENVIRONMENT_PREFIX):
            variable = name.removeprefix(ENVIRONMENT_PREFIX)
            if error := self._policy.read_env_error(variable):
                self._refused_reads.append(f"reading the environment variable {variable} is {error}")
                return None
            value = self._host.environment.get(variable)
            return AttributeValue((value,), "the environment of the genplug process") if value else None
        if name == NODE_NAME:
            return AttributeValue((self._host.node_name,), "--node-name") if self._host.node_name else None
        if name in _DEVICE_NUMBERS:
            return _read_device_number(self._sysfs_device(), _DEVICE_NUMBERS[name])
        device = self._sysfs_device()
        # Most device nodes of a host have no directory in /sys, and none of these attributes.
        return ATTRIBUTES[name].read(device) if name in ATTRIBUTES and device.is_in_sysfs else None

    def _build_device(self) -> SysfsDevice:
        return SysfsDevice(self._path, self._info, self._host, None, self._policy, self.depends, self._refused_reads)

    def _sysfs_device(self) -> SysfsDevice:
        if self._device is None:
            self._device = self._build_device()
            self._device.directory = self._find_directory()
        return self._device

    def _find_directory(self) -> str | None:
        """Return the directory of the device in /sys, without symlinks."""
        if self._source.sysfs is not None:
            return self._find_configured_directory(self._source.sysfs)
        info = self._info
        if info.is_device:
            link = f"/sys/dev/{info.kind.value}/{info.major}:{info.minor}"
            if (directory := self._host.resolve(link)) is not None:
                self.depends.add(link)
        elif info.resolved.startswith("/sys/"):
            directory = info.resolved if info.kind is Kind.DIRECTORY else info.resolved.rpartition("/")[0]
        else:
            return None
        if directory is not None:
            self.depends.add(directory)
        return directory

    def _find_configured_directory(self, sysfs: Template) -> str | None:
        try:
            paths = sysfs.render_each(self)
        except RenderError:
            return None
        self.depends.update(paths)
        device, count = self._build_device(), len(self._refused_reads)
        # Before the stat: the reason must not reveal whether a path exists that the policy does not allow to read.
        for path in paths:
            if error := self._policy.read_error(path):
                device.refuse(path, error)
        found = (device.resolve(path) for path in paths if not self._policy.read_error(path))
        directory = next((directory for directory in found if directory is not None), None)
        if directory is None:
            self._directory_refusal = next(iter(self._refused_reads[count:]), "")
        return directory


def _read_device_number(device: SysfsDevice, part: int) -> AttributeValue | None:
    """Return the major (0) or minor (1) number of a candidate in /sys."""
    value = device.file(f"{device.directory}/dev") if device.directory is not None else None
    if value is None:
        return None
    numbers = value.values[0].split(":")
    return AttributeValue((numbers[part],), value.origin) if len(numbers) > part else None
