"""The results of discovery, as frozen values: devices, the outcome of every candidate, conflicts, dependencies.

``discover.py`` makes an :class:`Inventory`; ``genplug.health`` judges it; nothing here reads a file.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import TypeAlias

from attrs import field, frozen

from genplug.hardware.dependencies import Dependencies, DirectoryDependency
from genplug.spec.location import SourceLocation
from genplug.spec.model import Resource
from genplug.spec.template import Values


class Kind(StrEnum):
    """What a path of the host is, symlinks followed."""

    CHAR = "char"
    BLOCK = "block"
    DIRECTORY = "directory"
    FILE = "file"
    SOCKET = "socket"
    FIFO = "fifo"


KIND_NAMES = {
    Kind.CHAR: "a character device",
    Kind.BLOCK: "a block device",
    Kind.DIRECTORY: "a directory",
    Kind.FILE: "a regular file",
    Kind.SOCKET: "a socket",
    Kind.FIFO: "a named pipe",
}
"""What a path is, for messages."""


@frozen
class PathInfo:
    """One look at a path: what stands there now.

    ``resolved`` is the path with every symlink followed, as the host says it; ``major`` and ``minor`` are 0 where
    ``kind`` is no device node.
    """

    resolved: str
    kind: Kind
    major: int = 0
    minor: int = 0

    @property
    def is_device(self) -> bool:
        """Whether this is a character or block node."""
        return self.kind is Kind.CHAR or self.kind is Kind.BLOCK

    def describe_numbers(self) -> str:
        """Return kind and numbers of a device node: ``char 195:0``."""
        return f"{self.kind} {self.major}:{self.minor}"

    @property
    def numbers(self) -> tuple[Kind, int, int]:
        """What makes a node the node it is for the kernel: kind, major, minor."""
        return (self.kind, self.major, self.minor)


@frozen
class Candidate:
    """One path that a glob of a source found; ``source`` counts from 0, ``found_by`` says which glob it was.

    ``reason`` says why it is left out, empty if it is not. ``way`` are the paths that were looked at to see it, where
    links lead to it, else empty; ``depends`` are the other paths whose change may change what is known of it.
    """

    path: str
    info: PathInfo | None
    attributes: Values
    source: int
    found_by: str
    reason: str = ""
    links: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()

    @property
    def symlink_chain(self) -> tuple[str, ...]:
        """The paths that were looked at to see it."""
        return self.links or (self.path,)

    @property
    def is_node(self) -> bool:
        """Whether it is a device node."""
        return self.info is not None and self.info.is_device


CandidatesBySource: TypeAlias = tuple[Mapping[str, Candidate], ...]
"""For each source of a resource every path that was looked at."""


@frozen
class DeviceNode:
    """A device node that a container gets.

    ``path`` is the host's path as found (it may be a symlink), ``container_path`` where the container sees it,
    ``permissions`` a subset of ``rwm``; ``look`` is what stood at ``path`` when the device was found.
    """

    path: str
    container_path: str
    permissions: str
    info: PathInfo


@frozen
class Device:
    """One schedulable device: what the kubelet counts and a container gets.

    ``id`` is a DNS label, at most 63 characters, stable over restart and replug (``hardware/ids.py``); ``key`` is the
    text it was made of. ``candidates`` are the paths it was made of; ``nodes`` make it what it is, ``companions`` are
    handed out beside them. ``attributes`` hold the values of all candidates. ``numa`` are the NUMA nodes that it stands
    on, none where the kernel knows none. ``slices`` is in how many slices it is listed. ``faults`` are reasons why it
    must not be handed out, found while it was put together
    (a companion is missing, a template lacks a value); empty for a sound device.
    """

    id: str
    key: str
    resource: str
    location: SourceLocation
    candidates: tuple[str, ...]
    nodes: tuple[DeviceNode, ...]
    companions: tuple[DeviceNode, ...]
    attributes: Values
    numa: tuple[int, ...] = ()
    slices: int = 1
    faults: tuple[str, ...] = ()


@frozen
class CandidateOutcome:
    """What became of one path that a glob found: part of ``device`` (an ID), or left out for ``reason``.

    ``is_misnamed`` marks what is left out for the name that its resource would have.
    """

    path: str
    resource: str
    location: SourceLocation
    device: str | None
    reason: str
    is_misnamed: bool = False


@frozen
class UnmatchedGlob:
    """A glob that found nothing: why a resource may have fewer devices than its writer thinks."""

    glob: str
    resource: str
    location: SourceLocation


@frozen
class DeviceConflict:
    """One node that two devices claim. The first keeps it; the second is left out.

    ``location`` is the second's line.
    """

    path: str
    location: SourceLocation
    message: str


@frozen
class ScanStall:
    """Why a part of a resource's scan is out of date.

    ``candidate`` is the path whose last known state is kept, empty if the whole scan of the resource could not finish;
    ``reason`` is a clause that stays the same for as long as the part is out of date.
    """

    resource: str
    candidate: str
    reason: str

    @property
    def text(self) -> str:
        """The stall as a sentence without its resource."""
        return f"{self.candidate} is kept as last known: {self.reason}" if self.candidate else self.reason


@frozen
class ResourceScan:
    """What one resource found, before the resources are compared: devices in the order in which they claim nodes."""

    resource: Resource
    devices: tuple[Device, ...]
    outcomes: tuple[CandidateOutcome, ...]
    unmatched_globs: tuple[UnmatchedGlob, ...]
    dependencies: Mapping[str, DirectoryDependency]
    """What its result depends on, by directory."""
    candidates_by_source: CandidatesBySource = field(default=(), repr=False)
    """Every path that was looked at."""
    extra_dependencies: Dependencies = field(factory=Dependencies, eq=False, repr=False)
    """What its devices depend on beside their candidates; part of ``dependencies``."""
    stalls: tuple[ScanStall, ...] = ()
    """What could not be scanned because a file operation hangs."""

    @property
    def candidates(self) -> Iterator[Candidate]:
        """Every candidate, in the order of sources and paths."""
        return (one for found in self.candidates_by_source for one in found.values())


@frozen
class Inventory:
    """Everything that one scan found.

    ``devices`` holds every resource, also those without a device, in the configuration's order, and devices in natural
    order of their keys; ``resources`` says what each of them is. A resource whose name is a template is there under the
    names that its devices have. ``directories`` are the host's directories whose change may change the
    result (host paths without symlinks; the nearest existing one where a pattern's directory is not there yet).
    ``scans`` is what it was put together from, by the name that is written.
    """

    devices: Mapping[str, tuple[Device, ...]]
    outcomes: tuple[CandidateOutcome, ...]
    conflicts: tuple[DeviceConflict, ...]
    directories: frozenset[str]
    unmatched_globs: tuple[UnmatchedGlob, ...] = ()
    stalls: tuple[ScanStall, ...] = ()
    resources: Mapping[str, Resource] = field(factory=dict, eq=False, repr=False)
    scans: Mapping[str, ResourceScan] = field(factory=dict, eq=False, repr=False)

    @property
    def directories_of_attributes(self) -> frozenset[str]:
        """The directories of what was read of candidates; in the kernel's own none tells of a change."""
        examined = (one for scan in self.scans.values() for one in scan.candidates)
        return frozenset(path.rpartition("/")[0] or "/" for one in examined for path in one.depends)
