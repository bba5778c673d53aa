"""Combines the records of a log into assignments with the times between which they began and ended. Pure."""

from collections.abc import Iterator

from msgspec import Struct, field
from msgspec.structs import replace

from genplug.audit.records import ASSIGNMENT_TYPES, Assignment, EndReason, Record, RecordType


class Interval(Struct, frozen=True):
    """An assignment as a log describes it.

    ``ended_by`` is a time at which it had ended, or None if the log does not contain its end. Before
    ``assignment.last_seen`` it had not ended. With ``is_doubtful``, records are missing that may contain its end.
    """

    node: str | None
    assignment: Assignment
    ended_by: float | None = None
    reason: EndReason | None = None
    is_doubtful: bool = False

    @property
    def began_after(self) -> float | None:
        """The time before which the assignment had not begun, None if it is not known."""
        return self.assignment.allocated_at

    @property
    def known_from(self) -> float | None:
        """The time from which the container certainly had the devices, None if no time is certain."""
        assignment = self.assignment
        return assignment.first_seen if assignment.allocated_at is None else assignment.allocated_at

    @property
    def known_until(self) -> float | None:
        """The time until which the container certainly had the devices, None if no time is certain."""
        assignment = self.assignment
        return assignment.allocated_at if assignment.last_seen is None else assignment.last_seen

    def may_overlap(self, start: float | None, end: float | None) -> bool:
        """Return whether the container may have had the devices at a time from ``start`` to ``end``; None is open."""
        is_before = start is not None and self.ended_by is not None and self.ended_by < start
        return not is_before and not (end is not None and self.began_after is not None and self.began_after > end)

    def must_overlap(self, start: float | None, end: float | None) -> bool:
        """Return whether the container certainly had the devices at a time from ``start`` to ``end``."""
        first, last = self.known_from, self.known_until
        if first is None or last is None:
            return False
        return (start is None or last >= start) and (end is None or first <= end)


class Loss(Struct, frozen=True):
    """Records that a log does not contain: because the agent lost them, or because they are not in the files.

    ``start`` and ``end`` are the times between which they would be; ``count`` is their number, 0 if it is not known.
    """

    node: str | None
    start: float
    end: float
    count: int
    is_deleted: bool = False


class History(Struct):
    """The state of one node's log while its records are read in their order."""

    sequence: int = 0
    """The sequence number of the last record, 0 before the first."""
    time: float = 0.0
    is_stopped: bool = False
    """Whether the last record is the end of an agent."""
    _open: dict[str, Interval] = {}
    _gap: Loss | None = None
    _confirmed: set[str] = field(default_factory=set)

    def apply(self, record: Record) -> Iterator[Interval | Loss]:
        """Apply a record, and yield what it completes.

        A record that was read before changes nothing. A later record with an earlier sequence number begins another
        log of the node, for example after the disk was replaced.

        Raises:
            RecordError: the members of the record do not have the expected form; the record is not applied.
        """
        seen_at = record.time_of("seenAt")
        if record.sequence <= self.sequence and record.time <= self.time:
            return
        if self.sequence and record.sequence != self.sequence + 1:
            self._open = {key: replace(interval, is_doubtful=True) for key, interval in self._open.items()}
            count = max(record.sequence - self.sequence - 1, 0)
            yield Loss(record.node, self.time, record.time, count, is_deleted=True)
        self.sequence, self.time = record.sequence, record.time
        self.is_stopped = record.type is RecordType.STOPPED
        is_continued = record.type in ASSIGNMENT_TYPES and record.fields.get("isContinued") is True
        if self._gap is not None and not is_continued:
            yield from self._end_gap(self._gap)
        if (assignment := record.assignment) is not None:
            interval = Interval(record.node, assignment)
            if record.type is RecordType.RELEASED:
                self._open.pop(assignment.key, None)
                reason = EndReason(record.fields.get("reason", EndReason.POD_ENDED))
                yield replace(interval, ended_by=record.time_of("endedBy"), reason=reason)
            else:
                self._open[assignment.key] = interval
                self._confirmed.add(assignment.key)
        elif record.type is RecordType.GAP:
            lost = record.fields.get("lost")
            self._gap = Loss(
                record.node,
                record.time_of("lostFrom") or record.time,
                record.time,
                lost if isinstance(lost, int) else 0,
            )
            self._confirmed.clear()
            yield self._gap
        elif seen_at is not None:
            self._open = {key: _with_report(interval, seen_at) for key, interval in self._open.items()}

    def list_open(self) -> tuple[Interval, ...]:
        """Return the assignments whose end the records so far do not contain, in the order of their begin."""
        if self._gap is None:
            return tuple(self._open.values())
        # The agent has not repeated the others yet, or they ended in the gap.
        return tuple(
            interval if key in self._confirmed else replace(interval, is_doubtful=True)
            for key, interval in self._open.items()
        )

    def list_recovered(self) -> tuple[Assignment, ...]:
        """Return the assignments with which the next agent continues: a reader of its records regards them as open."""
        return tuple(interval.assignment for interval in self.list_open() if not interval.is_doubtful)

    def _end_gap(self, gap: Loss) -> Iterator[Interval]:
        """Yield the assignments that the agent did not have any more after it had lost records."""
        for key in [key for key in self._open if key not in self._confirmed]:
            yield replace(self._open.pop(key), ended_by=gap.end, reason=EndReason.RECORDS_LOST)
        self._gap = None


def _with_report(interval: Interval, seen_at: float) -> Interval:
    assignment = interval.assignment
    if interval.is_doubtful or assignment.last_seen is None or assignment.last_seen >= seen_at:
        return interval
    return replace(interval, assignment=replace(assignment, last_seen=seen_at))
