"""The times at which probe requests are due. Pure; the time is an argument (monotonic seconds).

Requests are spread over their period, so that a node with many devices has an even load. Requests that become due
within a tick run together, so that a file that several probes read is read once.
Probes with the same request, timeout and period share it.
"""

import heapq
import math
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

from genplug.health.workers.protocol import ProbeRequest, ProbeResponse

_TICKS_PER_PERIOD = 10
"""The number of ticks in a period."""
_MAX_TICK_SECONDS = 1.0
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
    phase: float
    """A time at which the request is due; the other times follow from it and the period."""
    resource: str
    subscribers: dict[Hashable, SubscriberT] = {}
    is_running: bool = False
    runs: int = 0
    response: ProbeResponse | None = None

    def record_run(self, response: ProbeResponse) -> tuple[SubscriberT, ...]:
        """Record the end of a run; return the subscribers that get the response."""
        self.is_running = False
        self.runs += 1
        self.response = response
        return tuple(self.subscribers.values())

    def next_due(self, now: float) -> float:
        """Return the time at which the request is due next, at the end of a tick."""
        period = self.timing.period
        tick = min(_MAX_TICK_SECONDS, period / _TICKS_PER_PERIOD)
        turns = math.floor((now - self.phase) / period) + 1
        return math.ceil((self.phase + turns * period) / tick) * tick


class Schedule(Generic[SubscriberT]):
    """The requests of all subscribers. A new request is due immediately."""

    def __init__(self) -> None:
        self._requests: dict[RequestTiming, ScheduledRequest[SubscriberT]] = {}
        self._queue: list[tuple[float, int, ScheduledRequest[SubscriberT]]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._requests)

    def __repr__(self) -> str:
        running = sum(request.is_running for request in self._requests.values())
        return f"<Schedule [requests: {len(self._requests)}, {running} running]>"

    @property
    def next_due(self) -> float | None:
        """The time at which the next request is due; None if there are no requests."""
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
            scheduled = self._requests[timing] = ScheduledRequest(timing, is_call, phase, resource)
            heapq.heappush(self._queue, (now, self._added, scheduled))
        scheduled.subscribers[subscriber_id] = subscriber
        return scheduled

    def unsubscribe(self, timing: RequestTiming, subscriber_id: Hashable, subscriber: SubscriberT) -> None:
        """Remove a subscriber, unless another subscriber has its ID now. A request without subscribers is removed."""
        scheduled = self._requests.get(timing)
        if scheduled is not None and scheduled.subscribers.get(subscriber_id) is subscriber:
            del scheduled.subscribers[subscriber_id]
            if not scheduled.subscribers:
                del self._requests[timing]

    def take_due(self, now: float) -> list[ScheduledRequest[SubscriberT]]:
        """Return the requests that are due and not running, mark them as running, and schedule their next run."""
        due = []
        while self._queue and self._queue[0][0] <= now:
            _, number, scheduled = heapq.heappop(self._queue)
            if not scheduled.subscribers:
                continue
            heapq.heappush(self._queue, (scheduled.next_due(now), number, scheduled))
            if not scheduled.is_running:
                scheduled.is_running = True
                due.append(scheduled)
        return due
