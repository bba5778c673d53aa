"""What a file's value has to be: comparisons of a text, each with the value seen and the value wanted. Pure."""

from genplug.spec.probes import ValueCheck
from genplug.spec.regex import compile_regex
from genplug.spec.selectors import parse_quantity

_MAX_SHOWN = 80


class NotANumberError(ValueError):
    """A value that is to be compared as a number and is none; the text says which."""


def mismatch_reason(value: str, wanted: ValueCheck) -> str:
    """Say in what a value differs from what is wanted; empty if it does not.

    Raises:
        NotANumberError: a number is wanted, and this is none.
    """
    if wanted.equals is not None and not _is_same(value, wanted.equals):
        return f"is {format_value(value)}, wanted {format_value(wanted.equals)}"
    if wanted.not_equals is not None and _is_same(value, wanted.not_equals):
        return f"is {format_value(value)}, which it must not be"
    if wanted.matches is not None and compile_regex(wanted.matches).search(value) is None:
        return f"is {format_value(value)}, wanted what matches '{wanted.matches}'"
    if wanted.not_matches is not None and compile_regex(wanted.not_matches).search(value) is not None:
        return f"is {format_value(value)}, wanted nothing that matches '{wanted.not_matches}'"
    if wanted.minimum is not None and parse_number(value) < wanted.minimum[0]:
        return f"is {format_value(value)}, wanted at least {wanted.minimum[1]}"
    if wanted.maximum is not None and parse_number(value) > wanted.maximum[0]:
        return f"is {format_value(value)}, wanted at most {wanted.maximum[1]}"
    if wanted.bits_clear is not None and (bits := int(parse_number(value)) & wanted.bits_clear):
        return f"is {format_value(value)}, wanted the bits {bits:#x} in it clear"
    return ""


def parse_number(value: str) -> float:
    """Read a number.

    Raises:
        NotANumberError: it is none.
    """
    found = parse_quantity(value)
    if found is None:
        raise NotANumberError(f"is {format_value(value)}, which is no number")
    return found


def _is_same(value: str, other: str) -> bool:
    one, two = parse_quantity(value), parse_quantity(other)
    return value == other or (one is not None and one == two)


def format_value(value: str) -> str:
    """Return a value as a reason shows it: one short line in quotes."""
    line = " ".join(value.split())
    return f"'{line}'" if len(line) <= _MAX_SHOWN else f"'{line[: _MAX_SHOWN - 3]}...'"
