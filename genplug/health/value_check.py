"""Conditions on the value of a file. Pure; every failure names the value found and the value expected."""

from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from genplug.spec.regex import compile_regex
from genplug.spec.selectors import parse_quantity

Comparison: TypeAlias = Literal["equals", "min", "max"]
"""The comparisons whose other value can be in a file."""

_MAX_SHOWN_CHARACTERS = 80


class NotANumberError(ValueError):
    """A value that is compared as a number is not a number; the text names it."""


class ValueCheck(Struct, frozen=True):
    """Conditions on a value; None means no condition. ``bits_clear`` is a mask of bits that have to be 0.

    ``minimum`` and ``maximum`` come with the text of the configuration, for reasons.
    Numbers are compared as numbers: ``0x10`` equals ``16``.
    """

    equals: str | None = None
    not_equals: str | None = None
    matches: str | None = None
    not_matches: str | None = None
    minimum: tuple[float, str] | None = None
    maximum: tuple[float, str] | None = None
    bits_clear: int | None = None
    equals_source: str = ""
    """The file that has the value of ``equals``; empty if the configuration has it."""

    def with_limit(self, comparison: Comparison, value: str, path: str) -> "ValueCheck":
        """Return the conditions with the value of a file as ``equals``, ``min`` or ``max``.

        Raises:
            NotANumberError: a number is expected, and the value is not a number.
        """
        if comparison == "equals":
            return replace(self, equals=value, equals_source=path)
        limit = (parse_number(value), f"{quote(value)}, the value of {path}")
        return replace(self, minimum=limit) if comparison == "min" else replace(self, maximum=limit)

    def error(self, value: str) -> str:
        """Return the value and the condition that it does not meet, empty if it meets all.

        Raises:
            NotANumberError: a number is expected, and the value is not a number.
        """
        found = f"is {quote(value)}, expected"
        if self.equals is not None and not _is_equal(value, self.equals):
            source = f", the value of {self.equals_source}" if self.equals_source else ""
            return f"{found} {quote(self.equals)}{source}"
        if self.not_equals is not None and _is_equal(value, self.not_equals):
            return f"{found} any other value"
        if self.matches is not None and compile_regex(self.matches).search(value) is None:
            return f"{found} a match of '{self.matches}'"
        if self.not_matches is not None and compile_regex(self.not_matches).search(value) is not None:
            return f"{found} no match of '{self.not_matches}'"
        if self.minimum is not None and parse_number(value) < self.minimum[0]:
            return f"{found} at least {self.minimum[1]}"
        if self.maximum is not None and parse_number(value) > self.maximum[0]:
            return f"{found} at most {self.maximum[1]}"
        if self.bits_clear is not None and (bits := int(parse_number(value)) & self.bits_clear):
            return f"{found} the bits {bits:#x} to be 0"
        return ""


def parse_number(value: str) -> float:
    """Return a value as a number.

    Raises:
        NotANumberError: it is not a number.
    """
    number = parse_quantity(value)
    if number is None:
        raise NotANumberError(f"is {quote(value)}, expected a number")
    return number


def quote(value: str) -> str:
    """Return a value in quotes, on one line and shortened, as reasons show it."""
    return f"'{shorten(value, _MAX_SHOWN_CHARACTERS)}'"


def shorten(text: str, max_characters: int) -> str:
    """Return a text on one line, with ``...`` in place of its end if it is longer than ``max_characters``."""
    line = " ".join(text.split())
    return line if len(line) <= max_characters else f"{line[: max_characters - 3]}..."


def _is_equal(value: str, other: str) -> bool:
    number = parse_quantity(value)
    return value == other or (number is not None and number == parse_quantity(other))
