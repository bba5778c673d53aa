"""Change notices: one inotify descriptor and one thread for all consumers of directory changes on an event loop.

A notice names the directory and the entries that changed. It does not carry the kind of change: the consumer scans the
directory in any case. The kernel drops events under load and some directories cannot be watched, so each consumer also
polls at a long interval; :attr:`DirectoryWatcher.unwatched` lists the directories that only polling covers.
"""

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock

import watchdog  # noqa: F401 - the parent of a package has to be imported before it is replaced
from msgspec import Struct, field

from genplug.lean_imports import replace_modules
from genplug.spec.denials import describe_system_error

# The package imports its observers, and the module imports ctypes.util, which it does not use: 15 ms together.
with replace_modules("watchdog.observers", "ctypes.util"):
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyConstants,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchDescriptor,
    )

# The library logs each overflow as lost events. An overflow is reported as a notice, and the consumers scan again.
logging.getLogger("watchdog").setLevel(logging.ERROR)

Changed = Callable[[Path, frozenset[str]], None]
"""Receives a directory and the names of the entries that changed. An empty set means that any entry, or the directory
itself, may have changed."""

GONE = "it no longer exists"
"""The reason for an unwatched directory that was removed before or after the watch was added."""

NOT_RESPONDING = "its file system does not respond"
"""The reason for an unwatched directory that could not be resolved in time."""

MAX_NAMES = 256
"""Names kept for a directory until the loop takes them. A directory with more is reported without names."""

_NO_NAMES: frozenset[str] = frozenset()

_RETRY_SECONDS = 1.0
"""The shortest time between two attempts to open an inotify descriptor."""
_STOP_SECONDS = 1.0
"""The time for which :meth:`DirectoryWatcher.close` waits for the thread, which normally ends within milliseconds."""

_ENTRIES_CHANGED = (
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_MOVED_TO
)
_DIRECTORY_GONE = InotifyConstants.IN_DELETE_SELF | InotifyConstants.IN_MOVE_SELF | InotifyConstants.IN_UNMOUNT
_MASK = Mask(
    _ENTRIES_CHANGED
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_MASK_ADD
)
_MASK_WITH_CONTENTS = Mask(_MASK | InotifyConstants.IN_CLOSE_WRITE)

_REASONS = {
    errno.ENOENT: GONE,
    errno.ENOTDIR: GONE,
    errno.ENOSPC: "the limit of inotify watches on the node is reached; raise the sysctl fs.inotify.max_user_watches",
    errno.EMFILE: (
        "the limit of inotify instances on the node is reached; raise the sysctl fs.inotify.max_user_instances"
    ),
}


class _Subscription(Struct, frozen=True):
    directories: frozenset[Path]
    changed: Changed
    contents: bool


class _Watch(Struct, frozen=True):
    """A watch of the kernel and the directories, under all their names, that it covers."""

    callback: CallbackId
    directories: set[Path] = field(default_factory=set)


class WatchChanges(Struct):
    """The merged events of one watch: entries that were added or removed, and entries that were only written."""

    entries: set[str] = field(default_factory=set)
    contents: set[str] = field(default_factory=set)
    is_gone: bool = False

    def names(self, *, contents: bool) -> frozenset[str] | None:
        """Return the names to report, an empty set for "anything may have changed", or None for nothing to report."""
        names = self.entries | self.contents if contents else self.entries
        if self.is_gone or len(names) > MAX_NAMES:
            return _NO_NAMES
        return frozenset(names) or None


