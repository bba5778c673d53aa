"""Bookkeeping of changes between two scans: what changed, and whether that can affect a scan. Pure."""

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from genplug.hardware.dependencies import Changes, ChangeSet, is_affected
from genplug.hardware.inventory import ResourceScan


class PendingChanges(Struct, frozen=True):
    """The changes since the previous scan. ``is_everything`` means that anything may have changed."""

    by_directory: Mapping[str, frozenset[str]] = {}
    is_everything: bool = False

    def __bool__(self) -> bool:
        return self.is_everything or bool(self.by_directory)

    def add(self, directory: str, names: frozenset[str]) -> "PendingChanges":
        """Return these changes and those of names in a directory; without names anything may have changed there."""
        known = self.by_directory.get(directory)
        merged = frozenset[str]() if not names or known == frozenset() else names | (known or names)
        return replace(self, by_directory={**self.by_directory, directory: merged})

    def merge(self, other: "PendingChanges") -> "PendingChanges":
        """Return these changes and those of ``other``."""
        merged = self
        for directory, names in other.by_directory.items():
            merged = merged.add(directory, names)
        return replace(merged, is_everything=self.is_everything or other.is_everything)

    @property
    def limit(self) -> Changes | None:
        """The changes to which a scan can be limited; None if it cannot."""
        return None if self.is_everything else self.by_directory


EVERYTHING = PendingChanges(is_everything=True)


class ScanRelevance:
    """Whether changes can affect any of some scans. Most of what a node's uevents report cannot."""

    def __init__(self, scans: Iterable[ResourceScan]) -> None:
        self._scans = tuple(scans)
        self.has_unreported_files = any(scan.users.has_unreported_files for scan in self._scans)
        """Whether attributes are read from sysfs or procfs, which report no change of a file."""

    def is_affected(self, changes: Changes) -> bool:
        """Return whether one of the scans depends on what changed."""
        change_set = ChangeSet.of(changes)
        return any(
            is_affected(scan.dependencies, changes) or scan.users.may_affect_files(change_set) for scan in self._scans
        )
