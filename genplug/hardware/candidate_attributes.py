"""Attribute values that follow from the path and stat of a candidate. Pure.

An attribute without a value does not exist: it is missing, never empty.
"""

import re

from genplug.hardware.inventory import PathInfo

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
