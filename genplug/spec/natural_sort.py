"""Natural sort order: ``nvidia2`` before ``nvidia10``. All output and all device lists use it."""

import re

_NUMBER = re.compile(r"[0-9]+")
_MAX_DIGITS = 20
"""Longer numbers sort as strings; no kernel number is that long."""


def natural_sort_key(text: str) -> tuple[str, str]:
    """Return a sort key that compares runs of digits as numbers; equal keys mean equal strings."""
    return _NUMBER.sub(lambda number: number[0].zfill(_MAX_DIGITS), text), text
