"""Selectors: the conditions of ``where`` on one attribute of a candidate. Pure predicates.

Comparisons ignore case and a leading ``0x``. A condition that does not fit the value (a minimum for a word) is false;
it never raises.
"""

import fnmatch
import math
import re
from collections.abc import Sequence

from msgspec import Struct

from genplug.spec.location import SourceLocation
from genplug.spec.regex import Pattern

_QUANTITY = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)([KMGTPE]i?|k)?\Z")
_MAX_DIGITS = 40
_POWERS = {"K": 1, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


class Selector(Struct, frozen=True):
    """The conditions on one attribute; None and an empty tuple mean no condition.

    ``any_of`` and ``none_of`` are globs in normalized form (:func:`normalize`).
    """

    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    matches: Pattern | None = None
    minimum: float | None = None
    maximum: float | None = None
    exists: bool | None = None
    allows_missing: bool = False
    text: str = ""
    """The selector as messages show it: ``nvidia*``, ``min 64Gi``."""

    def accepts(self, values: tuple[str, ...]) -> bool:
        """Return whether an attribute passes: one of its values must, and for ``notIn`` all of them.

        An attribute without values does not exist. It passes if ``exists`` is false or ``missing`` is ``ok``.
        """
        if not values:
            return self.exists is False or self.allows_missing
        if self.exists is False or (self.none_of and any(_is_any(value, self.none_of) for value in values)):
            return False
        return any(self._accepts_value(value) for value in values)

    def _accepts_value(self, value: str) -> bool:
        if self.any_of and not _is_any(value, self.any_of):
            return False
        if self.matches is not None and self.matches.search(value) is None:
            return False
        return self._is_in_range(value)

    def _is_in_range(self, value: str) -> bool:
        if self.minimum is None and self.maximum is None:
            return True
        number = parse_quantity(value)
        if number is None:
            return False
        return (self.minimum is None or number >= self.minimum) and (self.maximum is None or number <= self.maximum)


class Condition(Struct, frozen=True):
    """An entry of ``where``: an attribute, its selector, and the location in the source file."""

    location: SourceLocation
    attribute: str
    selector: Selector


def normalize(text: str) -> str:
    """Return a string as selectors compare it: lower case, without ``0x``."""
    return text.strip().lower().removeprefix("0x")


def parse_quantity(text: str) -> float | None:
    """Parse ``12``, ``1e3``, ``64Gi``, ``10M`` or ``0x1f``; return None for anything else and for too large numbers."""
    text = text.strip()
    if text.lower().startswith("0x"):
        if len(text) > _MAX_DIGITS:
            return None
        try:
            return int(text, 16)
        except ValueError:
            return None
    if (found := _QUANTITY.match(text)) is None:
        return None
    number, unit = found.groups()
    if unit is None and len(number) <= _MAX_DIGITS and number.lstrip("+-").isdecimal():
        # Exact: a 64-bit register does not fit into a float.
        return int(number)
    base = 1024.0 if unit and unit.endswith("i") else 1000.0
    counted = float(number) * float(base ** _POWERS[unit[0]] if unit else 1)
    return counted if math.isfinite(counted) else None


def _is_any(value: str, globs: Sequence[str]) -> bool:
    text = normalize(value)
    return any(fnmatch.fnmatchcase(text, glob) for glob in globs)
