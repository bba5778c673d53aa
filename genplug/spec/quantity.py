"""The values of quantities of Kubernetes, for example ``250m``, ``4`` or ``1536Mi``, as exact numbers.

The syntax is that of k8s.io/apimachinery, pkg/api/resource/quantity.go, without negative quantities.
"""

import re
from fractions import Fraction

_QUANTITY = re.compile(r"(\+?(?:\d+\.?\d*|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,9}))?", re.ASCII)
_MAX_CHARACTERS = 64
_MAX_POWER = 100
"""The power of ten from which an amount is above the limit, or rounded to nothing."""
_MAX_VALUE = Fraction((1 << 63) - 1)
"""The limit to which the API server reduces larger amounts."""
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY_SUFFIXES = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def read_quantity(text: str) -> Fraction | None:
    """Return the value of an amount, or None for a text that is not an amount."""
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
    if not match:
        return None
    number, suffix, exponent = Fraction(match[1]), match[2], match[3]
    if suffix in BINARY_SUFFIXES:
        return min(number * (1 << 10 * (1 + BINARY_SUFFIXES.index(suffix))), _MAX_VALUE)
    power = int(exponent) if exponent else _DECIMAL.get(suffix or "", 0)
    if abs(power) > _MAX_POWER:
        return _MAX_VALUE if power > 0 and number else Fraction(0)
    scale: int = 10 ** abs(power)
    return min(number * scale if power >= 0 else number / scale, _MAX_VALUE)
