"""The dependencies of a scan: per directory, the entry names whose appearance or removal can change its result.

With them, a change of one name in ``/dev`` causes a scan of the affected resources only.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from msgspec import Struct, field

from genplug.spec.globs import Segment

Changes: TypeAlias = Mapping[str, frozenset[str]]
"""Changed entry names by directory; an empty set of names means that any entry may have changed."""


class DirectoryDependency(Struct, frozen=True):
    """The relevant entry names of a directory: literal names, names that match a pattern, or any name."""

    names: frozenset[str] = frozenset()
    patterns: frozenset[Segment] = frozenset()
    is_any: bool = False

    def matches_any(self, names: frozenset[str]) -> bool:
        """Return whether a change of these names is relevant; no names mean that anything may have changed."""
        if self.is_any or not names or not names.isdisjoint(self.names):
            return True
        return any(pattern.matches(name) for pattern in self.patterns for name in names)


class Dependencies(Struct):
    """Collects the dependencies of one scan, by directory (without symlinks, the root as ``/``)."""

    names: dict[str, set[str]] = {}
    patterns: dict[str, set[Segment]] = {}
    anything: set[str] = field(default_factory=set)

    @property
    def directories(self) -> frozenset[str]:
        """All directories with relevant names."""
        return frozenset({*self.names, *self.patterns, *self.anything})

    def add_name(self, directory: str, name: str) -> None:
        """Record that a name in a directory is relevant."""
        # Skip names that a pattern covers, which is the usual case for devices.
        for pattern in self.patterns.get(directory or "/", ()):
            if pattern.matches(name):
                return
        self.names.setdefault(directory or "/", set()).add(name)

    def add_pattern(self, directory: str, pattern: Segment) -> None:
        """Record that every name that matches a pattern is relevant."""
        self.patterns.setdefault(directory or "/", set()).add(pattern)

    def add_any(self, directory: str) -> None:
        """Record that every name in a directory is relevant."""
        self.anything.add(directory or "/")

    def is_affected(self, changes: Changes) -> bool:
        """Return whether changes can affect what has these dependencies."""
        return any(
            directory in self.anything
            or not self.names.get(directory, frozenset[str]()).isdisjoint(names)
            or any(pattern.matches(name) for pattern in self.patterns.get(directory, ()) for name in names)
            or (not names and (directory in self.names or directory in self.patterns))
            for directory, names in changes.items()
        )

    def update(self, other: "Dependencies") -> None:
        """Add all dependencies of another collector."""
        for directory, patterns in other.patterns.items():
            self.patterns.setdefault(directory, set()).update(patterns)
        for directory, names in other.names.items():
            for name in names:
                self.add_name(directory, name)
        self.anything |= other.anything

    def freeze(self) -> Mapping[str, DirectoryDependency]:
        """Return the collected dependencies by directory."""
        return {
            directory: DirectoryDependency(
                frozenset(self.names.get(directory, ())),
                frozenset(self.patterns.get(directory, ())),
                directory in self.anything,
            )
            for directory in self.directories
        }


def merge_dependencies(
    dependencies: Mapping[str, DirectoryDependency], other: Dependencies
) -> Mapping[str, DirectoryDependency]:
    """Return dependencies and those of a collector."""
    merged = dict(dependencies)
    for directory, new in other.freeze().items():
        known = merged.get(directory, DirectoryDependency())
        patterns = known.patterns | new.patterns
        names = {name for name in new.names if not any(pattern.matches(name) for pattern in patterns)}
        merged[directory] = DirectoryDependency(known.names | names, patterns, known.is_any or new.is_any)
    return merged


def is_affected(dependencies: Mapping[str, DirectoryDependency], changes: Changes) -> bool:
    """Return whether changes can affect a scan with these dependencies; a change of the root always can."""
    # A loop, because each change is compared with all resources, and a generator takes longer.
    for directory, names in changes.items():
        if (dependency := dependencies.get(directory)) is not None and dependency.matches_any(names):
            return True
    return False


def with_ancestors(paths: Iterable[str]) -> frozenset[str]:
    """Return the paths and all of their parent directories: a change of one of these can affect the paths."""
    found: set[str] = set()
    for path in paths:
        found.add(path)
        ancestor = path.rpartition("/")[0]
        while ancestor and ancestor not in found:
            found.add(ancestor)
            ancestor = ancestor.rpartition("/")[0]
    return frozenset(found)


class ChangeSet(Struct, frozen=True):
    """The paths that changes can affect.

    A dependency is a path, or a directory with a trailing ``/``, which stands for the names in it. A change affects the
    dependencies on its path, on paths below it, and on the directory that contains it.
    """

    paths: frozenset[str]
    prefixes: tuple[str, ...]

    @classmethod
    def of(cls, changes: Changes) -> "ChangeSet":
        """Return the change set for changes by directory."""
        paths = {f"{directory.rstrip('/')}/{name}" for directory, names in changes.items() for name in names}
        directories = {f"{directory.rstrip('/')}/" for directory in changes}
        anything = {f"{directory.rstrip('/')}/" for directory, names in changes.items() if not names}
        return cls(frozenset(paths | directories), tuple({f"{path}/" for path in paths} | anything))

    def affects(self, depends: Iterable[str]) -> bool:
        """Return whether one of these dependencies is affected."""
        return any(path in self.paths or path.startswith(self.prefixes) for path in depends)
