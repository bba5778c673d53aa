"""Attribute values that follow from the path and stat of a candidate. Pure.

An attribute without a value does not exist: it is missing, never empty.
"""

import re
from functools import lru_cache

from genplug.hardware.inventory import Kind, PathInfo

_TRAILING_NUMBER = re.compile(r"[0-9]+\Z")


_TYPES = {kind: (kind.value,) for kind in Kind}


@lru_cache(maxsize=4096)
def _format_major(major: int) -> tuple[str, ...]:
    """Return a major number as the value that all of its devices share."""
    return (str(major),)


def path_attributes(path: str, info: PathInfo) -> dict[str, tuple[str, ...]]:
    """Return the attributes of a path; of a symlink, path and name are its own, the others those of its target."""
    name = path.rpartition("/")[2]
    values: dict[str, tuple[str, ...]] = {"path": (path,), "name": (name,), "type": _TYPES[info.kind]}
    index = None
    if (found := _TRAILING_NUMBER.search(name)) is not None:
        index = values["index"] = (found[0],)
    if info.is_device:
        values["major"] = _format_major(info.major)
        minor = (str(info.minor),)
        # The index is the minor number of many devices: they share the value.
        values["minor"] = index if index == minor else minor
    if info.resolved != path:
        values["target"] = (info.resolved,)
    return values
