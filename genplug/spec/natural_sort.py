"""Natural order: ``nvidia2`` before ``nvidia10``. Everything people or the kubelet see is sorted by it."""

import re

_NUMBER = re.compile(r"[0-9]+")
_MAX_DIGITS = 20
"""Longer numbers sort as texts do; no kernel counts so far."""


def natural_sort_key(text: str) -> tuple[str, str]:
    """Return a sort key under which digits compare as numbers; equal keys mean equal texts."""
    return _NUMBER.sub(lambda number: number[0].zfill(_MAX_DIGITS), text), text
