"""One node's agent: the node's side and the kubelet's side, run side by side until told to stop."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, closing

from genplug import __version__
from genplug.agent.kubelet import KubeletController
from genplug.agent.node import NodeFollower, Snapshot
from genplug.agent.settings import Settings
from genplug.hardware.host import Host
from genplug.hardware.inotify import DirectoryWatcher
from genplug.hardware.uevents import UeventListener
from genplug.kubelet.plugin_dir import PluginDirReplacedError
from genplug.observe.events import Event, EventLog, LogEvent
from genplug.observe.status import Status


class Agent:
    """Serves one node. Made and used inside a running loop; ``run`` it once."""

    def __init__(self, settings: Settings, event_log: EventLog | None = None) -> None:
        self.settings = settings
        self.event_log = event_log or EventLog()
        self.listens_on: int | None = None
        """The port of the pages, once there are any."""
        host, self._watch = Host.at(settings.root, node_name=settings.node_name), DirectoryWatcher()
        self._kubelet = KubeletController(settings, host, self._watch, self.event_log)
        self._node = NodeFollower(settings, host, self._watch, self.event_log, self._kubelet.publish)
        self._stopping = asyncio.Event()
        self.event_log.listen(self._on_log_event)

    @property
    def status(self) -> Status:
        """What people and probes are told; a frozen value, safe to ask for from another thread."""
        settings = self.settings
        return Status(
            __version__,
            settings.node_name,
            self._node.config_status,
            self._kubelet.error,
            self._kubelet.statuses(),
            self._node.health,
        )

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest truth about the node, None before the first configuration."""
        return self._node.snapshot

    def stop(self) -> None:
        """End :meth:`run` in order: streams closed, calls under way answered, own sockets removed."""
        self._stopping.set()

    def reload(self) -> None:
        """Read the configuration now (SIGHUP)."""
        self._node.reload()

    async def run(self) -> None:
        """Serve the node until :meth:`stop`.

        Raises:
            PluginDirReplacedError: the kubelet's directory was replaced on the host; only a restart helps.
            OSError: ``listen`` is an address that cannot be listened on.
        """
        settings = self.settings
        files = ", ".join(map(str, settings.config))
        facts = {"version": __version__, "root": str(settings.root), "kubelet_dir": str(settings.kubelet_dir)}
        self.event_log.emit(Event.STARTED, f"genplug {__version__} reads {files}", node=settings.node_name, **facts)
        with ExitStack() as resources:
            resources.callback(self._watch.close)
            uevents = resources.enter_context(
                closing(UeventListener(self._node.on_uevent, lambda: self._on_uevents_state_changed(uevents)))
            )
            self._node.uevents_failure = uevents.failure
            if uevents.failure:
                self.event_log.emit(Event.WATCH_DEGRADED, uevents.failure)
            if settings.listen is not None:
                resources.callback(self._listen(*settings.listen))
            try:
                async with asyncio.TaskGroup() as tasks:
                    sides = [tasks.create_task(self._node.run()), tasks.create_task(self._kubelet.run())]
                    await self._stopping.wait()
                    self.event_log.emit(Event.STOPPING, "closing streams and removing sockets")
                    for side in sides:
                        side.cancel()
            except* PluginDirReplacedError as gone:
                error = gone.exceptions[0]
                while isinstance(error, ExceptionGroup):
                    error = error.exceptions[0]
                self.event_log.emit(Event.PLUGIN_DIR_REPLACED, str(error))
                raise error from None

    def _on_uevents_state_changed(self, uevents: UeventListener) -> None:
        self._node.uevents_failure = uevents.failure
        if uevents.failure:
            self.event_log.emit(Event.WATCH_DEGRADED, uevents.failure)
        self._node.request_rescan()

    def _on_log_event(self, entry: LogEvent) -> None:
        # Allocate looks at the nodes themselves: what it refuses may be news that no event told.
        if entry.event is Event.ALLOCATION_REFUSED:
            self._node.request_rescan()

    def _listen(self, host: str, port: int) -> Callable[[], None]:
        # Imported here: an agent without pages does not pay for the metrics library.
        from genplug.observe.http import StatusServer  # noqa: PLC0415
        from genplug.observe.metrics import Metrics  # noqa: PLC0415

        pages = StatusServer(host, port, lambda: self.status, Metrics(lambda: self.status, self.event_log))
        self.listens_on = pages.port
        return pages.close
