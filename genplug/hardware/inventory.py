"""The results of discovery, as frozen values: devices, the outcome of every candidate, conflicts, dependencies.

``genplug.hardware.discovery`` builds an :class:`Inventory`, ``genplug.health`` evaluates it.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct, field

from genplug.hardware.candidate_users import NO_USERS, CandidateUsers, PathsOfCandidate
from genplug.hardware.dependencies import Dependencies, DirectoryDependency
from genplug.hardware.kernel_modules import missing_node_hint
from genplug.hardware.scan_errors import HangError, SearchLimitError, SystemLimitError
from genplug.spec.diagnostic import Diagnostic
from genplug.spec.globs import Segment
from genplug.spec.location import SourceLocation
from genplug.spec.model import DEFAULT_ACCESS, NodeAccess, Resource
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.template import Values
from genplug.struct_values import compare_without, hide_in_repr


class Kind(StrEnum):
    """The file type of a host path, with symlinks resolved."""

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
"""File types in messages."""


NodeNumbers: TypeAlias = tuple[Kind, int, int]
"""The identity of a device node in the kernel: kind, major and minor number."""
Identity: TypeAlias = NodeNumbers | str
"""The identity of a path: kind and numbers of a device node, else the path without symlinks."""


@compare_without("is_in_dev")
class PathInfo(Struct, frozen=True, gc=False):
    """The result of a stat of a path.

    ``resolved`` is the host path with all symlinks resolved. ``numbers`` is the file type with the major and minor
    number, which are 0 unless it is a device node.
    """

    resolved: str
    numbers: NodeNumbers
    is_in_dev: bool = False
    """Whether the path is in the file system of ``/dev``, which always responds."""

    @classmethod
    def of(cls, resolved: str, kind: Kind, major: int = 0, minor: int = 0, *, is_in_dev: bool = False) -> "PathInfo":
        """Return what is at a path; ``major`` and ``minor`` are the numbers of a device node."""
        return cls(resolved, (kind, major, minor), is_in_dev)

    @property
    def kind(self) -> Kind:
        """The file type."""
        return self.numbers[0]

    @property
    def major(self) -> int:
        """The major number of a device node, else 0."""
        return self.numbers[1]

    @property
    def minor(self) -> int:
        """The minor number of a device node, else 0."""
        return self.numbers[2]

    @property
    def is_device(self) -> bool:
        """Whether it is a character or block device node."""
        kind = self.numbers[0]
        return kind is Kind.CHAR or kind is Kind.BLOCK

    def describe_numbers(self) -> str:
        """Return kind and numbers of a device node: ``char 195:0``."""
        return f"{self.kind} {self.major}:{self.minor}"

    @property
    def identity(self) -> Identity:
        """The identity of the path, independent of the symlinks to it."""
        kind = self.numbers[0]
        # The identical tuple: each device keeps it in several places.
        return self.numbers if kind is Kind.CHAR or kind is Kind.BLOCK else self.resolved


class AttributeReads(Struct, frozen=True, gc=False):
    """The sources of the attributes of a candidate.

    ``depends`` are the paths whose change can change the attributes. ``refusals`` states why attributes have no value,
    for those whose file the policy does not allow to read.
    """

    depends: tuple[str, ...] = ()
    refusals: Mapping[str, str] = {}


NO_READS = AttributeReads()
"""The reads of most candidates, which share it."""


class Candidate(Struct, frozen=True, gc=False):
    """A path that a glob of a source matches; ``source`` counts from 0, ``found_by`` is the glob.

    ``reason`` is why it is left out, empty if it is not. ``links`` are the paths accessed to resolve it if it is or
    contains a symlink, else empty. ``reads`` states what its attributes were read from.
    """

    path: str
    info: PathInfo | None
    attributes: Values
    source: int
    found_by: str
    reason: str = ""
    links: tuple[str, ...] = ()
    reads: AttributeReads = NO_READS

    @property
    def symlink_chain(self) -> tuple[str, ...]:
        """The paths accessed to resolve it, itself included."""
        return self.links or (self.path,)

    @property
    def used_paths(self) -> PathsOfCandidate:
        """The paths on which it depends, apart from its own path."""
        return PathsOfCandidate((self.source, self.path), self.links, self.reads.depends)

    @property
    def is_usable(self) -> bool:
        """Whether it exists and is not left out."""
        return self.info is not None and not self.reason

    @property
    def is_node(self) -> bool:
        """Whether it is a device node."""
        return self.info is not None and self.info.is_device


CandidatesBySource: TypeAlias = tuple[Mapping[str, Candidate], ...]
"""All examined paths, for each source of a resource."""


class Search(Struct, frozen=True):
    """The search for a glob of a source: where it led to, and the number of paths that it found.

    ``leaves`` and ``way`` are those of a :class:`~genplug.hardware.file_tree.GlobResult`.
    """

    leaves: Mapping[str, tuple[tuple[str, Segment], ...]]
    way: Dependencies
    matches: int


SearchesBySource: TypeAlias = tuple[tuple[Search, ...], ...]
"""The searches for the globs of each source of a resource."""


class DeviceNode(Struct, frozen=True, gc=False):
    """A device node that a container gets.

    ``path`` is the host path as found, possibly a symlink; ``container_path`` is the path in the container;
    ``permissions`` is a subset of ``rwm``. ``info`` is the stat of ``path`` when the device was found. With
    ``is_optional``, the device is usable without the node: it is optional, a match of a glob, or a member of a group.
    """

    path: str
    container_path: str
    permissions: str
    info: PathInfo
    is_optional: bool = False
    access: NodeAccess = DEFAULT_ACCESS
    """Its owner, group and mode in the container."""


class Device(Struct, frozen=True, gc=False):
    """A schedulable device: the unit that the kubelet counts and a container gets.

    - ``id``: a DNS label of at most 63 characters, stable over restart and replug (``genplug.hardware.device_ids``).
    - ``key``: the string that the ID is derived from.
    - ``candidates``: the paths of its candidates.
    - ``identities``: what its candidates are: the numbers of a device node, else the path without symlinks.
    - ``is_via_link``: whether a candidate is a symlink.
    - ``nodes``: its device nodes; ``companions``: device nodes that a container gets in addition.
    - ``attributes``: the values of all candidates, candidate by candidate in their order.
    - ``numa``: its NUMA nodes; empty if the kernel does not know any.
    - ``slices``: the number of slices in which it is listed.
    - ``faults``: reasons why it must not be handed out, found while it was built (a missing companion, a template
      without a value); empty for a usable device.
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
    identities: tuple[Identity, ...] = ()
    is_via_link: bool = False


