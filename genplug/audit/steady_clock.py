"""Whether the time of the system can be trusted to delete files by their age."""

import time

JUMP_SECONDS = 3600.0
"""Difference between the time of the system and the time that passed, in seconds, from which it is a jump."""
STEADY_SECONDS = 86400.0
"""Seconds without a jump after which the time is trusted; a wrong time is usually corrected sooner."""
MAX_GAP_SECONDS = 86400.0
"""Seconds between two records from which the time may have jumped; a running agent writes heartbeats."""


def seconds_since_boot() -> float:
    """Return the seconds since the boot of the machine, also those in which it was suspended; nothing sets them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Compares the time of the system with a clock that nothing sets, and with the times of the records of a log.

    ``now`` is in seconds since the epoch, ``passed`` in seconds since the boot of the machine, and ``max_age`` is the
    age (seconds) of the files to delete.
    """

    def __init__(self, max_age: float) -> None:
        self._min_seconds = min(STEADY_SECONDS, max_age)
        self._last_record: float | None = None
        self._jumped_at = 0.0
        """The time of the first record after the last jump."""
        self._offset = 0.0
        self._steady_since = float("inf")

    def add_record(self, record_time: float) -> None:
        """Add the next record of the log that an earlier process has written."""
        if self._is_jump(record_time):
            self._jumped_at = record_time
        self._last_record = record_time

    def begin(self, now: float, passed: float) -> None:
        """Begin to compare the clocks, after the last record."""
        self._offset = now - passed
        self._steady_since = passed if self._is_jump(now) else passed - (now - self._jumped_at)

    def is_trusted(self, now: float, passed: float) -> bool:
        """Return whether the time has not jumped for long enough."""
        offset = now - passed
        if abs(offset - self._offset) > JUMP_SECONDS:
            self._steady_since = passed
        self._offset = offset
        return passed - self._steady_since >= self._min_seconds

    def _is_jump(self, following: float) -> bool:
        last = self._last_record
        return last is None or not -JUMP_SECONDS <= following - last <= MAX_GAP_SECONDS
