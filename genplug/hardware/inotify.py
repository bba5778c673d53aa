"""Directory watches: one inotify descriptor on the running loop, shared by every subscription.

A notice says which directory changed and what names; it never says how, for the reader looks again anyway. Events get
lost and some directories cannot be watched, so whoever watches also polls, slowly; :attr:`DirectoryWatch.unwatched`
says for which directories polling is all there is.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from attrs import define, field, frozen

if TYPE_CHECKING:
    from asyncinotify import Inotify, Watch

Changed = Callable[[Path, frozenset[str]], None]
"""Called with a directory and the entry names that changed; no names mean that anything may have changed."""

GONE = "it is no longer there"
"""Why a directory is unwatched that its subscriber saw, but that vanished before it was watched, or since."""

_MAX_EVENTS = 1000
"""Events dealt with before the loop's other work gets its turn."""

_REASONS = {
    errno.ENOENT: GONE,
    errno.ENOTDIR: GONE,
    errno.ENOSPC: "the node's limit of inotify watches is reached; raise the sysctl fs.inotify.max_user_watches",
    errno.EMFILE: "the node's limit of inotify instances is reached; raise the sysctl fs.inotify.max_user_instances",
}


@frozen
class _Subscription:
    directories: frozenset[Path]
    changed: Changed
    contents: bool


@define
class _Changes:
    """What a batch of events says: by directory, the names that came or went, and those that were only written."""

    entries: dict[Path, set[str]] = field(factory=dict)
    contents: dict[Path, set[str]] = field(factory=dict)
    anything: set[Path] = field(factory=set)