def sort_devices(devices: Iterable[Device]) -> tuple[Device, ...]:
    """Return devices in the order in which every list presents them: the natural order of their keys."""
    return tuple(sorted(devices, key=device_order))


def device_order(device: Device) -> tuple[tuple[str, str], str]:
    """Return the sort key of a device in every list."""
    return natural_sort_key(device.key), device.id


class CandidateOutcome(Struct, frozen=True):
    """The outcome of a path that a glob matches: part of ``device`` (an ID), or left out for ``reason``.

    ``is_misnamed`` is set if it is left out because its resource name would be invalid.
    """

    path: str
    resource: str
    location: SourceLocation
    device: str | None
    reason: str
    is_misnamed: bool = False


def leave_out(device: Device, reason: str, *, is_misnamed: bool = False) -> Iterator[CandidateOutcome]:
    """Yield the outcomes of the paths of a device that is left out."""
    for path in device.candidates:
        yield CandidateOutcome(path, device.resource, device.location, None, reason, is_misnamed)


class UnmatchedGlob(Struct, frozen=True):
    """A glob without a match, which explains why a resource may have fewer devices than expected."""

    glob: str
    resource: str
    location: SourceLocation

    @property
    def text(self) -> str:
        """The note about the glob, with what creates a well-known device node."""
        hint = missing_node_hint(self.glob)
        return f"nothing matches {self.glob} ({self.location})" + (f": {hint}" if hint else "")


class DeviceConflict(Struct, frozen=True):
    """Hardware or an ID that two devices claim. One gets it; the second is left out.

    ``location`` is that of the second device, ``resource`` the configured name of its resource.
    """

    path: str
    location: SourceLocation
    message: str
    resource: str = ""


PATH_SEPARATOR = ", "
"""Separates the paths of a device in the ``candidate`` of a stall."""


@compare_without("since", "is_system_limit", "is_search_limit")
class ScanStall(Struct, frozen=True):
    """Why a part of a resource's scan is out of date.

    ``candidate`` is the path whose last known state is kept, empty if the whole scan of the resource could not finish.
    Without ``is_known``, no earlier scan has finished, and the path, or the resource, is left out. ``reason`` is a
    clause that stays the same for as long as the part is out of date; ``since`` is when the file operation began that
    hangs (monotonic seconds), None where it is not known. ``is_system_limit`` is whether the system had no file
    descriptor or memory left, so that a later scan can succeed, and ``is_search_limit`` whether the search for paths
    exceeds a limit.
    """

    resource: str
    candidate: str
    reason: str
    since: float | None = None
    is_system_limit: bool = False
    is_search_limit: bool = False
    is_known: bool = True

    @classmethod
    def of(cls, resource: str, candidate: str, error: HangError, *, is_known: bool = True) -> "ScanStall":
        """Return the stall that an error causes."""
        is_limit, is_search = isinstance(error, SystemLimitError), isinstance(error, SearchLimitError)
        return cls(resource, candidate, str(error), error.since, is_limit, is_search_limit=is_search, is_known=is_known)


