"""Updates the scan of a resource after changes of a few paths: the work is in proportion to these paths.

It applies to the usual resource, of which each candidate is a device of its own. Any other scan is repeated in full,
with the result that the update has, too.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from operator import attrgetter

from msgspec import Struct, field
from msgspec.structs import replace

from genplug.hardware.candidate_budget import CandidateBudget
from genplug.hardware.candidate_users import CandidateKey
from genplug.hardware.candidates import Comparisons, examine, find_named_path, list_unmatched, select_paths
from genplug.hardware.dependencies import Changes, ChangeSet, Dependencies, merge_dependencies
from genplug.hardware.devices import build_device, device_key
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError
from genplug.hardware.inventory import Candidate, Device, ResourceScan, Search
from genplug.hardware.required_attributes import required_attributes
from genplug.spec.limits import MAX_MATCHES
from genplug.spec.model import Resource, Source
from genplug.spec.natural_sort import natural_sort_key


class _NotPlainError(Exception):
    """The changes concern more than devices that are candidates of their own."""


def update_scan(
    previous: ResourceScan, host: Host, changes: Changes, budget: CandidateBudget | None = None
) -> ResourceScan | None:
    """Return the scan of a resource after changes, None if the scan must be repeated.

    Unchanged candidates and devices, and an unchanged scan, are the identical objects of ``previous``.
    """
    if not previous.is_plain or previous.stalls or previous.extra_dependencies.is_affected(changes):
        return None
    try:
        return _Update(previous, host, budget).apply(changes)
    except (_NotPlainError, HangError):
        # The full scan keeps what cannot be examined.
        return None


class _Update(Struct, frozen=True):
    previous: ResourceScan
    host: Host
    budget: CandidateBudget | None
    dependencies: Dependencies = field(default_factory=Dependencies)
    """The dependencies of what was examined; those of what was removed are kept until the next full scan."""
    extra: Dependencies = field(default_factory=Dependencies)
    """The dependencies of new devices that are not candidates."""
    comparisons: Comparisons = field(default_factory=Comparisons)

    @property
    def resource(self) -> Resource:
        return self.previous.resource

    def apply(self, changes: Changes) -> ResourceScan:
        """Return the scan after changes.

        Raises:
            HangError: a file operation hangs.
            _NotPlainError: the scan must be repeated.
        """
        previous, change_set = self.previous, ChangeSet.of(changes)
        searches = [list(found) for found in previous.searches]
        examined: dict[CandidateKey, Candidate | None] = {}
        for number, source in enumerate(self.resource.sources):
            for path, entry in _find_leaves(previous.searches[number], changes, change_set).items():
                exists = self.host.has_entry(*entry)
                known = previous.candidates_by_source[number].get(path)
                found_by = self._count_match(source, searches[number], path, was=known is not None, exists=exists)
                if found_by or known is not None:
                    examined[number, path] = self._examine(number, path, found_by) if found_by else None
        for number, path in previous.users.find(change_set) - examined.keys():
            found_by = previous.candidates_by_source[number][path].found_by
            examined[number, path] = self._examine(number, path, found_by)
        if not examined:
            return previous
        return self._replace(examined, searches)

    def _count_match(self, source: Source, searches: list[Search], path: str, *, was: bool, exists: bool) -> str:
        """Return the first glob that finds a path now, empty if none does; update the searches."""
        found_by = ""
        for number, (glob, search) in enumerate(zip(source.globs, searches, strict=True)):
            if not _is_leaf(search, path):
                continue
            if find_named_path(glob) and self.resource.policy.candidate_error(path):
                # It is a result whether or not it exists.
                raise _NotPlainError
            is_allowed = bool(select_paths((path,), glob, self.resource.policy))
            if is_allowed and exists:
                found_by = found_by or glob.text
            if is_allowed and exists != was:
                searches[number] = replace(search, matches=search.matches + (1 if exists else -1))
        return found_by

    def _examine(self, number: int, path: str, found_by: str) -> Candidate:
        source = self.resource.sources[number]
        names = required_attributes(self.resource, source)
        candidate = examine(
            path, source, number, found_by, names, self.host, self.dependencies, self.resource.policy, self.comparisons
        )
        if not candidate.is_usable:
            raise _NotPlainError
        return candidate

    def _replace(
        self, examined: Mapping[CandidateKey, Candidate | None], searches: Sequence[Sequence[Search]]
    ) -> ResourceScan:
        """Return the scan with the examined candidates in place of their previous states."""
        previous = self.previous
        by_source = [dict(found) for found in previous.candidates_by_source]
        removed: list[Candidate] = []
        for (number, path), candidate in examined.items():
            if (old := by_source[number].pop(path, None)) is not None:
                if not old.is_usable:
                    raise _NotPlainError
                removed.append(old)
            if candidate is not None:
                by_source[number][path] = candidate
            if any(path in found for other, found in enumerate(by_source) if other != number):
                raise _NotPlainError
        added = [candidate for candidate in examined.values() if candidate is not None]
        self._check_limits(by_source)
        devices = self._replace_devices(removed, added)
        extra = previous.extra_dependencies
        if self.extra.directories:
            extra = Dependencies()
            extra.update(previous.extra_dependencies)
            extra.update(self.extra)
            self.dependencies.update(self.extra)
        unmatched = (
            list_unmatched(self.resource, source, found)
            for source, found in zip(self.resource.sources, searches, strict=True)
        )
        return replace(
            previous,
            devices=devices,
            unmatched_globs=tuple(glob for globs in unmatched for glob in globs),
            dependencies=merge_dependencies(previous.dependencies, self.dependencies),
            candidates_by_source=tuple(by_source),
            extra_dependencies=extra,
            searches=tuple(map(tuple, searches)),
            users=previous.users.replace(
                [candidate.used_paths for candidate in removed], [candidate.used_paths for candidate in added]
            ),
        )

    def _check_limits(self, by_source: Sequence[Mapping[str, Candidate]]) -> None:
        count = sum(map(len, by_source))
        if count > MAX_MATCHES:
            raise _NotPlainError
        if self.budget is not None:
            self.budget.take(self.resource.name, count)

    def _replace_devices(self, removed: Sequence[Candidate], added: Sequence[Candidate]) -> tuple[Device, ...]:
        """Return the devices without those of some candidates, and with those of others."""
        sources = self.resource.sources
        positions = {source.location: number for number, source in enumerate(sources)}
        if len(positions) < len(sources):
            raise _NotPlainError

        def order(device: Device) -> tuple[int, tuple[str, str]]:
            return positions[device.location], natural_sort_key(device.key)

        devices = list(self.previous.devices)
        old: dict[tuple[str, ...], Device] = {}
        for candidate in removed:
            key = device_key(sources[candidate.source], candidate)
            place = bisect_left(devices, (candidate.source, natural_sort_key(key or "")), key=order)
            if place == len(devices) or devices[place].candidates != (candidate.path,):
                raise _NotPlainError
            old[candidate.path,] = devices.pop(place)
        ids = set(map(attrgetter("id"), devices)) if added else set[str]()
        for candidate in added:
            device = build_device(self.resource, candidate, self.host, self.extra)
            if device is None or device.id in ids:
                raise _NotPlainError
            ids.add(device.id)
            known = old.get(device.candidates)
            insort(devices, known if known is not None and known == device else device, key=order)
        return tuple(devices)


def _find_leaves(searches: Sequence[Search], changes: Changes, change_set: ChangeSet) -> dict[str, tuple[str, str]]:
    """Return the changed paths that globs can match, each with its resolved directory and its name.

    Raises:
        _NotPlainError: a directory in which a glob may match has changed.
    """
    found: dict[str, tuple[str, str]] = {}
    for search in searches:
        if search.way.is_affected(changes):
            raise _NotPlainError
        if any(f"{directory.rstrip('/')}/".startswith(change_set.prefixes) for directory in search.leaves):
            raise _NotPlainError
        for directory, names in changes.items():
            for path, segment in search.leaves.get(directory, ()):
                found |= {f"{path}/{name}": (directory, name) for name in names if segment.matches(name)}
    return found


def _is_leaf(search: Search, path: str) -> bool:
    """Return whether a glob matches a path in one of the directories to which it leads."""
    directory, _, name = path.rpartition("/")
    return any(
        spelled == directory and segment.matches(name)
        for leaves in search.leaves.values()
        for spelled, segment in leaves
    )
