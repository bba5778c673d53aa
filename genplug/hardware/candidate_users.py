"""Finds the candidates that a change affects, without a search through all candidates. Pure.

Most candidates depend on their own path only. The others are links, whose target can change, and candidates with
attributes that were read from files.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from msgspec import Struct

from genplug.hardware.dependencies import ChangeSet, with_ancestors

CandidateKey: TypeAlias = tuple[int, str]
"""A candidate: the number of its source, and its path."""

_WITHOUT_INOTIFY = ("/sys", "/proc")


class PathsOfCandidate(Struct, frozen=True):
    """The paths accessed to resolve a candidate that is a link, and the paths on which its attributes depend."""

    key: CandidateKey
    links: tuple[str, ...]
    files: tuple[str, ...]


class CandidateUsers(Struct, frozen=True):
    """The candidates of a resource by the paths on which they depend, apart from their own path.

    ``ancestors`` has these paths and their parent directories, ``ancestors_of_files`` those of attributes only, and
    ``directories`` the directories of the files of attributes. Paths of candidates that were removed can remain in
    these three until the next full scan.
    """

    by_path: Mapping[str, tuple[CandidateKey, ...]] = {}
    ancestors: frozenset[str] = frozenset()
    ancestors_of_files: frozenset[str] = frozenset()
    directories: frozenset[str] = frozenset()

    @classmethod
    def of(cls, candidates: Iterable[PathsOfCandidate]) -> "CandidateUsers":
        """Return the users of the paths of these candidates."""
        by_path: dict[str, list[CandidateKey]] = {}
        files: set[str] = set()
        for candidate in candidates:
            for path in dict.fromkeys((*candidate.links, *candidate.files)):
                by_path.setdefault(path, []).append(candidate.key)
            files.update(candidate.files)
        if not by_path:
            return NO_USERS
        directories = frozenset(path.rpartition("/")[0] or "/" for path in files)
        users = {path: tuple(keys) for path, keys in by_path.items()}
        return cls(users, with_ancestors(by_path), with_ancestors(files), directories)

    @property
    def has_unreported_files(self) -> bool:
        """Whether attributes are read from sysfs or procfs, which report no change of a file."""
        return not self.ancestors_of_files.isdisjoint(_WITHOUT_INOTIFY)

    def find(self, changes: ChangeSet) -> set[CandidateKey]:
        """Return the candidates that changes of these paths can affect."""
        found = {key for path in changes.paths if path in self.by_path for key in self.by_path[path]}
        # A change of a directory affects what is below it, and is rare: only then all paths are compared.
        if _has_prefix(self.ancestors, changes):
            below = (keys for path, keys in self.by_path.items() if path.startswith(changes.prefixes))
            found.update(key for keys in below for key in keys)
        return found

    def may_affect_files(self, changes: ChangeSet) -> bool:
        """Return whether changes can affect an attribute of a candidate."""
        return not self.ancestors_of_files.isdisjoint(changes.paths) or _has_prefix(self.ancestors_of_files, changes)

    def replace(self, removed: Iterable[PathsOfCandidate], added: Iterable[PathsOfCandidate]) -> "CandidateUsers":
        """Return the users without some candidates and with others."""
        new = CandidateUsers.of(added)
        old = [candidate for candidate in removed if candidate.links or candidate.files]
        if not old and new is NO_USERS:
            return self
        by_path = dict(self.by_path)
        for candidate in old:
            for path in (*candidate.links, *candidate.files):
                if rest := tuple(key for key in by_path.pop(path, ()) if key != candidate.key):
                    by_path[path] = rest
        for path, keys in new.by_path.items():
            by_path[path] = (*by_path.get(path, ()), *keys)
        return CandidateUsers(
            by_path,
            self.ancestors | new.ancestors,
            self.ancestors_of_files | new.ancestors_of_files,
            self.directories | new.directories,
        )


NO_USERS = CandidateUsers()


def _has_prefix(ancestors: frozenset[str], changes: ChangeSet) -> bool:
    """Return whether one of the paths with these ancestors may be below a changed path."""
    return bool(ancestors) and any(prefix == "/" or prefix.rstrip("/") in ancestors for prefix in changes.prefixes)