class Inbox:
    """Merges events in the thread that reads them, until the loop takes them. Its size is bounded.

    ``wake`` is called in the thread with the first event after each :meth:`take`, and not with the events after it.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = Lock()
        self._changes: dict[WatchDescriptor, WatchChanges] = {}
        self._has_overflowed = False
        self._is_awake = False

    def on_event(self, event: InotifyEvent) -> None:
        """Record an event of a watch."""
        with self._lock:
            changes = self._changes_of(event.wd)
            if event.mask & _DIRECTORY_GONE:
                changes.is_gone = True
            else:
                names = changes.contents if event.is_close_write else changes.entries
                # One name above the limit marks that the set is incomplete.
                if len(names) <= MAX_NAMES:
                    names.add(os.fsdecode(event.name))
            self._wake_once()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Record that the kernel removed a watch together with its directory."""
        with self._lock:
            self._changes_of(wd).is_gone = True
            self._wake_once()

    def on_queue_overflow(self) -> None:
        """Record that the kernel dropped events."""
        with self._lock:
            self._has_overflowed = True
            self._wake_once()

    def take(self) -> tuple[dict[WatchDescriptor, WatchChanges], bool]:
        """Remove and return the changes, and whether the kernel dropped events."""
        with self._lock:
            changes, self._changes = self._changes, {}
            has_overflowed, self._has_overflowed = self._has_overflowed, False
            self._is_awake = False
        return changes, has_overflowed

    def _changes_of(self, descriptor: WatchDescriptor) -> WatchChanges:
        changes = self._changes.get(descriptor)
        if changes is None:
            changes = self._changes[descriptor] = WatchChanges()
        return changes

    def _wake_once(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._wake()


class DirectoryWatcher:
    """Watches directories for entries that are added, removed or replaced. It belongs to the running loop.

    Each subscription has a name; a new subscription replaces the previous one of that name. Several subscriptions may
    contain the same directory. All methods are called in the loop. Call :meth:`close` at the end.
    """

    def __init__(self) -> None:
        self._subscriptions: dict[str, _Subscription] = {}
        self._descriptors: dict[Path, WatchDescriptor] = {}
        self._watches: dict[WatchDescriptor, _Watch] = {}
        self._callbacks = map(CallbackId, count())
        self._unwatched: dict[Path, str] = {}
        self._warned: set[str] = set()
        self._warnings: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self._wake)
        self._inotify: InotifyFD | None = None
        self._failure = ""
        self._next_open = 0.0
        """When a descriptor is requested again after the system refused it (monotonic seconds)."""
        self._open()

    @property
    def unwatched(self) -> Mapping[Path, str]:
        """The directories without notices, each with the reason; their consumers poll."""
        return dict(self._unwatched)

    @property
    def degradations(self) -> tuple[str, ...]:
        """Why directories that exist are not watched at present: a text for each reason. Any thread may read it."""
        by_reason: dict[str, list[str]] = {}
        for directory, reason in self.unwatched.items():
            if reason != GONE:
                by_reason.setdefault(reason, []).append(str(directory))
        return tuple(
            f"{directories[0]}{f' and {len(directories) - 1} more' if len(directories) > 1 else ''} cannot be watched, "
            f"changes in {'them' if len(directories) > 1 else 'it'} are seen later: {reason}"
            for reason, directories in by_reason.items()
        )

    def take_warnings(self) -> tuple[str, ...]:
        """Return the new warnings for the operator about directories that cannot be watched, one for each reason."""
        warnings, self._warnings = tuple(self._warnings), []
        return warnings

    def set(
        self,
        name: str,
        directories: Iterable[Path],
        changed: Changed,
        *,
        contents: bool = False,
        unresponsive: Iterable[Path] = (),
    ) -> bool:
        """Replace the directories of the subscription ``name``. An unchanged set costs one system call per directory.

        ``changed`` is called in the loop. With ``contents``, a file that was written is a change too. A directory that
        was removed is watched again by the first call after it is back: call this method after each scan. The
        system call blocks for as long as the directory's file system does. No system call is made for a directory that
        is ``unresponsive``: it keeps the watch that it has.

        Returns:
            Whether a scan is needed, because a directory may have changed before it was watched.
        """
        if self._inotify is None and time.monotonic() >= self._next_open:
            self._open()
        previous = self._subscriptions.get(name)
        self._subscriptions[name] = _Subscription(frozenset(directories), changed, contents)
        if previous is not None:
            self._drop_unwanted(previous.directories)
        skipped = frozenset(unresponsive)
        for directory in skipped - self._descriptors.keys():
            self._refuse(directory, NOT_RESPONDING)
        responsive = self._subscriptions[name].directories - skipped
        has_news = [self._add(directory, contents=contents) for directory in responsive]
        return any(has_news)

    def close(self) -> None:
        """End all subscriptions and the thread, and close the descriptor. A second call has no effect."""
        self._subscriptions.clear()
        self._next_open = float("inf")
        if self._inotify is not None:
            inotify, self._inotify = self._inotify, None
            inotify.stop()
            inotify.join(_STOP_SECONDS)
        self._descriptors.clear()
        self._watches.clear()

    def _open(self) -> None:
        self._next_open = time.monotonic() + _RETRY_SECONDS
        try:
            inotify = InotifyFD()
        except OSError as error:
            self._failure = _reason(error)
            return
        try:
            inotify.start()
        except RuntimeError as error:
            inotify.stop()
            self._failure = f"the thread that reads the events does not start: {error}"
        else:
            self._inotify = inotify

    def _add(self, directory: Path, *, contents: bool) -> bool:
        """Watch a directory. Return whether the consumer has to scan it: it is newly watched, or newly gone."""
        if self._inotify is None:
            self._refuse(directory, self._failure)
            return False
        callback = next(self._callbacks)
        try:
            descriptor = self._add_callback(self._inotify, directory, callback, contents=contents)
        except OSError as error:
            was_unwatched = directory in self._unwatched
            self._forget(directory)
            self._refuse(directory, _reason(error))
            return not was_unwatched and self._unwatched[directory] == GONE
        self._unwatched.pop(directory, None)
        if descriptor in self._watches:
            # The kernel has one watch per directory, and this watch has a callback already.
            self._inotify.remove_callbacks([(descriptor, callback)])
        if self._descriptors.get(directory) == descriptor:
            return False
        self._forget(directory)
        self._descriptors[directory] = descriptor
        self._watches.setdefault(descriptor, _Watch(callback)).directories.add(directory)
        return True

    def _add_callback(
        self, inotify: InotifyFD, directory: Path, callback: CallbackId, *, contents: bool
    ) -> WatchDescriptor:
        """Return the kernel's watch of a directory.

        Raises:
            OSError: the directory is gone, a limit is reached, or it may not be read.
        """
        mask = _MASK_WITH_CONTENTS if contents else _MASK
        descriptor = inotify.add_callback(os.fsencode(directory), mask, self._inbox, callback)
        if descriptor < 0:
            # InotifyFD (as of 7.1.0) raises every error except EACCES.
            inotify.remove_callbacks([(descriptor, callback)])
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return descriptor

    def _refuse(self, directory: Path, reason: str) -> None:
        self._unwatched[directory] = reason
        if reason != GONE and reason not in self._warned:
            self._warned.add(reason)
            self._warnings.append(f"{directory} cannot be watched, changes in it are seen later: {reason}")

    def _drop_unwanted(self, directories: Iterable[Path]) -> None:
        """Stop watching those directories that no subscription contains."""
        wanted = frozenset().union(*(subscription.directories for subscription in self._subscriptions.values()))
        for directory in directories:
            if directory not in wanted:
                self._unwatched.pop(directory, None)
                self._forget(directory)

    def _forget(self, directory: Path) -> None:
        descriptor = self._descriptors.pop(directory, None)
        if descriptor is None:
            return
        watch = self._watches[descriptor]
        watch.directories.discard(directory)
        if not watch.directories:
            del self._watches[descriptor]
            if self._inotify is not None:
                self._inotify.remove_callbacks([(descriptor, watch.callback)])

    def _wake(self) -> None:
        # This runs in the thread. RuntimeError: the loop is closed, and nothing is left to notify.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        """Call each subscription once for each of its directories that changed."""
        by_descriptor, has_overflowed = self._inbox.take()
        changes = {
            directory: by_descriptor[descriptor]
            for descriptor in by_descriptor.keys() & self._watches.keys()
            for directory in self._watches[descriptor].directories
        }
        for directory, change in changes.items():
            if change.is_gone:
                self._forget(directory)
                self._unwatched[directory] = GONE
        # A list, because a callback may change the subscriptions.
        for subscription in list(self._subscriptions.values()):
            for directory in subscription.directories if has_overflowed else subscription.directories & changes.keys():
                names = _NO_NAMES if has_overflowed else changes[directory].names(contents=subscription.contents)
                if names is not None:
                    self._notify(subscription, directory, names)

    def _notify(self, subscription: _Subscription, directory: Path, names: frozenset[str]) -> None:
        try:
            subscription.changed(directory, names)
        except Exception as error:  # noqa: BLE001 - reported as any error in the loop; the other notices must not be lost
            self._loop.call_exception_handler({"message": f"The callback for {directory} failed", "exception": error})


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, describe_system_error(error))
