"""The times at which probe requests are due. Pure; the time is an argument (monotonic seconds).

Requests are spread over their period, so that a node with many devices has an even load. Requests that become due
within a tick run together, so that a file that several probes read is read once.
Probes with the same request, timeout and period share it.

Requests with the same period and tick make a group. The queue contains groups, so a period costs the same for one and
for hundreds of requests.
"""

import heapq
import math
from collections.abc import Collection, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct, field

from genplug.health.workers.kept_batch import KeptBatch
from genplug.health.workers.protocol import ProbeRequest, ProbeResponse

_TICKS_PER_PERIOD = 10
"""The smallest number of ticks in a period."""
_MAX_TICK_SECONDS = 1.0
MAX_GROUP_REQUESTS = 400
"""Requests of a group, and new requests that run together: small batches, so that the first results are not late."""
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
"""The fractional parts of its multiples are spread evenly, for any number of multiples."""

SubscriberT = TypeVar("SubscriberT")


class RequestTiming(NamedTuple):
    """A request with its timeout and period in seconds; probes that have the same share a run."""

    request: ProbeRequest
    timeout: float
    period: float


class ScheduledRequest(Struct, Generic[SubscriberT], eq=False):
    """A request that runs once per period for its subscribers. ``is_call`` selects the pool that runs it.

    ``resource`` is that of the first subscriber; the limits of the pools for a resource apply to it.
    """

    timing: RequestTiming
    is_call: bool
    resource: str
    group: "RequestGroup[SubscriberT]"
    subscribers: dict[Hashable, SubscriberT] = {}
    response: ProbeResponse | None = None
    runs_more: int = 0
    """The number of its runs minus the number of runs of its group."""

    @property
    def request(self) -> ProbeRequest:
        """The request."""
        return self.timing.request

    @property
    def timeout(self) -> float:
        """The timeout in seconds."""
        return self.timing.timeout

    @property
    def runs(self) -> int:
        """The number of completed runs."""
        return self.group.runs + self.runs_more

    def record_run(self, response: ProbeResponse) -> tuple[SubscriberT, ...]:
        """Record the end of a run; return the subscribers that get the response."""
        self.group.running.discard(self)
        self.runs_more += 1
        self.response = response
        return tuple(self.subscribers.values())


class RequestGroup(Struct, Generic[SubscriberT], eq=False):
    """Requests that are due at the same times: at each ``slot``, a number of ticks, in a period of ``ticks``."""

    period: float
    is_call: bool
    slot: int
    batch: KeptBatch
    """The requests in their worker. A new batch replaces it when the requests or their last responses may differ."""
    requests: tuple[ScheduledRequest[SubscriberT], ...] = ()
    running: set[ScheduledRequest[SubscriberT]] = field(default_factory=set)
    unsettled: set[ScheduledRequest[SubscriberT]] = field(default_factory=set)
    """The requests whose response has to be evaluated, even if it has not changed."""
    runs: int = 0

    def settle(self, scheduled: ScheduledRequest[SubscriberT]) -> None:
        """Record that an unchanged response of a request need not be evaluated."""
        self.unsettled.discard(scheduled)
        if not self.unsettled:
            # A set keeps the memory of all elements that it had, until it is cleared.
            self.unsettled.clear()

    def record_unchanged(self, requests: Collection[ScheduledRequest[SubscriberT]]) -> None:
        """Record the end of runs with the same responses as before."""
        if len(requests) == len(self.requests) and self.running.issuperset(self.requests):
            self.runs += 1
            self.running.clear()
            return
        self.running.difference_update(requests)
        for scheduled in requests:
            scheduled.runs_more += 1

    def next_due(self, now: float) -> float:
        """Return the time after ``now`` at which the requests are due next, at the end of a tick."""
        ticks = _count_ticks(self.period)
        tick = self.period / ticks
        turn = math.floor(now / tick) + 1
        turn += (self.slot - turn) % ticks
        # The quotient can be rounded down to the turn that is now.
        return turn * tick if turn * tick > now else (turn + ticks) * tick


class DueRequests(NamedTuple, Generic[SubscriberT]):
    """Requests that are due. If they are all requests of a group, ``batch`` identifies them in their worker."""

    requests: Sequence[ScheduledRequest[SubscriberT]]
    is_call: bool
    batch: KeptBatch | None = None


