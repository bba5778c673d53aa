"""Natural order: ``nvidia2`` before ``nvidia10``. Everything people or the kubelet see is sorted by it."""

import re

_NUMBER = re.compile(r"(\d+)")


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key under which digits compare as numbers; equal keys mean equal texts."""
    parts = _NUMBER.split(text)
    return tuple((1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts)
