"""Attribute values that follow from the path and stat of a candidate. Pure.

An attribute without a value does not exist: it is missing, never empty.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from genplug.hardware.inventory import PathInfo
from genplug.spec.template import SingleValues

_TRAILING_NUMBER = re.compile(r"[0-9]+\Z")


class PathAttributes(SingleValues):
    """The attributes of a path; of a symlink, path and name are its own, the others those of its target.

    A value is computed when it is read: a dictionary with all values needs ten times the memory, for each device.
    """

    __slots__ = ("_info", "_path")

    def __init__(self, path: str, info: PathInfo) -> None:
        self._path = path
        self._info = info

    def __repr__(self) -> str:
        return f"PathAttributes({self._path!r}, {self._info!r})"

    def __eq__(self, other: object) -> bool:
        if type(other) is PathAttributes:
            return self._path == other._path and self._info == other._info
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, name: str) -> tuple[str, ...]:
        read = _READERS.get(name)
        text = read(self._path, self._info) if read is not None else None
        if text is None:
            raise KeyError(name)
        return (text,)

    def __contains__(self, name: object) -> bool:
        read = _READERS.get(name)  # type: ignore[call-overload]
        return read is not None and read(self._path, self._info) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name, read in _READERS.items() if read(self._path, self._info) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _read_index(path: str, _info: PathInfo) -> str | None:
    found = _TRAILING_NUMBER.search(path)
    return found[0] if found is not None else None


_READERS: Mapping[str, Callable[[str, PathInfo], str | None]] = {
    "path": lambda path, _info: path,
    "name": lambda path, _info: path.rpartition("/")[2],
    "type": lambda _path, info: info.kind.value,
    "index": _read_index,
    "major": lambda _path, info: str(info.major) if info.is_device else None,
    "minor": lambda _path, info: str(info.minor) if info.is_device else None,
    "target": lambda path, info: info.resolved if info.resolved != path else None,
}
"""The function that returns the value of each attribute, None if the attribute does not exist."""
