"""What a scan depends on: folders, and in each of them the names whose coming or going may change its result.

So a change of one name in ``/dev`` costs a scan of those resources that can care, and not of all of them.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from attrs import define, field, frozen

from genplug.spec.globs import Segment

Changes: TypeAlias = Mapping[str, frozenset[str]]
"""Folders in which something changed and the names that did; no names mean that anything may have."""


@frozen
class Interest:
    """The names that matter in one folder: these very ones, those that a pattern matches, or any."""

    names: frozenset[str] = frozenset()
    patterns: frozenset[Segment] = frozenset()
    is_any: bool = False

    def concerns(self, names: frozenset[str]) -> bool:
        """Say whether a change of these names matters; none means that anything may have changed."""
        if self.is_any or not names or not names.isdisjoint(self.names):
            return True
        return any(pattern.matches(name) for pattern in self.patterns for name in names)


@define
class Interests:
    """Collects the interests of one scan, by folder (without symlinks, the root as ``/``)."""

    names: dict[str, set[str]] = field(factory=dict)
    patterns: dict[str, set[Segment]] = field(factory=dict)
    anything: set[str] = field(factory=set)

    @property
    def folders(self) -> frozenset[str]:
        """Every folder that matters."""
        return frozenset({*self.names, *self.patterns, *self.anything})

    def add_name(self, folder: str, name: str) -> None:
        """Take note that a name in a folder matters."""
        # What a pattern of the same scan has found already needs no line of its own: most devices of most scans.
        if not any(pattern.matches(name) for pattern in self.patterns.get(folder or "/", ())):
            self.names.setdefault(folder or "/", set()).add(name)

    def add_pattern(self, folder: str, pattern: Segment) -> None:
        """Take note that every name that a pattern matches matters."""
        self.patterns.setdefault(folder or "/", set()).add(pattern)

    def add_any(self, folder: str) -> None:
        """Take note that everything in a folder matters."""
        self.anything.add(folder or "/")

    def update(self, other: "Interests") -> None:
        """Take over all interests of another collector."""
        for folder, patterns in other.patterns.items():
            self.patterns.setdefault(folder, set()).update(patterns)
        for folder, names in other.names.items():
            for name in names:
                self.add_name(folder, name)
        self.anything |= other.anything

    def frozen(self) -> Mapping[str, Interest]:
        """Return what was collected."""
        return {
            folder: Interest(
                frozenset(self.names.get(folder, ())),
                frozenset(self.patterns.get(folder, ())),
                folder in self.anything,
            )
            for folder in self.folders
        }


def is_concerned(interests: Mapping[str, Interest], changes: Changes) -> bool:
    """Say whether changes matter to a scan with these interests; a change of the root's folder itself always does."""
    return any(folder in interests and interests[folder].concerns(names) for folder, names in changes.items())


def within(paths: Iterable[str]) -> frozenset[str]:
    """Return paths and every folder above them: where a change can touch what depends on one of the paths."""
    found: set[str] = set()
    for path in paths:
        found.add(path)
        at = path.rstrip("/")
        while at and at not in found:
            found.add(at)
            at = at.rpartition("/")[0]
    return frozenset(found)


@frozen
class Touch:
    """What changes can have touched: for things that depend on paths, as candidates do on what was read of them.

    A thing depends on a path (it was looked at or read), or on the names in a folder (its path and ``/`` at the end).
    It is touched by a change of the path, of a folder above it, and of a name in the folder.
    """

    paths: frozenset[str]
    prefixes: tuple[str, ...]

    @classmethod
    def of(cls, changes: Changes) -> "Touch":
        """Return what these changes touch."""
        paths = {f"{folder.rstrip('/')}/{name}" for folder, names in changes.items() for name in names}
        folders = {f"{folder.rstrip('/')}/" for folder in changes}
        anything = {f"{folder.rstrip('/')}/" for folder, names in changes.items() if not names}
        return cls(frozenset(paths | folders), tuple({f"{path}/" for path in paths} | anything))

    def concerns(self, depends: Iterable[str]) -> bool:
        """Say whether a thing that depends on these is touched."""
        return any(one in self.paths or one.startswith(self.prefixes) for one in depends)
