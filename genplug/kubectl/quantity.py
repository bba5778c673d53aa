"""Quantities of the objects of Kubernetes, for example ``250m``, ``4`` or ``1536Mi``."""

from fractions import Fraction

from genplug.spec.quantity import BINARY_SUFFIXES, read_quantity


def parse_quantity(text: object) -> Fraction:
    """Return the value of an amount; the API server accepts no negative amounts and no other texts, which are 0."""
    return read_quantity(str(text)) or Fraction(0)


def format_quantity(resource: str, value: Fraction) -> str:
    """Return a short text of an amount: cores with thousandths, bytes in binary units, and a count of all else."""
    if resource == "cpu":
        return str(value) if value.denominator == 1 else f"{round(value * 1000)}m"
    if resource in {"memory", "ephemeral-storage"} or resource.startswith("hugepages-"):
        for power in range(len(BINARY_SUFFIXES), 0, -1):
            if value >= 1024**power:
                return f"{_round(value / 1024**power, 4)}{BINARY_SUFFIXES[power - 1]}"
    return str(int(value)) if value.denominator == 1 else _round(value, 6)


def _round(value: Fraction, digits: int) -> str:
    return f"{float(value):.{digits}g}"
