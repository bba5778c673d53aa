"""Parses JSON that other programs wrote: a server, kubectl, or the audit log of another version."""

import json
from typing import Any

from genplug.spec.limits import MAX_JSON_DEPTH


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - any document
    """Return a document of at most MAX_JSON_DEPTH levels: the functions that print a document recurse for each level.

    Raises:
        ValueError: the text is not JSON, or has too many levels.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError(f"more than {MAX_JSON_DEPTH} levels") from None
    check_depth(document)
    return document


def check_depth(document: Any) -> None:  # noqa: ANN401 - as above
    """Raise a ValueError if a document has more than MAX_JSON_DEPTH levels of lists and mappings."""
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(MAX_JSON_DEPTH):
        inner = (item for value in level for item in (value.values() if isinstance(value, dict) else value))
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError(f"more than {MAX_JSON_DEPTH} levels")
