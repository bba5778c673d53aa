"""Quantities of Kubernetes, for example ``250m``, ``4`` or ``1536Mi``, as exact numbers.

The syntax is that of k8s.io/apimachinery, pkg/api/resource/quantity.go.
"""

import re
from fractions import Fraction

_QUANTITY = re.compile(r"(\+?(?:\d+\.?\d*|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,9}))?")
_MAX_CHARACTERS = 64
_MAX_POWER = 100
"""The power of ten from which an amount is above the limit, or rounded to nothing."""
_MAX_VALUE = Fraction((1 << 63) - 1)
"""The limit to which the API server reduces larger amounts."""
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def parse_quantity(text: object) -> Fraction:
    """Return the value of an amount; the API server accepts no negative amounts and no other texts, which are 0."""
    text = str(text)
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
    if not match:
        return Fraction(0)
    number, suffix, exponent = Fraction(match[1]), match[2], match[3]
    if suffix in _BINARY:
        return min(number * (1 << 10 * (1 + _BINARY.index(suffix))), _MAX_VALUE)
    power = int(exponent) if exponent else _DECIMAL.get(suffix or "", 0)
    if abs(power) > _MAX_POWER:
        return _MAX_VALUE if power > 0 and number else Fraction(0)
    scale: int = 10 ** abs(power)
    return min(number * scale if power >= 0 else number / scale, _MAX_VALUE)


def format_quantity(resource: str, value: Fraction) -> str:
    """Return a short text of an amount: cores with thousandths, bytes in binary units, and a count of all else."""
    if resource == "cpu":
        return str(value) if value.denominator == 1 else f"{round(value * 1000)}m"
    if resource in {"memory", "ephemeral-storage"} or resource.startswith("hugepages-"):
        for power in range(len(_BINARY), 0, -1):
            if value >= 1024**power:
                return f"{_round(value / 1024**power, 4)}{_BINARY[power - 1]}"
    return str(int(value)) if value.denominator == 1 else _round(value, 6)


def _round(value: Fraction, digits: int) -> str:
    return f"{float(value):.{digits}g}"
