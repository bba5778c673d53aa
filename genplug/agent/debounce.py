"""When to look again: joins bursts of events without holding up the first. Pure; times are monotonic seconds."""

from attrs import evolve, frozen

QUIET = 0.02
"""Seconds without another event after which changed files of a configuration are read."""
MAX_PATIENCE = 0.2
"""Seconds after which they are read in any case."""
SECOND_LOOK = 1.0
"""Seconds after which files are read again that may have changed between their reading and their being watched."""
SCAN_INTERVAL = 1.0
"""Seconds between two scans that events asked for, the first of which found something."""
IDLE_SCAN_INTERVAL = 0.01
"""The same after a scan that found nothing: noise in a directory must not hold up news."""


@frozen
class ReloadTimer:
    """When the configuration is to be read: ``due``, and since when it is known to have changed (``touched``)."""

    due: float
    touched: float | None = None

    def after_event(self, now: float) -> "ReloadTimer":
        """Return the plan after a file changed: soon, but not in the middle of a burst of writes."""
        touched = now if self.touched is None else self.touched
        return ReloadTimer(min(now + QUIET, touched + MAX_PATIENCE), touched)

    def no_later_than(self, due: float) -> "ReloadTimer":
        """Return the plan with another reading at a time, unless one comes before."""
        return evolve(self, due=min(self.due, due))

    def after_reading(self, now: float, interval: float) -> "ReloadTimer":
        """Return the plan after a reading: again in ``interval``, should an event get lost."""
        return ReloadTimer(now + interval)


@frozen
class ScanTimer:
    """When the node is to be scanned for changes that events told of (``due``, None: no event) and as a net."""

    fallback_due: float
    due: float | None = None
    scanned: float = float("-inf")
    has_found: bool = False

    def after_event(self, now: float) -> "ScanTimer":
        """Return the plan after something changed: at once after a quiet time, else when the interval is over."""
        interval = SCAN_INTERVAL if self.has_found else IDLE_SCAN_INTERVAL
        return evolve(self, due=max(now, self.scanned + interval) if self.due is None else self.due)

    def after_scan(self, now: float, interval: float, *, has_found: bool) -> "ScanTimer":
        """Return the plan after a scan: the net in ``interval``."""
        return ScanTimer(now + interval, None, now, has_found)

    @property
    def next(self) -> float:
        """When the next scan is due, for whichever reason."""
        return self.fallback_due if self.due is None else min(self.due, self.fallback_due)