class Schedule(Generic[SubscriberT]):
    """The requests of all subscribers. A new request is due immediately."""

    def __init__(self) -> None:
        self._requests: dict[RequestTiming, ScheduledRequest[SubscriberT]] = {}
        self._new: list[ScheduledRequest[SubscriberT]] = []
        self._groups: dict[tuple[float, bool, int], list[RequestGroup[SubscriberT]]] = {}
        self._queue: list[tuple[float, int, RequestGroup[SubscriberT]]] = []
        self._added = 0
        self._added_groups = 0

    def __len__(self) -> int:
        return len(self._requests)

    def __repr__(self) -> str:
        running = sum(len(group.running) for groups in self._groups.values() for group in groups)
        return f"<Schedule [requests: {len(self._requests)}, {running} running]>"

    @property
    def next_due(self) -> float | None:
        """The time at which the next request is due, 0 if it is new; None if there are no requests."""
        if self._new:
            return 0
        return self._queue[0][0] if self._queue else None

    @property
    def min_runs(self) -> int:
        """The number of runs that each request has completed at least; 0 if there are no requests."""
        return min((request.runs for request in self._requests.values()), default=0)

    def subscribe(  # noqa: PLR0913 - the fields of a request and of a subscriber
        self,
        timing: RequestTiming,
        subscriber_id: Hashable,
        subscriber: SubscriberT,
        now: float,
        *,
        is_call: bool,
        resource: str,
    ) -> ScheduledRequest[SubscriberT]:
        """Add a subscriber to a request, or replace the subscriber with this ID; return the request."""
        scheduled = self._requests.get(timing)
        if scheduled is None:
            self._added += 1
            phase = now + timing.period * self._added * _GOLDEN_RATIO
            group = self._find_group(timing.period, is_call, phase, now)
            scheduled = self._requests[timing] = ScheduledRequest(timing, is_call, resource, group)
            scheduled.runs_more = -group.runs
            self._change_requests(group, (*group.requests, scheduled))
            self._new.append(scheduled)
        scheduled.subscribers[subscriber_id] = subscriber
        scheduled.group.unsettled.add(scheduled)
        return scheduled

    def unsubscribe(self, timing: RequestTiming, subscriber_id: Hashable, subscriber: SubscriberT) -> None:
        """Remove a subscriber, unless another subscriber has its ID now. A request without subscribers is removed."""
        scheduled = self._requests.get(timing)
        if scheduled is not None and scheduled.subscribers.get(subscriber_id) is subscriber:
            del scheduled.subscribers[subscriber_id]
            if not scheduled.subscribers:
                del self._requests[timing]
                group = scheduled.group
                group.running.discard(scheduled)
                group.unsettled.discard(scheduled)
                self._change_requests(group, tuple(each for each in group.requests if each is not scheduled))

    def take_due(self, now: float) -> list[DueRequests[SubscriberT]]:
        """Return the requests that are due and not running, mark them as running, and schedule their next run."""
        due = self._take_new()
        while self._queue and self._queue[0][0] <= now:
            _, number, group = heapq.heappop(self._queue)
            if not group.requests:
                self._remove_group(group)
                continue
            heapq.heappush(self._queue, (group.next_due(now), number, group))
            if not group.running:
                group.running.update(group.requests)
                due.append(DueRequests(group.requests, group.is_call, group.batch))
            elif requests := [each for each in group.requests if each not in group.running]:
                group.running.update(requests)
                # Another worker may run these, so the worker that keeps the group does not know all last responses.
                group.batch = KeptBatch(group.batch.key)
                due.append(DueRequests(requests, group.is_call))
        return due

    def _take_new(self) -> list[DueRequests[SubscriberT]]:
        new, self._new = [scheduled for scheduled in self._new if scheduled.subscribers], []
        for scheduled in new:
            scheduled.group.running.add(scheduled)
        due: list[DueRequests[SubscriberT]] = []
        for is_call in (False, True):
            requests = [scheduled for scheduled in new if scheduled.is_call == is_call]
            for start in range(0, len(requests), MAX_GROUP_REQUESTS):
                batch = requests[start : start + MAX_GROUP_REQUESTS]
                due.append(DueRequests(batch, is_call))
        return due

    def _find_group(self, period: float, is_call: bool, phase: float, now: float) -> RequestGroup[SubscriberT]:  # noqa: FBT001
        """Return the group of a new request, which is due at ``phase`` and a number of periods before and after it."""
        ticks = _count_ticks(period)
        slot = math.ceil(phase * ticks / period) % ticks
        groups = self._groups.setdefault((period, is_call, slot), [])
        for group in groups:
            if len(group.requests) < MAX_GROUP_REQUESTS:
                return group
        self._added_groups += 1
        group = RequestGroup[SubscriberT](period, is_call, slot, KeptBatch(self._added_groups))
        groups.append(group)
        heapq.heappush(self._queue, (group.next_due(now), self._added_groups, group))
        return group

    def _remove_group(self, group: RequestGroup[SubscriberT]) -> None:
        key = group.period, group.is_call, group.slot
        groups = self._groups[key] = [each for each in self._groups[key] if each is not group]
        if not groups:
            del self._groups[key]

    @staticmethod
    def _change_requests(group: RequestGroup[SubscriberT], requests: tuple[ScheduledRequest[SubscriberT], ...]) -> None:
        group.requests = requests
        group.batch = KeptBatch(group.batch.key)


def _count_ticks(period: float) -> int:
    """Return the number of ticks in a period: a tick is a tenth of a period, and at most a second."""
    return max(_TICKS_PER_PERIOD, math.ceil(period / _MAX_TICK_SECONDS))
