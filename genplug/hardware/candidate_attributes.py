"""Attribute values that follow from the path and stat of a candidate, and merging of values. Pure.

An attribute without a value does not exist: it is missing, never empty.
"""

import re
from collections.abc import Sequence

from genplug.hardware.inventory import PathInfo
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.template import Values

_TRAILING_NUMBER = re.compile(r"[0-9]+\Z")


def path_attributes(path: str, info: PathInfo) -> dict[str, tuple[str, ...]]:
    """Return the attributes of a path; of a symlink, path and name are its own, the others those of its target."""
    name = path.rpartition("/")[2]
    values: dict[str, tuple[str, ...]] = {"path": (path,), "name": (name,), "type": (info.kind.value,)}
    if (found := _TRAILING_NUMBER.search(name)) is not None:
        values["index"] = (found[0],)
    if info.is_device:
        values["major"] = (str(info.major),)
        values["minor"] = (str(info.minor),)
    if info.resolved != path:
        values["target"] = (info.resolved,)
    return values


def merge_values(parts: Sequence[Values]) -> Values:
    """Return the merged values of several candidates or devices, in natural order and without repeats."""
    if len(parts) == 1:
        return parts[0]
    values: dict[str, set[str]] = {}
    for part in parts:
        for name, texts in part.items():
            values.setdefault(name, set()).update(texts)
    return {name: tuple(sorted(texts, key=natural_sort_key)) for name, texts in values.items()}
