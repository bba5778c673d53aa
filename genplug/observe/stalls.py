"""Describes which scans are not up to date, and why, for the log and the status."""

from collections.abc import Iterable

from genplug.hardware.inventory import ScanStall
from genplug.observe.text import format_time, join_names, to_epoch_seconds


def describe_stalls(stalls: Iterable[ScanStall]) -> dict[str, tuple[str, ...]]:
    """Return, by resource, the devices that are not up to date: a text for each reason."""
    groups: dict[tuple[str, str, bool], list[ScanStall]] = {}
    for stall in stalls:
        groups.setdefault((stall.resource, stall.reason, stall.is_known), []).append(stall)
    texts: dict[str, tuple[str, ...]] = {}
    for (resource, reason, is_known), group in groups.items():
        devices = join_names([stall.candidate or "all devices" for stall in group])
        first = group[0].since
        since = f" (since {format_time(to_epoch_seconds(first))})" if first is not None else ""
        effect = f"last known state kept for {devices}" if is_known else f"not listed until it is known: {devices}"
        texts[resource] = (*texts.get(resource, ()), f"{reason}{since}; {effect}")
    return texts
