"""Resolves unquoted scalars to true, false, null, a decimal number, or otherwise a string.

YAML 1.1 would read the PCI address ``0000:00:02.0`` as a number, ``0403`` as an octal number and ``on`` as true.
"""

import math
import re
from collections.abc import Mapping

Scalar = str | int | float | bool | None

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")
_MAX_DIGITS = 300
_WORDS: Mapping[str, Scalar] = {"true": True, "false": False, "null": None, "": None}


def resolve_scalar(text: str) -> Scalar:
    """Return the value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if (found := _NUMBER.match(text)) is None or len(text) > _MAX_DIGITS:
        return text
    if found[1] is None and found[2] is None:
        return int(text)
    # Numbers beyond a float stay strings.
    return number if math.isfinite(number := float(text)) else text
