"""Watches the directories on which the scans of devices depend, but for those whose file systems do not respond."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from genplug.agent.blocking_calls import BlockingCalls
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError
from genplug.hardware.inotify import DirectoryWatcher
from genplug.hardware.inventory import Inventory
from genplug.observe.events import Event, EventLog

WATCH_SECONDS = 2.0
"""Seconds after which locating the directories counts as hanging."""


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
        self._located: Mapping[Path, str] = {}
        self._cdi_directories: frozenset[str] = frozenset()
        """The directories of CDI files of the host."""
        self._is_changed = asyncio.Event()

    def follow(self, inventory: Inventory) -> None:
        """Watch the directories of an inventory. Call this after each scan: a directory may have been replaced."""
        self._inventory = inventory
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
            located, unresponsive = await self._calls.run(
                lambda: self._locate(inventory), WATCH_SECONDS, "locating the directories of devices"
            )
        except HangError:
            # The path that hangs is known now: the next attempt leaves it out.
            self._is_changed.set()
            await asyncio.sleep(WATCH_SECONDS)
            return

        self._located = located

        def on_change(directory: Path, names: frozenset[str]) -> None:
            self._on_change(located[directory], names)

        # A CDI file can be written in place.
        cdi_directories = {path for path, directory in located.items() if directory in self._cdi_directories}
        self._watcher.set(
            "CDI files", cdi_directories, on_change, contents=True, unresponsive=unresponsive & cdi_directories
        )
        # A stand-in for a device node gets its text after it is created; a real device node is complete at once.
        contents = self._host.stand_ins
        if self._watcher.set("devices", located, on_change, contents=contents, unresponsive=unresponsive):
            self._on_gap()
        for warning in self._watcher.take_warnings():
            self._event_log.emit(Event.WATCH_DEGRADED, warning)

    def _locate(self, inventory: Inventory) -> tuple[Mapping[Path, str], frozenset[Path]]:
        """Return where this process sees each directory, and which of them do not respond. For a thread.

        A directory that responds now can be watched without blocking.
        """
        previous = {directory: path for path, directory in self._located.items()}
        located: dict[Path, str] = {}
        unresponsive: set[Path] = set()
        with suppress(HangError):
            infos = [self._host.stat(directory) for directory in self._host.cdi_dirs]
            self._cdi_directories = frozenset(info.resolved for info in infos if info is not None)
        for directory in inventory.directories | inventory.directories_of_attributes:
            try:
                if self._host.supports_inotify(directory):
                    located[self._host.process_path(directory)] = directory
            except HangError:
                if (path := previous.get(directory)) is not None:
                    located[path] = directory
                    unresponsive.add(path)
        return located, frozenset(unresponsive)
