"""The values of quantities of Kubernetes, for example ``250m``, ``4`` or ``1536Mi``, as exact numbers.

The syntax is that of k8s.io/apimachinery, pkg/api/resource/quantity.go, without negative quantities.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

_QUANTITY = re.compile(r"(\+?(?:\d+\.?\d*|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,9}))?", re.ASCII)
_MAX_CHARACTERS = 64
_MAX_POWER = 100
"""The power of ten from which an amount is above the limit, or rounded to nothing."""
_MAX_VALUE = Fraction((1 << 63) - 1)
"""The limit to which the API server reduces larger amounts."""
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY_SUFFIXES = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL_SUFFIXES = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_BINARY_BASE, _DECIMAL_BASE, _NANO = 1024, 1000, 10**9
_NOT_ZERO = re.compile(r"\+?[0.]*[1-9]")


def read_quantity(text: str) -> Fraction | None:
    """Return the value of an amount, or None for a text that is not an amount."""
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
    if not match:
        return None
    number, suffix, exponent = Fraction(match[1]), match[2], match[3]
    if suffix in BINARY_SUFFIXES:
        return min(number * (1 << 10 * (1 + BINARY_SUFFIXES.index(suffix))), _MAX_VALUE)
    power = int(exponent) if exponent else _DECIMAL.get(suffix, 0)
    if abs(power) > _MAX_POWER:
        return _MAX_VALUE if power > 0 and number else Fraction(0)
    return min(number * Fraction(10) ** power, _MAX_VALUE)


def canonicalize_quantity(text: str) -> str | None:
    """Return an amount in the form in which the API server returns it.

    An amount with a binary suffix has the largest binary suffix without a fraction, any other amount the largest
    decimal suffix: ``1024Mi`` is ``1Gi``, and ``1.5G`` is ``1500M``. For a text that is not an amount, or that the API
    server would round or reduce, the function returns None.
    """
    value = read_quantity(text)
    if value is None or value >= _MAX_VALUE or (value * _NANO).denominator != 1:
        return None
    if not value:
        # A tiny amount has been rounded.
        return None if _NOT_ZERO.match(text) else "0"
    if text.endswith(BINARY_SUFFIXES) and value.denominator == 1 and value >= _BINARY_BASE:
        return _add_suffix(value.numerator, _BINARY_BASE, ("", *BINARY_SUFFIXES))
    return _add_suffix(int(value * _NANO), _DECIMAL_BASE, _DECIMAL_SUFFIXES)


def _add_suffix(number: int, base: int, suffixes: Sequence[str]) -> str:
    """Return a multiple of the first suffix with the largest suffix of which it is one.

    The number is above 0 and below the limit of amounts, of which the last suffix is more than a ``base``-th.
    """
    power = 0
    while number % base == 0:
        number, power = number // base, power + 1
    return f"{number}{suffixes[power]}"
