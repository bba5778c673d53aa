"""Watches the directories on which the scans of devices depend, but for those whose file systems do not respond."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from genplug.agent.blocking_calls import BlockingCalls
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError
from genplug.hardware.inotify import DirectoryWatcher
from genplug.hardware.inventory import Inventory
from genplug.observe.events import Event, EventLog

WATCH_SECONDS = 2.0
"""Seconds after which locating the directories counts as hanging."""

PREPARE_SECONDS = 0.05
"""Seconds for which the first scan waits until its directories are watched."""

Located: TypeAlias = Mapping[Path, tuple[str, ...]]
"""Where this process sees directories of the host; several paths of the host can be the same directory."""


class DeviceWatches:
    """Watches what :meth:`follow` was given last.

    ``on_change`` gets a directory of the host and the names in it that changed, none if anything may have;
    ``on_gap`` is called when changes before a watch was added may have been missed.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it uses, and to whom it reports
        self,
        host: Host,
        watcher: DirectoryWatcher,
        calls: BlockingCalls,
        event_log: EventLog,
        on_change: Callable[[str, frozenset[str]], None],
        on_gap: Callable[[], None],
    ) -> None:
        self._host = host
        self._watcher = watcher
        self._calls = calls
        self._event_log = event_log
        self._on_change = on_change
        self._on_gap = on_gap
        self._inventory: Inventory | None = None
        self._is_complete = True
        self._prepared: Located = {}
        """The directories that are watched before their scan."""
        self._located: Located = {}
        self._cdi_directories: frozenset[str] = frozenset()
        """The directories of CDI files of the host."""
        self._is_changed = asyncio.Event()

    async def prepare(self, directories: Iterable[str]) -> None:
        """Watch directories before their first scan, which then needs no second scan for changes before the watch.

        If a directory does not respond at once, :meth:`follow` watches all of them after the scan.
        """
        located = asyncio.ensure_future(
            self._calls.run(lambda: self._resolve(directories), WATCH_SECONDS, "locating the directories of devices")
        )
        await asyncio.wait([located], timeout=PREPARE_SECONDS)
        if not located.done() or located.exception() is not None:
            located.add_done_callback(lambda late: late.cancelled() or late.exception())
            return
        self._prepared = located.result()
        self._watch_devices(self._prepared, frozenset())

    def follow(self, inventory: Inventory, *, is_complete: bool = True) -> None:
        """Watch the directories of an inventory. Call this after each scan: a directory may have been replaced.

        The directories of :meth:`prepare` are watched until an inventory is complete.
        """
        self._inventory, self._is_complete = inventory, is_complete
        self._is_changed.set()

    async def run(self) -> None:
        """Keep the watches up to date until cancelled."""
        while True:
            await self._is_changed.wait()
            self._is_changed.clear()
            if self._inventory is not None:
                await self._update(self._inventory)

    async def _update(self, inventory: Inventory) -> None:
        try:
            located, attributes, unresponsive = await self._calls.run(
                lambda: self._locate(inventory), WATCH_SECONDS, "locating the directories of devices"
            )
        except HangError:
            # The path that hangs is known now: the next attempt leaves it out.
            self._is_changed.set()
            await asyncio.sleep(WATCH_SECONDS)
            return

        if self._is_complete:
            self._prepared = {}
        located = {**self._prepared, **located}
        self._located = {**attributes, **located}
        # A CDI file can be written in place.
        cdi_directories = {
            path for path, directories in located.items() if not self._cdi_directories.isdisjoint(directories)
        }
        self._watcher.set(
            "CDI files",
            cdi_directories,
            self._report_changes_in(located),
            contents=True,
            unresponsive=unresponsive & cdi_directories,
        )
        has_gap = self._watch_devices(located, unresponsive & located.keys())
        # A file of an attribute can be written in place.
        has_gap |= self._watcher.set(
            "attributes",
            attributes,
            self._report_changes_in(attributes),
            contents=True,
            unresponsive=unresponsive & attributes.keys(),
        )
        if has_gap:
            self._on_gap()
        for warning in self._watcher.take_warnings():
            self._event_log.emit(Event.WATCH_DEGRADED, warning)

    def _watch_devices(self, located: Located, unresponsive: AbstractSet[Path]) -> bool:
        """Watch the directories of devices; return whether changes may have been missed."""
        return self._watcher.set(
            "devices",
            located,
            self._report_changes_in(located),
            # A stand-in for a device node gets its text after it is created; a real device node is complete at once.
            contents=self._host.stand_ins,
            unresponsive=unresponsive,
        )

    def _report_changes_in(self, located: Located) -> Callable[[Path, frozenset[str]], None]:
        """Return a callback for changes in these directories, which reports the directories of the host."""

        def on_change(directory: Path, names: frozenset[str]) -> None:
            for host_directory in located[directory]:
                self._on_change(host_directory, names)

        return on_change

    def _resolve(self, directories: Iterable[str]) -> Located:
        """Return where this process sees the existing ones of some directories. For a thread."""
        resolved = {found for directory in directories if (found := self._host.resolve(directory)) is not None}
        watched = self._host.select_with_inotify(resolved)
        return _group_by_path((self._host.process_path(directory), directory) for directory in watched)

    def _locate(self, inventory: Inventory) -> tuple[Located, Located, frozenset[Path]]:
        """Return where this process sees each directory of devices and of attributes, and which do not respond.

        For a thread. A directory that responds now can be watched without blocking.
        """
        previous = {directory: path for path, directories in self._located.items() for directory in directories}
        unresponsive: set[Path] = set()
        with suppress(HangError):
            infos = [self._host.stat(directory) for directory in self._host.cdi_dirs]
            self._cdi_directories = frozenset(info.resolved for info in infos if info is not None)

        def locate(directories: Iterable[str], find: Callable[[str], str]) -> Located:
            found: list[tuple[Path, str]] = []
            for directory in self._host.select_with_inotify(directories):
                try:
                    existing = find(directory)
                    found.append((self._host.process_path(existing), existing))
                except HangError:
                    if (path := previous.get(directory)) is not None:
                        found.append((path, directory))
                        unresponsive.add(path)
            return _group_by_path(found)

        devices = locate(inventory.directories, lambda directory: directory)
        attributes = locate(inventory.directories_of_attributes, self._find_existing)
        return devices, attributes, frozenset(unresponsive)

    def _find_existing(self, directory: str) -> str:
        """Return a directory of the host, or its nearest parent that exists."""
        while directory not in {"", "/"} and self._host.resolve(directory) is None:
            directory = directory.rpartition("/")[0]
        return directory or "/"


def _group_by_path(located: Iterable[tuple[Path, str]]) -> Located:
    """Return the directories of the host by the path at which this process sees them."""
    grouped: dict[Path, set[str]] = {}
    for path, directory in located:
        grouped.setdefault(path, set()).add(directory)
    return {path: tuple(sorted(directories)) for path, directories in grouped.items()}
