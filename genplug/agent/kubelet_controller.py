"""Serves the newest snapshot to the kubelet, and locks and watches its device-plugins directory."""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from genplug.agent.driver import DriverFollower
from genplug.agent.offers import Offers
from genplug.agent.plugin_dir_lock import PluginDirLock
from genplug.agent.settings import Settings
from genplug.agent.snapshot import Snapshot
from genplug.agent.supervision import Supervised
from genplug.agent.wakeup import Wakeup
from genplug.error_groups import first_error
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from genplug.hardware.inotify import DirectoryWatcher
from genplug.kubelet.plugin_dir import (
    KUBELET_SOCKET,
    SOCKET_PREFIX,
    PluginDir,
    PluginDirListing,
    PluginDirReplacedError,
    PluginDirUnusableError,
)
from genplug.kubelet.registration import Registrar
from genplug.observe.events import Event, EventLog
from genplug.observe.health_history import HealthHistory
from genplug.observe.messages import log_device_changes
from genplug.observe.status import ResourceStatus

RETRY_SECONDS = 1.0
"""Seconds before the directory is listed again after the system could not list it."""


class KubeletController:
    """Follows the kubelet's directory and serves the published snapshots. A task group owns all endpoints."""

    def __init__(
        self, settings: Settings, host: Host, paths: HungPaths, watcher: DirectoryWatcher, event_log: EventLog
    ) -> None:
        self._settings = settings
        self._watcher = watcher
        self._event_log = event_log
        self._offers = Offers(settings, host, paths, event_log)
        self._lock = PluginDirLock(settings, event_log)
        self._supervised = (
            Supervised("alias pools", self._offers.pools.run, event_log),
            Supervised("CDI writer", self._offers.cdi.run, event_log),
            Supervised("driver of Dynamic Resource Allocation", self.driver.run, event_log),
        )
        self._directory: PluginDir | None = None
        self._directory_error = ""
        """The reason why the directory cannot be listed, empty if it can be."""
        self._kubelet_error = ""
        self._listing: PluginDirListing | None = None
        self._wakeup = Wakeup()

    def __repr__(self) -> str:
        return f"<KubeletController [{self.error or 'serving'} | {self._offers!r}]>"

    @property
    def error(self) -> str:
        """The reason why the controller waits for the kubelet's directory, empty if it does not wait."""
        return self._lock.error or self.driver.error or self._directory_error or self._kubelet_error

    @property
    def failures(self) -> tuple[str, ...]:
        """The tasks that failed by an internal error and are started again."""
        return (*(task.failure for task in self._supervised if task.failure), *self.driver.failures)

    @property
    def driver(self) -> DriverFollower:
        """The follower of the resources that Dynamic Resource Allocation serves."""
        return self._offers.driver

    def listen_to_allocations(self, listener: Callable[[str, Iterable[str]], None]) -> None:
        """Call a listener with the resource and the device IDs of each allocation, before its response is sent."""
        self._offers.on_allocation = listener

    def statuses(self) -> tuple[ResourceStatus, ...]:
        """Return the status of every resource, including removed resources that wait for their last pod."""
        return self._offers.statuses()

    @property
    def health_history(self) -> HealthHistory:
        """The health of the devices over the last hour; it is recorded for the HTTP endpoints only."""
        return self._offers.health_history

    def publish(self, snapshot: Snapshot, previous: Snapshot | None) -> None:
        """Update the endpoints to a snapshot; only differences from the previous snapshot have an effect."""
        log_device_changes(self._event_log, previous.health if previous else None, snapshot.health)
        self._offers.update(snapshot)

    async def run(self) -> None:
        """Serve until cancelled; then end every endpoint in order.

        Raises:
            PluginDirReplacedError: the directory was replaced on the host, so that no kubelet sees the sockets.
        """
        self._listing, self._directory_error, self._kubelet_error = None, "", ""
        directory = self._directory = await self._lock.acquire()
        try:
            await self.driver.restore()
            async with asyncio.TaskGroup() as tasks:
                self._offers.endpoints.start(tasks, Registrar(directory.path))
                running = [tasks.create_task(task.run(), name=task.name) for task in self._supervised]
                try:
                    await self._follow_directory(directory)
                finally:
                    for task in running:
                        task.cancel()
        except BaseExceptionGroup as group:
            replaced, _ = group.split(PluginDirReplacedError)
            if replaced is None:
                raise
            # The supervision of this task needs the error without its group.
            raise first_error(replaced) from None
        finally:
            directory.close()
            self._offers.allocation_log.flush()
        # The directory is followed until this task is cancelled.
        raise asyncio.CancelledError

    def release_directory(self) -> None:
        """Remove the sockets and release the lock of the directory. A thread can call this while the loop hangs."""
        if (directory := self._directory) is not None:
            with suppress(OSError, PluginDirReplacedError, PluginDirUnusableError):
                directory.remove_leftovers()
            directory.close()

    async def _follow_directory(self, directory: PluginDir) -> None:
        self._watcher.set("kubelet", {directory.path}, self._on_directory_change, contents=False)
        try:
            while True:
                interval = self._settings.poll_seconds
                try:
                    listing = directory.list_sockets()
                except PluginDirUnusableError as error:
                    # The endpoints continue: their streams do not depend on the directory.
                    self._on_unusable_directory(str(error))
                    interval = min(RETRY_SECONDS, interval)
                else:
                    self._on_directory_listing(listing)
                await self._wakeup.sleep_until(time.monotonic() + interval)
        except asyncio.CancelledError:
            # The task group waits for the endpoints: streams are closed, calls in progress answered, sockets removed.
            self._offers.endpoints.stop()

    def _on_directory_change(self, _directory: Path, names: frozenset[str]) -> None:
        # The kubelet also rewrites its checkpoint here on every list and allocation. No names mean lost events.
        if not names or any(name == KUBELET_SOCKET or name.startswith(SOCKET_PREFIX) for name in names):
            self._wakeup.set()

    def _on_unusable_directory(self, error: str) -> None:
        if error != self._directory_error:
            self._directory_error = error
            self._event_log.emit(Event.PLUGIN_DIR_UNUSABLE, error)

    def _on_directory_listing(self, listing: PluginDirListing) -> None:
        if self._directory_error:
            self._directory_error = ""
            self._event_log.emit(Event.SYSTEM_RECOVERED, f"{self._settings.plugins_dir} can be listed again")
        previous, self._listing = self._listing, listing
        if listing.kubelet is None:
            if previous is None or previous.kubelet is not None:
                path = self._settings.plugins_dir / KUBELET_SOCKET
                self._kubelet_error = (
                    f"{path} does not exist. Check that the kubelet runs, and that --device-plugins-dir is the "
                    "directory of its socket (in the chart: daemonset.devicePluginsDir)"
                )
                self._event_log.emit(Event.KUBELET_SOCKET_MISSING, f"{self._kubelet_error}. Waiting for it")
        else:
            self._kubelet_error = ""
            if previous is not None and previous.kubelet != listing.kubelet:
                self._event_log.emit(Event.KUBELET_RESTARTED, "kubelet.sock was replaced: a kubelet started")
        self._offers.endpoints.on_directory_listing(listing)
