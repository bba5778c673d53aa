"""Selectors: what a ``where`` asks of one attribute of a candidate (config-language: ``where``). Pure predicates.

Texts compare without case and with or without ``0x``. A test of something the attribute is not (a number of a word)
does not hold; it never raises.
"""

import fnmatch
import math
import re
from collections.abc import Sequence

from attrs import frozen

from genplug.spec.location import SourceLocation
from genplug.spec.regex import Pattern

_QUANTITY = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)([KMGTPE]i?|k)?\Z")
_MAX_DIGITS = 40
_POWERS = {"K": 1, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


@frozen
class Selector:
    """All that is asked of one attribute; None and empty mean: not asked.

    ``any_of`` and ``none_of`` hold globs in comparable form (:func:`comparable`).
    """

    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    matches: Pattern | None = None
    minimum: float | None = None
    maximum: float | None = None
    exists: bool | None = None
    text: str = ""
    """As an operator would say it, for messages: ``nvidia*``, ``min 64Gi``."""

    def accepts(self, values: tuple[str, ...]) -> bool:
        """Say whether an attribute passes: with one of its values, and for ``notIn`` with all of them.

        An attribute without a value does not exist.
        """
        if not values:
            return self.exists is False
        if self.exists is False or (self.none_of and any(_is_any(value, self.none_of) for value in values)):
            return False
        return any(self._is_wanted(value) for value in values)

    def _is_wanted(self, value: str) -> bool:
        if self.any_of and not _is_any(value, self.any_of):
            return False
        if self.matches is not None and self.matches.search(value) is None:
            return False
        return self._is_in_range(value)

    def _is_in_range(self, value: str) -> bool:
        if self.minimum is None and self.maximum is None:
            return True
        number = quantity(value)
        if number is None:
            return False
        return (self.minimum is None or number >= self.minimum) and (self.maximum is None or number <= self.maximum)


@frozen
class Condition:
    """One line of a ``where``: an attribute, what is asked of it, and where that was written."""

    location: SourceLocation
    attribute: str
    selector: Selector


def comparable(text: str) -> str:
    """Return a text as selectors compare it: lower case, without ``0x``."""
    return text.strip().lower().removeprefix("0x")


def quantity(text: str) -> float | None:
    """Read ``12``, ``1e3``, ``64Gi``, ``10M`` or ``0x1f``; None if it is no number, or one beyond any float."""
    text = text.strip()
    if text.lower().startswith("0x"):
        try:
            return int(text, 16)
        except ValueError:
            return None
    if (found := _QUANTITY.match(text)) is None:
        return None
    number, unit = found.groups()
    if unit is None and len(number) <= _MAX_DIGITS and number.lstrip("+-").isdecimal():
        # To the last digit: a register of 64 bits does not fit into a float.
        return int(number)
    base = 1024.0 if unit and unit.endswith("i") else 1000.0
    counted = float(number) * float(base ** _POWERS[unit[0]] if unit else 1)
    return counted if math.isfinite(counted) else None


def _is_any(value: str, globs: Sequence[str]) -> bool:
    text = comparable(value)
    return any(fnmatch.fnmatchcase(text, one) for one in globs)
