"""Values of attributes: those that a path and a look at it give by themselves, and those of several together. Pure.

An attribute that cannot be known does not exist: it is missing, never empty.
"""

import re
from collections.abc import Sequence

from genplug.hardware.inventory import PathInfo
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.template import Values

_TRAILING_NUMBER = re.compile(r"[0-9]+\Z")


def custom_attributes(path: str, look: PathInfo) -> dict[str, tuple[str, ...]]:
    """Return the attributes of one path; for a symlink, path and name are the link's, the rest is its target's."""
    name = path.rpartition("/")[2]
    values: dict[str, tuple[str, ...]] = {"path": (path,), "name": (name,), "type": (look.kind.value,)}
    if (found := _TRAILING_NUMBER.search(name)) is not None:
        values["index"] = (found[0],)
    if look.is_device:
        values["major"] = (str(look.major),)
        values["minor"] = (str(look.minor),)
    if look.resolved != path:
        values["target"] = (look.resolved,)
    return values


def merge_values(parts: Sequence[Values]) -> Values:
    """Return the values of several candidates or devices together, in natural order and without repeats."""
    if len(parts) == 1:
        return parts[0]
    values: dict[str, set[str]] = {}
    for part in parts:
        for name, texts in part.items():
            values.setdefault(name, set()).update(texts)
    return {name: tuple(sorted(texts, key=natural_sort_key)) for name, texts in values.items()}
