"""Decides when the publisher may write a slice again, as pure functions of its state.

:mod:`genplug.agent.publisher_failures` has the pauses after errors.
"""

from collections.abc import Mapping
from math import inf

from genplug.agent.publisher_state import PublisherState, Seconds
from genplug.allocation.slice_plan import DeleteSlice, Write

WRITE_SECONDS = 1.0
"""Seconds between two writes of a slice: changes within this time are written together."""
SLOW_WRITE_SECONDS = 10.0
"""The same for a slice that was written ``MANY_WRITES`` times within ``MANY_WRITES_SECONDS``."""
MANY_WRITES = 10
MANY_WRITES_SECONDS = 60.0


def find_allowed_times(state: PublisherState, plan: tuple[Write, ...]) -> Mapping[str, Seconds]:
    """Return when the writes of each pool may be sent: all at the same time, so that it is incomplete only shortly.

    While slices of resources that are not served any more are deleted, only refusals delay the deletions.
    """
    allowed: dict[str, Seconds] = {}
    for write in plan:
        pool = get_pool_name(write)
        refusal = state.refusals.get(pool)
        earliest = allowed.get(pool, -inf if refusal is None else refusal.until)
        allowed[pool] = earliest if state.pools is None else max(earliest, _slice_allowed_at(state, write.name))
    return allowed


def _slice_allowed_at(state: PublisherState, name: str) -> Seconds:
    times = state.writes.get(name, ())
    if not times:
        return -inf
    is_slow = len(times) == MANY_WRITES and times[-1] - times[0] < MANY_WRITES_SECONDS
    return times[-1] + (SLOW_WRITE_SECONDS if is_slow else WRITE_SECONDS)


def count_write(state: PublisherState, write: Write, now: Seconds) -> Mapping[str, tuple[Seconds, ...]]:
    """Return the times of the last writes of each slice, with a write that was answered now."""
    recent = {name: times for name, times in state.writes.items() if now - times[-1] < MANY_WRITES_SECONDS}
    return {**recent, write.name: (*recent.get(write.name, ()), now)[-MANY_WRITES:]}


def get_pool_name(write: Write) -> str:
    """Return the name of the pool of a slice that is written or deleted."""
    return write.pool if isinstance(write, DeleteSlice) else write.pool.name
