"""Natural sort order: ``nvidia2`` before ``nvidia10``. All output and all device lists use it."""

import re

_MAX_DIGITS = 20
"""Longer numbers sort as strings; no kernel number is that long."""

_NUMBER = re.compile(r"[0-9]+")
_NUMBER_OR_PCI_ADDRESS = re.compile(
    r"(?P<address>(?:(?<![0-9a-z:.])|(?<=pci))(?P<domain>[0-9a-f]{4,8})(?P<rest>:[0-9a-f]{2}(?::[0-9a-f]{2}(?:\.[0-7])?)?)"
    r"(?![0-9a-z:]))"
    r"|[0-9]+",
    re.IGNORECASE,
)
"""A PCI address ``DOMAIN:BUS[:DEVICE[.FUNCTION]]`` in hexadecimal digits, as in ``0000:3b:00.0`` and ``pci0000:3a``.

The domain has at least four digits (drivers/pci/probe.c: ``"%04x:%02x"``, ``"%04x:%02x:%02x.%d"``).
"""


def natural_sort_key(text: str) -> tuple[str, str]:
    """Return a sort key that compares runs of digits as decimal numbers and PCI addresses as hexadecimal numbers.

    Equal keys mean equal strings.
    """
    # Every PCI address contains a colon, which few other names do.
    pattern = _NUMBER_OR_PCI_ADDRESS if ":" in text else _NUMBER
    return pattern.sub(_pad, text), text


def _pad(found: re.Match[str]) -> str:
    if found.lastgroup is None:
        return found[0].zfill(_MAX_DIGITS)
    # The parts behind the domain have a fixed width, and the digits come before the letters in ASCII.
    return (found["domain"].zfill(_MAX_DIGITS) + found["rest"]).lower()
