"""Parses numbers in untrusted texts."""

MAX_DIGITS = 18
"""Digits of a number that certainly fits into 64 bits; ``int`` raises a ValueError for more than 4300 digits."""


def parse_natural(text: str, max_digits: int = MAX_DIGITS) -> int | None:
    """Return a number written in ASCII digits, None for any other text and for more than ``max_digits`` digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= max_digits else None
