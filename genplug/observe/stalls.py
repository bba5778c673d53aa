"""Describes, for the log and the status, which scans are not up to date and why."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

from genplug.hardware.inventory import ScanStall

_MAX_NAMED = 3


def stall_notes(stalls: Iterable[ScanStall]) -> dict[str, tuple[str, ...]]:
    """Return, by resource, what is not up to date and why: one sentence for each reason."""
    groups: dict[tuple[str, str], list[ScanStall]] = {}
    for stall in stalls:
        groups.setdefault((stall.resource, stall.reason), []).append(stall)
    notes: dict[str, tuple[str, ...]] = {}
    for (resource, reason), group in groups.items():
        named = ", ".join(stall.candidate or "every device" for stall in group[:_MAX_NAMED])
        more = f" and {len(group) - _MAX_NAMED} more" if len(group) > _MAX_NAMED else ""
        since = f" (since {_format_time(group[0].since)})" if group[0].since is not None else ""
        notes[resource] = (*notes.get(resource, ()), f"{named}{more} as last known: {reason}{since}")
    return notes


def _format_time(monotonic: float) -> str:
    """Return a time of the monotonic clock as a time of day (RFC 3339, UTC)."""
    at = datetime.fromtimestamp(time.time() - time.monotonic() + monotonic, UTC)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
