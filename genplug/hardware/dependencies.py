"""What a scan depends on: directories, and in each of them the names whose coming or going may change its result.

So a change of one name in ``/dev`` costs a scan of those resources that can care, and not of all of them.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from attrs import define, field, frozen

from genplug.spec.globs import Segment

Changes: TypeAlias = Mapping[str, frozenset[str]]
"""Directories in which something changed and the names that did; no names mean that anything may have."""


@frozen
class DirectoryDependency:
    """The names that matter in one directory: these very ones, those that a pattern matches, or any."""

    names: frozenset[str] = frozenset()
    patterns: frozenset[Segment] = frozenset()
    is_any: bool = False

    def matches_any(self, names: frozenset[str]) -> bool:
        """Say whether a change of these names matters; none means that anything may have changed."""
        if self.is_any or not names or not names.isdisjoint(self.names):
            return True
        return any(pattern.matches(name) for pattern in self.patterns for name in names)


@define
class Dependencies:
    """Collects the dependencies of one scan, by directory (without symlinks, the root as ``/``)."""

    names: dict[str, set[str]] = field(factory=dict)
    patterns: dict[str, set[Segment]] = field(factory=dict)
    anything: set[str] = field(factory=set)

    @property
    def directories(self) -> frozenset[str]:
        """Every directory that matters."""
        return frozenset({*self.names, *self.patterns, *self.anything})

    def add_name(self, directory: str, name: str) -> None:
        """Take note that a name in a directory matters."""
        # What a pattern of the same scan has found already needs no line of its own: most devices of most scans.
        if not any(pattern.matches(name) for pattern in self.patterns.get(directory or "/", ())):
            self.names.setdefault(directory or "/", set()).add(name)

    def add_pattern(self, directory: str, pattern: Segment) -> None:
        """Take note that every name that a pattern matches matters."""
        self.patterns.setdefault(directory or "/", set()).add(pattern)

    def add_any(self, directory: str) -> None:
        """Take note that everything in a directory matters."""
        self.anything.add(directory or "/")

    def update(self, other: "Dependencies") -> None:
        """Take over all dependencies of another collector."""
        for directory, patterns in other.patterns.items():
            self.patterns.setdefault(directory, set()).update(patterns)
        for directory, names in other.names.items():
            for name in names:
                self.add_name(directory, name)
        self.anything |= other.anything

    def freeze(self) -> Mapping[str, DirectoryDependency]:
        """Return what was collected."""
        return {
            directory: DirectoryDependency(
                frozenset(self.names.get(directory, ())),
                frozenset(self.patterns.get(directory, ())),
                directory in self.anything,
            )
            for directory in self.directories
        }


def is_affected(dependencies: Mapping[str, DirectoryDependency], changes: Changes) -> bool:
    """Return whether changes can affect a scan with these dependencies; a change of the root always can."""
    return any(
        directory in dependencies and dependencies[directory].matches_any(names) for directory, names in changes.items()
    )


def with_ancestors(paths: Iterable[str]) -> frozenset[str]:
    """Return paths and every directory above them: where a change can touch what depends on one of the paths."""
    found: set[str] = set()
    for path in paths:
        found.add(path)
        at = path.rstrip("/")
        while at and at not in found:
            found.add(at)
            at = at.rpartition("/")[0]
    return frozenset(found)


@frozen
class ChangeSet:
    """What changes can have touched: for things that depend on paths, as candidates do on what was read of them.

    A thing depends on a path (it was looked at or read), or on the names in a directory (its path and ``/`` at the
    end). It is touched by a change of the path, of a directory above it, and of a name in the directory.
    """

    paths: frozenset[str]
    prefixes: tuple[str, ...]

    @classmethod
    def of(cls, changes: Changes) -> "ChangeSet":
        """Return what these changes touch."""
        paths = {f"{directory.rstrip('/')}/{name}" for directory, names in changes.items() for name in names}
        directories = {f"{directory.rstrip('/')}/" for directory in changes}
        anything = {f"{directory.rstrip('/')}/" for directory, names in changes.items() if not names}
        return cls(frozenset(paths | directories), tuple({f"{path}/" for path in paths} | anything))

    def affects(self, depends: Iterable[str]) -> bool:
        """Say whether a thing that depends on these is touched."""
        return any(one in self.paths or one.startswith(self.prefixes) for one in depends)
