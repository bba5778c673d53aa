"""Read values of JSON objects from kubectl and agents: a missing key or another type counts as empty."""

from collections.abc import Iterator, Mapping
from typing import Any

JSON = Mapping[str, Any]
"""A JSON object that kubectl or an agent printed."""


def read_map(parent: JSON, key: str) -> JSON:
    """Return the object of a key, or an empty object."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def read_maps(parent: JSON, key: str) -> Iterator[JSON]:
    """Yield the objects in the list of a key."""
    value = parent.get(key)
    yield from (entry for entry in value if isinstance(entry, dict)) if isinstance(value, list) else ()


def read_text(parent: JSON, key: str) -> str:
    """Return the text of a key, or an empty text."""
    value: Any = parent.get(key)
    return value if isinstance(value, str) else ""


def read_texts(parent: JSON, key: str) -> dict[str, str]:
    """Return the texts of the object of a key; numbers are texts too."""
    return {name: str(value) for name, value in read_map(parent, key).items() if isinstance(value, str | int | float)}


def read_number(parent: JSON, key: str) -> int:
    """Return the integer of a key, or 0."""
    value: Any = parent.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