class DirectoryWatcher:
    """Watches directories for entries that come, go or are replaced. It belongs to the loop that it is made in.

    Each subscription has a name, and a new one replaces the old. Several may want the same directory. Close it, or use
    it as a context manager.
    """

    def __init__(self) -> None:
        self._subscriptions: dict[str, _Subscription] = {}
        self._descriptors: dict[Path, int] = {}
        self._watches: dict[int, tuple[Watch, set[Path]]] = {}
        self._unwatched: dict[Path, str] = {}
        self._warned: set[str] = set()
        self._warnings: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._inotify: Inotify | None = None
        self._failure = ""
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def unwatched(self) -> Mapping[Path, str]:
        """The directories of which no notices come, and why: whoever wants them polls."""
        return dict(self._unwatched)

    def take_warnings(self) -> tuple[str, ...]:
        """Return what an operator should know about directories that cannot be watched; each thing is said once."""
        warnings, self._warnings = tuple(self._warnings), []
        return warnings

    def set(self, name: str, directories: Iterable[Path], changed: Changed, *, contents: bool = False) -> bool:
        """Make these the directories of the subscription ``name``, all at once; an unchanged set costs next to nothing.

        ``changed`` is called in the loop. With ``contents`` a file in a directory that was written counts too, and not
        only one that came or went. A directory that vanished needs another call once it is back, so call this after
        each look at the directories.

        Returns:
            Whether to look again, because something may have changed before a directory was watched.
        """
        before = self._subscriptions.get(name)
        self._subscriptions[name] = _Subscription(frozenset(directories), changed, contents)
        if before is not None:
            self._drop(before.directories)
        news = [
            directory for directory in self._subscriptions[name].directories if self._add(directory, contents=contents)
        ]
        return bool(news)

    def unset(self, name: str) -> None:
        """End a subscription; one that is not there is ended already."""
        before = self._subscriptions.pop(name, None)
        if before is not None:
            self._drop(before.directories)

    def close(self) -> None:
        """Stop watching; no notice comes any more."""
        self._subscriptions.clear()
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    def _open(self) -> None:
        # It costs 20 ms and ctypes: commands that watch nothing do not pay for it.
        from asyncinotify import Inotify  # noqa: PLC0415

        try:
            self._inotify = Inotify(cache_size=64, sync_timeout=0)
        except OSError as error:
            self._failure = _reason(error)
        else:
            self._loop.add_reader(self._inotify.fd, self._read)

    def _add(self, directory: Path, *, contents: bool) -> bool:
        """Watch a directory; say whether this is news, one way or the other."""
        from asyncinotify import Mask  # noqa: PLC0415 - see _open

        if self._inotify is None:
            self._refused(directory, self._failure)
            return False
        mask = Mask.CREATE | Mask.DELETE | Mask.MOVE | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR | Mask.MASK_ADD
        try:
            watch = self._inotify.add_watch(directory, mask | Mask.CLOSE_WRITE if contents else mask)
        except OSError as error:
            was_known = directory in self._unwatched
            self._forget_directory(directory)
            self._refused(directory, _reason(error))
            return not was_known and self._unwatched[directory] == GONE
        self._unwatched.pop(directory, None)
        known = self._descriptors.get(directory)
        if known == watch.wd:
            return False
        self._forget_directory(directory)
        self._descriptors[directory] = watch.wd
        self._watches.setdefault(watch.wd, (watch, set()))[1].add(directory)
        return True

    def _refused(self, directory: Path, reason: str) -> None:
        self._unwatched[directory] = reason
        if reason != GONE and reason not in self._warned:
            self._warned.add(reason)
            self._warnings.append(f"{directory} cannot be watched, changes in it are seen later: {reason}")

    def _drop(self, directories: Iterable[Path]) -> None:
        """Stop watching those directories that nobody wants any more."""
        wanted = frozenset().union(*(one.directories for one in self._subscriptions.values()))
        for directory in directories:
            if directory not in wanted:
                self._unwatched.pop(directory, None)
                self._forget_directory(directory)

    def _forget_directory(self, directory: Path) -> None:
        descriptor = self._descriptors.pop(directory, None)
        if descriptor is None:
            return
        watch, directories = self._watches[descriptor]
        directories.discard(directory)
        if not directories:
            del self._watches[descriptor]
            self._remove(watch)

    def _remove(self, watch: "Watch") -> None:
        # The kernel may have removed it first, with the directory.
        with suppress(OSError):
            if self._inotify is not None:
                self._inotify.rm_watch(watch)

    def _read(self) -> None:
        """Take what events there are, then tell each subscription once about each directory."""
        changes = _Changes()
        for _ in range(_MAX_EVENTS):
            if not self._take_event(changes):
                break
        else:
            # Some may wait in the library's own list, of which the loop knows nothing.
            self._loop.call_soon(self._read)
        for one in self._subscriptions.values():
            for directory in one.directories & (changes.anything | changes.entries.keys() | changes.contents.keys()):
                names = changes.entries.get(directory, set()) | (
                    changes.contents.get(directory, set()) if one.contents else set()
                )
                if directory in changes.anything:
                    self._loop.call_soon(one.changed, directory, frozenset())
                elif names:
                    self._loop.call_soon(one.changed, directory, frozenset(names))

    def _take_event(self, changes: _Changes) -> bool:
        from asyncinotify import Mask  # noqa: PLC0415 - see _open

        if self._inotify is None or (event := self._inotify.sync_get()) is None:
            return False
        if event.mask & Mask.Q_OVERFLOW:
            changes.anything.update(*(one.directories for one in self._subscriptions.values()))
            return True
        watch, directories = self._watches.get(event.watch.wd if event.watch is not None else -1, (None, set[Path]()))
        if watch is None:
            return True
        if event.mask & (Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED):
            changes.anything |= directories
            for directory in tuple(directories):
                self._forget_directory(directory)
                self._unwatched[directory] = GONE
            return True
        kinds = changes.contents if event.mask == Mask.CLOSE_WRITE else changes.entries
        for directory in directories:
            kinds.setdefault(directory, set()).add(str(event.name))
        return True


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, os.strerror(error.errno or 0))
