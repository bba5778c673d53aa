"""The health of devices over the last hour, in minutes, for the status page.

The history is kept in memory only. It has an entry only for a device whose health changed within the last hour: the
hour of any other device follows from the time since which it has its health. An entry takes about 300 bytes, and there
are at most :data:`MAX_ENTRIES` of them, so that the history takes at most 0.7 MB, however many devices change however
often.
"""

import time
from collections.abc import Mapping

from msgspec import Struct

from genplug.allocation.offer import Grant, OfferChange

MAX_ENTRIES = 2048
"""Devices with an entry. A further device replaces the device that has not changed for the longest time."""
MINUTES = 60
"""Minutes of the history."""
_SECONDS = 60.0
_ALL = (1 << MINUTES) - 1

HEALTHY, UNHEALTHY, BOTH, UNKNOWN = "healthy", "unhealthy", "both", "unknown"
"""The health of a device in a minute. It is unknown while the device is not in the list."""

DeviceKey = tuple[str, str]
"""The resource and the ID of a device."""


class HealthEntry(Struct, frozen=True):
    """The health of a device in the minutes up to its last change.

    ``healthy`` and ``unhealthy`` are sets of minutes as bits; bit 0 is ``minute``, bit 1 the minute before. A minute
    can be in both. ``is_healthy`` is the health since the last change (``changed_at``, monotonic seconds), and None if
    the device is not in the list since then.
    """

    healthy: int
    unhealthy: int
    minute: int
    is_healthy: bool | None
    changed_at: float

    def advance(self, now: float) -> "HealthEntry":
        """Return the entry with the minutes up to a later time, during which the health did not change."""
        minute = int(now // _SECONDS)
        elapsed = min(max(minute - self.minute, 0), MINUTES)
        healthy, unhealthy = (self.healthy << elapsed) & _ALL, (self.unhealthy << elapsed) & _ALL
        passed = (1 << (elapsed + 1)) - 1 & _ALL
        if self.is_healthy is True:
            healthy |= passed
        elif self.is_healthy is False:
            unhealthy |= passed
        return HealthEntry(healthy, unhealthy, max(minute, self.minute), self.is_healthy, self.changed_at)

    def list_minutes(self) -> tuple[str, ...]:
        """Return the health in each minute, the oldest first."""
        return tuple(
            _MINUTE_HEALTH[self.healthy >> age & 1, self.unhealthy >> age & 1] for age in reversed(range(MINUTES))
        )


_MINUTE_HEALTH = {(1, 0): HEALTHY, (0, 1): UNHEALTHY, (1, 1): BOTH, (0, 0): UNKNOWN}


class HealthHistory:
    """Records the changes of the health of devices. Used in the event loop of the agent."""

    def __init__(self) -> None:
        self._entries: dict[DeviceKey, HealthEntry] = {}

    def entries(self) -> Mapping[DeviceKey, HealthEntry]:
        """Return a copy of the entries. Any thread may call this."""
        return self._entries.copy()

    def record(self, change: OfferChange, now: float | None = None) -> None:
        """Record which devices of a resource have another health than in its previous offer; ``now`` is monotonic."""
        # A device without an entry that is in the list for the first time needs none, because it has no earlier health.
        if change.previous is None and not self._entries:
            return
        now = time.monotonic() if now is None else now
        name = change.current.resource.name
        changes: list[tuple[DeviceKey, Grant | None, bool | None]] = [
            ((name, grant_id), grant, None) for grant_id, grant in change.before.items() if grant_id not in change.after
        ]
        for grant in change.after.values():
            before, key = change.before.get(grant.id), (name, grant.id)
            if (before is not None and before.healthy != grant.healthy) or (before is None and key in self._entries):
                changes.append((key, before, grant.healthy))
        # More entries would only replace each other.
        for key, before, is_healthy in changes[-MAX_ENTRIES:]:
            self._change(key, before, is_healthy, now)

    def _change(self, key: DeviceKey, before: Grant | None, is_healthy: bool | None, now: float) -> None:  # noqa: FBT001 - the health after the change
        entry = self._entries.pop(key, None)
        if entry is None:
            since = now if before is None else max(health.verdict.since for health in before.devices)
            entry = begin_entry(None if before is None else before.healthy, since, now)
        past = entry.advance(now)
        # The entry is now the last one of the mapping, which is in the order of the last changes.
        self._entries[key] = HealthEntry(past.healthy, past.unhealthy, past.minute, is_healthy, now).advance(now)
        while self._entries:
            oldest = next(iter(self._entries))
            is_over = self._entries[oldest].changed_at < now - MINUTES * _SECONDS
            if not is_over and len(self._entries) <= MAX_ENTRIES:
                break
            del self._entries[oldest]


def begin_entry(is_healthy: bool | None, since: float, now: float) -> HealthEntry:  # noqa: FBT001 - the health
    """Return the entry of a device that has its health since a time (monotonic seconds)."""
    since = max(min(since, now), now - MINUTES * _SECONDS)
    entry = HealthEntry(0, 0, int(since // _SECONDS), is_healthy, since)
    return entry.advance(now)


def read_minutes(entry: HealthEntry | None, *, is_healthy: bool, age: float | None, now: float) -> tuple[str, ...]:
    """Return the health of a device in each of the last :data:`MINUTES` minutes, the oldest first.

    Without an entry, the device has its health for ``age`` seconds; None means that this is not known. ``now`` is in
    monotonic seconds.
    """
    if entry is None or entry.is_healthy is not is_healthy:
        entry = begin_entry(is_healthy, now - (age or 0.0), now)
    return entry.advance(now).list_minutes()
