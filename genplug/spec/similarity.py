"""Texts that say the same about different things, such as an error for each of several devices."""

import re

_NUMBER = re.compile(r"[0-9a-f]*[0-9](?:[0-9a-f]|[:.](?=[0-9a-f]))*")
"""A decimal or hexadecimal number, or an address such as ``0000:3b:00.1``."""


def similarity_key(text: str) -> str:
    """Return a text without its numbers, such as those in paths and addresses: similar texts have the same key."""
    return _NUMBER.sub("#", text)
