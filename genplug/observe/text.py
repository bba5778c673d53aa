"""Times and lists of names in texts for operators."""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.similarity import similarity_key

_MAX_NAMES = 3
_UNIT_SECONDS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def join_names(names: Sequence[str]) -> str:
    """Return the first names and the number of the others: ``x0, x1, x2 and 5 more``."""
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def count_noun(count: int, noun: str) -> str:
    """Return a number with a noun: ``1 device``, ``2 devices``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def summarize_probes(results: Iterable[tuple[str, str, Sequence[str], str]], verb: str, noun: str) -> list[str]:
    """Return a line for each probe of a resource: the texts for its devices usually differ in the path only.

    A result is the resource, the probe, the devices and the text. ``verb`` and ``noun`` are those of the line: ``cannot
    check`` and ``error``.
    """
    by_probe: dict[tuple[str, str], list[tuple[Sequence[str], str]]] = {}
    for resource, probe, devices, text in results:
        by_probe.setdefault((resource, probe), []).append((devices, text))
    lines = []
    for (resource, probe), group in by_probe.items():
        group.sort(key=lambda entry: natural_sort_key(entry[0][0]) if entry[0] else ("", ""))
        devices = sorted((device for names, _ in group for device in names), key=natural_sort_key)
        others = len(group) - 1
        more = f" (and {others} other {noun}{'s' if others > 1 else ''})" if others else ""
        lines.append(f"{resource}: probe {probe} {verb} {join_names(devices)}: {group[0][1]}{more}")
    return lines


def summarize_texts(texts: Iterable[str]) -> list[str]:
    """Return texts with their numbers, the most frequent first: ``12 × device is gone``.

    Texts that differ in numbers only, such as those in paths and addresses, are one text with an example.
    """
    groups: dict[str, list[str]] = {}
    for text in texts:
        groups.setdefault(similarity_key(text), []).append(text)
    return [_summarize_group(group) for group in sorted(groups.values(), key=len, reverse=True)]


def _summarize_group(texts: Sequence[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    example = texts[0] if len(set(texts)) == 1 else f"for example {texts[0]}"
    return f"{len(texts)} × {example}"


def describe_pool(*, is_call: bool) -> str:
    """Return which probes a pool of workers runs."""
    return f"probes that {'call other programs' if is_call else 'read files or open device nodes'}"


def describe_exhausted_pool(hung: int, *, is_call: bool) -> str:
    """Return which probes are suspended because ``hung`` runs of their pool hang."""
    return f"{describe_pool(is_call=is_call)} are suspended, because {hung} runs hang"


def to_epoch_seconds(monotonic: float) -> int:
    """Return a time of the monotonic clock in whole seconds since the epoch.

    The difference between the two clocks varies by microseconds, so that a finer result would differ in each call.
    """
    return int(time.time() - time.monotonic() + monotonic)


def format_time(epoch_seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339 in UTC, rounded down to a second: ``2026-11-27T17:22:17Z``."""
    return datetime.fromtimestamp(int(epoch_seconds), UTC).isoformat().replace("+00:00", "Z")


def format_age(time_text: str, now: float | None = None) -> str:
    """Return the period since a time in RFC 3339, like kubectl: its two largest units, for example ``3h25m``.

    ``now`` is in seconds since the epoch. The age of a text that is not a time is ``unknown``.
    """
    try:
        left = max(int((time.time() if now is None else now) - datetime.fromisoformat(time_text).timestamp()), 0)
    except (ValueError, OverflowError):
        return "unknown"
    words: list[str] = []
    for unit, size in _UNIT_SECONDS:
        count, left = divmod(left, size)
        if count or (unit == "s" and not words):
            words.append(f"{count}{unit}")
    return "".join(words[:2])


def describe_kept_endpoint(*, is_moved: bool, pods: int | None) -> str:
    """Return why an endpoint offers nothing and until when it is kept; ``pods`` is the number of pods, if known."""
    cause = "served by Dynamic Resource Allocation now" if is_moved else "removed from the configuration"
    end = "its 1 pod ends" if pods == 1 else f"its {pods} pods end" if pods else "no pod uses it"
    return f"{cause}; the endpoint of the device plugin is kept until {end}"
