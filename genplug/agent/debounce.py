"""Timers that join bursts of events and do not delay the first event. Pure; all times are monotonic seconds."""

from msgspec import Struct
from msgspec.structs import replace

from genplug.kubelet.token_bucket import TokenBucket

DEBOUNCE_SECONDS = 0.02
"""Seconds without another event after which changed configuration files are read."""
MAX_DEBOUNCE_SECONDS = 0.2
"""Seconds after the first event after which changed configuration files are read in any case."""
RECHECK_SECONDS = 1.0
"""Seconds after which files are read again that may have changed before their directories were watched."""
MIN_SCAN_INTERVAL_SECONDS = 0.01
"""Minimum interval between two scans after events."""
SCAN_BUDGET = TokenBucket(capacity=5, refill_seconds=0.2)
"""How many scans after events may find changes.

The first changes are found at once. Scans of later changes are less frequent, but more frequent than lists. A list
that had to wait for its own budget waits for the next scan, so that the two intervals do not add up
(:mod:`genplug.kubelet.list_timer`).
"""


SETTLE_SECONDS = (1.0, 5.0)
"""Seconds after the last event after which the devices that it concerns are scanned again.

A driver or udev can write a file after the event of its device, and sysfs and procfs report no change of a file.
"""


class SettleTimer(Struct, frozen=True):
    """When devices are scanned again after an event (``event_at``); ``scans`` is the number of scans since then."""

    event_at: float | None = None
    scans: int = 0

    def after_event(self, now: float) -> "SettleTimer":
        """Return the timer after an event."""
        return SettleTimer(now)

    def after_scan(self) -> "SettleTimer":
        """Return the timer after one of the scans."""
        scans = self.scans + 1
        return SettleTimer() if scans == len(SETTLE_SECONDS) else SettleTimer(self.event_at, scans)

    @property
    def next(self) -> float:
        """When the next of the scans is due."""
        return float("inf") if self.event_at is None else self.event_at + SETTLE_SECONDS[self.scans]


class ReloadTimer(Struct, frozen=True):
    """When the configuration is read next (``due``), and when its first unread change was seen (``changed_at``)."""

    due: float
    changed_at: float | None = None

    def after_event(self, now: float) -> "ReloadTimer":
        """Return the timer after a file changed: due soon, but not in the middle of a burst of writes."""
        changed_at = now if self.changed_at is None else self.changed_at
        return ReloadTimer(min(now + DEBOUNCE_SECONDS, changed_at + MAX_DEBOUNCE_SECONDS), changed_at)

    def no_later_than(self, due: float) -> "ReloadTimer":
        """Return the timer with ``due`` brought forward to a time, if that is earlier."""
        return replace(self, due=min(self.due, due))

    def after_read(self, now: float, interval: float) -> "ReloadTimer":
        """Return the timer after a read: due again in ``interval``, in case an event is lost."""
        return ReloadTimer(now + interval)


class ScanTimer(Struct, frozen=True):
    """When devices are scanned next.

    ``due`` is set after an event, None without one; ``fallback_due`` is the time of the next full scan, in case an
    event is lost. ``scanned_at`` is the time of the previous scan. ``budget`` limits the scans that find changes.
    """

    fallback_due: float
    budget: TokenBucket
    due: float | None = None
    scanned_at: float = float("-inf")

    def after_event(self, now: float) -> "ScanTimer":
        """Return the timer after a change: due at once, unless earlier scans found many changes."""
        if self.due is not None:
            return self
        return replace(self, due=max(now, self.scanned_at + MIN_SCAN_INTERVAL_SECONDS, self.budget.available_at))

    def after_scan(self, now: float, *, has_found: bool) -> "ScanTimer":
        """Return the timer after a scan of what events reported."""
        budget = self.budget.take(now) if has_found else self.budget
        return replace(self, due=None, scanned_at=now, budget=budget)

    def after_full_scan(self, now: float, interval: float, *, has_found: bool) -> "ScanTimer":
        """Return the timer after a full scan: the next full scan is due in ``interval``."""
        return replace(self.after_scan(now, has_found=has_found), fallback_due=now + interval)

    @property
    def next(self) -> float:
        """When the next scan is due, for either reason."""
        return self.fallback_due if self.due is None else min(self.due, self.fallback_due)
