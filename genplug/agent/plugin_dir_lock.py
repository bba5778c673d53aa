"""Waits until the device-plugins directory of the kubelet can be used by this process alone, and locks it."""

import asyncio

from genplug.agent.settings import Settings
from genplug.kubelet.plugin_dir import PluginDir, PluginDirReplacedError, PluginDirUnusableError
from genplug.observe.events import Event, EventLog
from genplug.spec.denials import describe_system_error

LOCK_INTERVAL_SECONDS = 1.0
"""Seconds between two attempts to use a directory that is missing or not usable, or that another process has locked."""


class PluginDirLock:
    """Acquires the directory. ``error`` says what it waits for, empty once the directory is acquired."""

    def __init__(self, settings: Settings, event_log: EventLog) -> None:
        self.error = f"{settings.plugins_dir} has not been opened yet"
        self._settings = settings
        self._event_log = event_log

    def __repr__(self) -> str:
        return f"<PluginDirLock [{self.error or 'acquired'}]>"

    async def acquire(self) -> PluginDir:
        """Return the directory once it is usable and locked by this process."""
        while True:
            try:
                directory = PluginDir(self._settings.plugins_dir)
            except PluginDirUnusableError as error:
                await self._wait(Event.PLUGIN_DIR_UNUSABLE, str(error))
                continue
            if await self._lock(directory):
                self.error = ""
                return directory
            directory.close()

    async def _lock(self, directory: PluginDir) -> bool:
        """Return whether the directory is locked; wait before the next attempt if it is not."""
        path = self._settings.plugins_dir
        try:
            directory.check_writable()
            if directory.lock():
                leftovers = directory.remove_leftovers()
                self._event_log.emit(Event.PLUGIN_DIR_ACQUIRED, f"{path} is locked", leftovers=leftovers)
                return True
        except PluginDirUnusableError as error:
            await self._wait(Event.PLUGIN_DIR_UNUSABLE, str(error))
        except OSError as error:
            text = f"{path} cannot be locked: {describe_system_error(error)}"
            await self._wait(Event.PLUGIN_DIR_UNUSABLE, text)
        except PluginDirReplacedError:
            # The next attempt opens the new directory.
            pass
        else:
            text = f"another genplug process serves {path}; waiting for it to exit, because only one can"
            await self._wait(Event.PLUGIN_DIR_LOCKED, text)
        return False

    async def _wait(self, event: Event, error: str) -> None:
        if error != self.error:
            self.error = error
            self._event_log.emit(event, error)
        await asyncio.sleep(min(LOCK_INTERVAL_SECONDS, self._settings.poll_seconds))
