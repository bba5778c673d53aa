"""Decides which container has which devices, from Allocate calls and reports of the kubelet. Pure.

Allocate does not name the pod. The kubelet reports a container with its devices some time after it, and no longer some
time after the end of the pod. Therefore an assignment has times between which it began and ended.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from msgspec import Struct
from msgspec.structs import replace

from genplug.audit.records import Assignment, Container, EndReason, Hardware
from genplug.spec.limits import MAX_AUDIT_IDS

MISSING_POLLS = 2
"""Reports without a container after which its assignment has ended: a report can be incomplete by accident."""


class ContainerUse(Struct, frozen=True):
    """The device IDs of a resource that a container has, as a report of the kubelet lists them."""

    container: Container
    resource: str
    ids: frozenset[str]


class ReportTimes(Struct, frozen=True):
    """When a report was requested and received: what it contains was true at a time between both."""

    requested_at: float
    received_at: float


class Began(Struct, frozen=True):
    """An allocation was answered. The container is not known yet."""

    assignment: Assignment


class Continued(Struct, frozen=True):
    """An assignment of an earlier process became ambiguous."""

    assignment: Assignment


class Seen(Struct, frozen=True):
    """The kubelet has reported the container of an assignment for the first time."""

    assignment: Assignment


class Ended(Struct, frozen=True):
    """An assignment ended, after its ``last_seen`` and before ``ended_by``."""

    assignment: Assignment
    ended_by: float
    reason: EndReason


Change = Began | Continued | Seen | Ended


class _Tracked(Struct, frozen=True):
    """An assignment; ``missing_since`` and ``missing_polls`` are about the latest reports, which lack it.

    ``is_recovered`` is whether it is that of an earlier process, and no report has confirmed it.
    """

    assignment: Assignment
    missing_since: float | None = None
    missing_polls: int = 0
    is_recovered: bool = False


class Assignments(Struct, frozen=True):
    """The assignments of a node that have not ended, by key.

    Every method returns the assignments after an occurrence, and the changes to record in their order.
    """

    tracked: Mapping[str, _Tracked] = {}
    _holders: Mapping[tuple[str, str], tuple[str, ...]] = {}
    """The keys of the assignments of each resource and device ID; empty until an allocation needs them."""

    @property
    def current(self) -> tuple[Assignment, ...]:
        """The assignments, the oldest first."""
        return tuple(tracked.assignment for tracked in self.tracked.values())

    @property
    def has_unseen(self) -> bool:
        """Whether the container of an assignment is not known yet."""
        return any(tracked.assignment.container is None for tracked in self.tracked.values())

    @property
    def resources(self) -> frozenset[str]:
        """The names of the resources that have assignments."""
        return frozenset(tracked.assignment.resource for tracked in self.tracked.values())

    @property
    def all_seen_at(self) -> float | None:
        """The latest time at which the kubelet had reported every assignment whose container is known."""
        times = [
            tracked.assignment.last_seen
            for tracked in self.tracked.values()
            if tracked.assignment.last_seen is not None
        ]
        return min(times, default=None)

    def after_recovery(
        self, recovered: Iterable[Assignment], time: float, *, is_complete: bool
    ) -> "tuple[Assignments, tuple[Change, ...]]":
        """Return the assignments with those that an earlier process recorded and did not end.

        Allocations that this process answered meanwhile have ended the earlier assignments of their devices. Unless
        the log of the earlier process ``is_complete``, it can lack later allocations: then a container that the kubelet
        reports may be another than that of an allocation.
        """
        taken = {
            (assignment.resource, id_): assignment.allocated_at or time
            for assignment in self.current
            for id_ in assignment.ids
        }
        kept: dict[str, _Tracked] = {}
        changes: list[Change] = []
        for assignment in recovered:
            later = [taken[assignment.resource, id_] for id_ in assignment.ids if (assignment.resource, id_) in taken]
            if later:
                changes.append(Ended(assignment, min(later), EndReason.ALLOCATED_AGAIN))
                continue
            continued = assignment
            if assignment.container is None and not is_complete and not assignment.is_ambiguous:
                continued = replace(assignment, is_ambiguous=True)
                changes.append(Continued(continued))
            kept[assignment.key] = _Tracked(continued, is_recovered=True)
        return Assignments({**kept, **self.tracked}), tuple(changes)

    def after_allocation(self, assignment: Assignment, time: float) -> "tuple[Assignments, tuple[Change, ...]]":
        """Return the assignments after an Allocate call: the kubelet has freed the devices before."""
        tracked, holders = dict(self.tracked), dict(self._holders or _index_holders(self.tracked))
        changes: list[Change] = []
        for key in _find_holders(holders, assignment, tracked):
            earlier = tracked.pop(key)
            for device in _devices_of(earlier.assignment):
                holders[device] = tuple(other for other in holders[device] if other != key)
            changes.append(Ended(earlier.assignment, earlier.missing_since or time, EndReason.ALLOCATED_AGAIN))
        tracked[assignment.key] = _Tracked(assignment)
        # The present holders of these devices have just ended.
        holders |= dict.fromkeys(_devices_of(assignment), (assignment.key,))
        return Assignments(tracked, holders), (*changes, Began(assignment))

    def after_report(
        self,
        uses: Sequence[ContainerUse],
        moments: ReportTimes,
        build: Callable[[ContainerUse], Assignment],
        *,
        may_end: bool,
    ) -> "tuple[Assignments, tuple[Change, ...]]":
        """Return the assignments after a report.

        ``uses`` are those of the agent's resources. ``build`` returns a new assignment without a container, for a use
        that no allocation began. ``may_end`` is False while a kubelet may not know all its pods yet.
        """
        time = moments.requested_at
        left = {(use.container, use.resource): set(use.ids) for use in uses}
        seen = self._keep_later(left, time)
        later = frozenset(seen)
        began: list[Change] = []
        for key, tracked in self.tracked.items():
            if key not in later and (known := _take_seen(left, tracked.assignment, time)) is not None:
                seen[key] = _Tracked(known)
        for key, tracked in self.tracked.items():
            if key in seen or tracked.assignment.is_ambiguous:
                continue
            if (new := _take_new(left, tracked.assignment, time)) is not None:
                seen[key] = _Tracked(new)
                began.append(Seen(new))
        kept, ended = self._find_ended(seen, left, moments.received_at, may_end=may_end)
        for (container, resource), ids in left.items():
            remaining = iter(sorted(ids))
            while part := tuple(islice(remaining, MAX_AUDIT_IDS)):
                use = ContainerUse(container, resource, frozenset(part))
                assignment = replace(build(use), container=container, first_seen=time, last_seen=time)
                kept[assignment.key] = _Tracked(assignment)
                began.append(Seen(assignment))
        # An end before a begin: the devices of the first are those of the second.
        return Assignments(kept), (*ended, *began)

    def _keep_later(self, left: Mapping[tuple[Container, str], set[str]], time: float) -> dict[str, _Tracked]:
        """Return the assignments that began after a report was requested, and remove their IDs from ``left``.

        The report can contain the container that had the devices before.
        """
        later = {
            key: tracked
            for key, tracked in self.tracked.items()
            if tracked.assignment.allocated_at is not None and tracked.assignment.allocated_at >= time
        }
        for tracked in later.values():
            for (_, resource), ids in left.items():
                if resource == tracked.assignment.resource:
                    ids.difference_update(tracked.assignment.ids)
        return later

    def _find_ended(
        self,
        seen: Mapping[str, _Tracked],
        left: Mapping[tuple[Container, str], set[str]],
        received_at: float,
        *,
        may_end: bool,
    ) -> tuple[dict[str, _Tracked], list[Change]]:
        """Return the assignments that continue, and the ends of the others; ``seen`` are those in the report."""
        kept: dict[str, _Tracked] = {}
        ended: list[Change] = []
        for key, tracked in self.tracked.items():
            if key in seen:
                kept[key] = seen[key]
                continue
            since = received_at if tracked.missing_since is None else tracked.missing_since
            missing = replace(tracked, missing_since=since, missing_polls=tracked.missing_polls + 1)
            others = (ids for (_, resource), ids in left.items() if resource == tracked.assignment.resource)
            is_replaced = any(not ids.isdisjoint(tracked.assignment.ids) for ids in others)
            if is_replaced or (may_end and missing.missing_polls >= MISSING_POLLS):
                ended.append(Ended(tracked.assignment, since, _end_reason(tracked)))
            else:
                # A report that may lack pods does not bound the end of an assignment.
                kept[key] = missing if may_end else tracked
        return kept, ended

    def with_hardware(self, key: str, hardware: tuple[Hardware, ...], omitted: int) -> "Assignments":
        """Return the assignments with the hardware of an assignment."""
        tracked = self.tracked[key]
        assignment = replace(tracked.assignment, hardware=hardware, hardware_omitted=omitted)
        return Assignments({**self.tracked, key: replace(tracked, assignment=assignment)})


def _devices_of(assignment: Assignment) -> Iterator[tuple[str, str]]:
    return ((assignment.resource, id_) for id_ in assignment.ids)


def _index_holders(tracked: Mapping[str, _Tracked]) -> dict[tuple[str, str], tuple[str, ...]]:
    holders: dict[tuple[str, str], tuple[str, ...]] = {}
    for key, each in tracked.items():
        for device in _devices_of(each.assignment):
            # The kubelet can report a device in two containers for a moment.
            holders[device] = (*holders.get(device, ()), key)
    return holders


def _find_holders(
    holders: Mapping[tuple[str, str], tuple[str, ...]], assignment: Assignment, tracked: Mapping[str, _Tracked]
) -> Sequence[str]:
    """Return the keys of the assignments that have a device of another assignment, the oldest first."""
    keys = {key for device in _devices_of(assignment) for key in holders.get(device, ())}
    return [key for key in tracked if key in keys] if len(keys) > 1 else list(keys)


def _take_seen(
    left: Mapping[tuple[Container, str], set[str]], assignment: Assignment, time: float
) -> Assignment | None:
    """Return an assignment with a known container that a report contains, and remove its IDs from ``left``."""
    if assignment.container is None:
        return None
    ids = left.get((assignment.container, assignment.resource), set())
    if not ids.issuperset(assignment.ids):
        return None
    ids.difference_update(assignment.ids)
    return replace(assignment, last_seen=time)


def _take_new(left: Mapping[tuple[Container, str], set[str]], assignment: Assignment, time: float) -> Assignment | None:
    """Return an assignment with the container that a report has for it, and remove its IDs from ``left``."""
    if assignment.container is not None:
        return None
    for (container, resource), ids in left.items():
        if resource == assignment.resource and ids.issuperset(assignment.ids):
            ids.difference_update(assignment.ids)
            return replace(assignment, container=container, first_seen=time, last_seen=time)
    return None


def _end_reason(tracked: _Tracked) -> EndReason:
    if tracked.assignment.is_ambiguous:
        return EndReason.NOT_IDENTIFIED
    if tracked.assignment.container is None:
        return EndReason.NEVER_ASSIGNED
    return EndReason.AGENT_NOT_RUNNING if tracked.is_recovered else EndReason.POD_ENDED