@compare_without("extra_dependencies", "searches", "users", "is_plain")
@hide_in_repr("candidates_by_source", "extra_dependencies", "searches", "users", "is_plain")
class ResourceScan(Struct, frozen=True):
    """The scan of one resource, before conflicts between resources are resolved; devices are in claim order."""

    resource: Resource
    devices: tuple[Device, ...]
    left_out: tuple[CandidateOutcome, ...]
    """The outcomes of the paths that are part of no device."""
    unmatched_globs: tuple[UnmatchedGlob, ...]
    dependencies: Mapping[str, DirectoryDependency]
    """The dependencies of the result, by directory."""
    candidates_by_source: CandidatesBySource
    """All examined paths, of each source of the resource."""
    extra_dependencies: Dependencies = field(default_factory=Dependencies)
    """The dependencies of its devices that are not candidates; part of ``dependencies``."""
    stalls: tuple[ScanStall, ...] = ()
    """The parts that could not be scanned because a file operation hangs."""
    searches: SearchesBySource = ()
    """The searches for the globs."""
    users: CandidateUsers = NO_USERS
    """The candidates that depend on more than their own path."""
    is_plain: bool = False
    """Whether each candidate that is not left out is a device of its own, which no other candidate can affect."""

    @property
    def candidates(self) -> Iterator[Candidate]:
        """Every candidate, in the order of sources and paths."""
        return (candidate for candidates in self.candidates_by_source for candidate in candidates.values())

    @property
    def outcomes(self) -> tuple[CandidateOutcome, ...]:
        """The outcome of every path: first those of the devices, then those that are left out."""
        return (*self.used, *self.left_out)

    @property
    def used(self) -> Iterator[CandidateOutcome]:
        """The outcome of every path of a device."""
        for device in self.devices:
            for path in device.candidates:
                reason = f"found by '{self._find_glob(path)}'"
                yield CandidateOutcome(path, device.resource, device.location, device.id, reason)

    def _find_glob(self, path: str) -> str:
        """Return the glob that found a path of a device: that of the first source that accepts the path."""
        candidates = (found[path] for found in self.candidates_by_source if path in found)
        return next(candidate.found_by for candidate in candidates if candidate.is_usable)


@compare_without("resources", "scans")
@hide_in_repr("resources", "scans")
class Inventory(Struct, frozen=True):
    """The result of a scan of all resources.

    - ``devices``: the devices of every resource, including resources without devices, in configuration order; devices
      are in natural order of their keys.
    - ``left_out``: the outcomes of the paths that are part of no device.
    - ``resources``: the resource of each of these names. A templated name appears as the names that its devices have.
    - ``directories``: the resolved host directories whose change can change the result; of a missing directory, the
      nearest existing parent.
    - ``scans``: the scans that it was built from, by configured name.
    - ``withheld``: the devices (resource and ID) that wait until the kubelet has reported which IDs pods use, with the
      reason.
    - ``warnings``: what the author of the configuration probably did not intend, and only a scan shows.
    """

    devices: Mapping[str, tuple[Device, ...]]
    left_out: tuple[CandidateOutcome, ...]
    conflicts: tuple[DeviceConflict, ...]
    directories: frozenset[str]
    unmatched_globs: tuple[UnmatchedGlob, ...] = ()
    stalls: tuple[ScanStall, ...] = ()
    resources: Mapping[str, Resource] = {}
    scans: Mapping[str, ResourceScan] = {}
    warnings: tuple[Diagnostic, ...] = ()
    withheld: Mapping[tuple[str, str], str] = {}

    @property
    def outcomes(self) -> tuple[CandidateOutcome, ...]:
        """The outcome of every path: first those of the devices, then those that are left out."""
        offered = {(name, device.id) for name, devices in self.devices.items() for device in devices}
        used = (outcome for scan in self.scans.values() for outcome in scan.used)
        return (*(outcome for outcome in used if (outcome.resource, outcome.device) in offered), *self.left_out)

    @property
    def directories_of_attributes(self) -> frozenset[str]:
        """The directories of the files that attributes were read from; sysfs and procfs report no changes."""
        return frozenset[str]().union(*(scan.users.directories for scan in self.scans.values()))
