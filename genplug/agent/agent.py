"""The agent of one node: connects its tasks, and runs them concurrently until it is stopped.

The tasks exchange frozen values: the configuration reloader submits configurations to the device scanner, which submits
scans to the reconciler, which publishes snapshots to the kubelet controller. A task that waits for a file system or
fails stops no other task.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from itertools import chain
from typing import TYPE_CHECKING

from genplug import __version__
from genplug.agent.config_reloader import ConfigReloader
from genplug.agent.device_scanner import DeviceScanner
from genplug.agent.device_usage import DeviceUsage
from genplug.agent.kubelet_controller import KubeletController
from genplug.agent.reconciler import Reconciler
from genplug.agent.settings import Settings
from genplug.agent.snapshot import Snapshot
from genplug.agent.supervision import Supervised
from genplug.agent.usage_poller import UsagePoller
from genplug.error_groups import unwrap_error_group
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from genplug.hardware.inotify import DirectoryWatcher
from genplug.hardware.uevents import Uevent, UeventListener, affected_paths
from genplug.kubelet.plugin_dir import PluginDirReplacedError
from genplug.kubelet.reports import ClaimUse, DeviceUse
from genplug.observe.events import Event, EventLog, LogEvent
from genplug.observe.status import Status
from genplug.observe.status_builder import build_scan_statuses
from genplug.spec.denials import describe_system_error
from genplug.spec.model import Config
from genplug.spec.printable import escape_line

if TYPE_CHECKING:
    from genplug.agent.audit_recorder import AuditRecorder


class ListenError(Exception):
    """The agent cannot listen on its address; the text is the reason of the system."""


class Agent:
    """Serves one node. It is created and used in a running event loop; call ``run`` once."""

    def __init__(self, settings: Settings, event_log: EventLog | None = None) -> None:
        self.settings = settings
        self.event_log = event_log or EventLog()
        self.http_port: int | None = None
        """The port of the HTTP endpoints while they are served."""
        paths = HungPaths()
        host = Host.at(
            settings.root, node_name=settings.node_name, recorder=paths.record, cdi_dirs=settings.cdi_search_dirs
        )
        self._watcher = DirectoryWatcher()
        self._uevents_failure = ""
        """The reason why uevents are not received, empty if they are received."""
        self._kubelet = KubeletController(settings, host, paths, self._watcher, self.event_log)
        self._reconciler = Reconciler(host, self.event_log, self._publish, lambda: self._uevents_failure)
        self._reloader = ConfigReloader(settings, self._watcher, self.event_log, self._submit_config)
        self._scanner = DeviceScanner(
            settings,
            host,
            paths,
            self._watcher,
            self.event_log,
            publish=self._reconciler.submit,
            accept=self._reloader.accept,
            reject=self._reloader.reject,
            ask_usage=lambda is_urgent: self._usage_poller.ask(is_urgent=is_urgent),
            wait_usage=self._wait_first_usage,
        )
        self._kubelet.listen_to_allocations(self._on_allocation)
        self._kubelet.driver.hooks.on_prepared = self._on_prepared
        self._kubelet.driver.hooks.on_reserved = self._scanner.record_allocation
        self._kubelet.driver.hooks.on_restored = self._submit_usage
        self._usage_poller = UsagePoller(settings, self.event_log, self._on_usage)
        self._unsubmitted_usage: tuple[Mapping[str, Iterable[str]], float] | None = None
        """The newest report of the kubelet, until the claims of earlier processes are known."""
        self._audit = self._create_audit_recorder(host, paths)
        audit = (Supervised("audit recorder", self._audit.run, self.event_log),) if self._audit is not None else ()
        self._supervised = (
            Supervised("configuration reloader", self._reloader.run, self.event_log),
            Supervised("device scanner", self._scanner.run, self.event_log),
            Supervised("device watches", self._scanner.watches.run, self.event_log),
            Supervised("usage poller", self._usage_poller.run, self.event_log),
            Supervised("reconciler", self._reconciler.run, self.event_log),
            Supervised("probe monitor", self._reconciler.run_monitor, self.event_log),
            *audit,
        )
        self._usage = DeviceUsage(settings.pod_resources)
        self._controller = Supervised(
            "kubelet controller", self._kubelet.run, self.event_log, fatal=(PluginDirReplacedError,)
        )
        self._stopping = asyncio.Event()
        self.event_log.listen(self._on_log_event)
        if self._audit is not None:
            self.event_log.listen(self._audit.on_event)

    @property
    def status(self) -> Status:
        """The status of the agent: a frozen value that any thread may read."""
        settings, snapshot = self.settings, self.snapshot
        dra = self._kubelet.driver.status
        return Status(
            __version__,
            settings.node_name,
            self._reloader.status,
            self._kubelet.error,
            self._usage.apply(self._kubelet.statuses(), dra),
            self._reconciler.monitor_status,
            build_scan_statuses(snapshot.config, snapshot.inventory) if snapshot is not None else (),
            (
                *(task.failure for task in (*self._supervised, self._controller) if task.failure),
                *self._kubelet.failures,
            ),
            (*self._watcher.degradations, *filter(None, (self._uevents_failure,))),
            self._audit.status if self._audit is not None else None,
            self._usage.apply_claims(dra),
        )

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot of the node, or None before the first configuration."""
        return self._reconciler.snapshot

    def stop(self) -> None:
        """End :meth:`run`: close the streams, finish the calls in progress, and remove the sockets."""
        self._stopping.set()

    def release_plugin_dir(self) -> None:
        """Remove the sockets and release the lock without the event loop; a process calls this before it exits."""
        self._kubelet.release_directory()

    def reload(self) -> None:
        """Read the configuration and scan for devices now (SIGHUP)."""
        self._reloader.reload()
        self._scanner.request_rescan()

    async def run(self) -> None:
        """Serve the node until :meth:`stop`.

        Raises:
            PluginDirReplacedError: the kubelet's directory was replaced on the host; the process has to restart.
            ListenError: the agent cannot listen on ``listen``.
        """
        settings = self.settings
        files = ", ".join(map(str, settings.config))
        facts = {"version": __version__, "root": str(settings.root), "kubelet_dir": str(settings.kubelet_dir)}
        self.event_log.emit(Event.STARTED, f"genplug {__version__} reads {files}", node=settings.node_name, **facts)
        with ExitStack() as resources:
            resources.callback(self._watcher.close)
            if self._audit is not None:
                self._audit.start()
                resources.callback(self._audit.stop)
            uevents = resources.enter_context(
                closing(UeventListener(self._on_uevent, lambda: self._on_uevents_state_changed(uevents)))
            )
            self._uevents_failure = uevents.failure
            if uevents.failure:
                self.event_log.emit(Event.WATCH_DEGRADED, uevents.failure)
            if settings.listen is not None:
                resources.callback(self._listen(*settings.listen))
            try:
                with unwrap_error_group(PluginDirReplacedError):
                    await self._run_tasks()
            except PluginDirReplacedError as error:
                self.event_log.emit(Event.PLUGIN_DIR_REPLACED, str(error))
                raise

    async def _run_tasks(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(task.run(), name=task.name) for task in self._supervised]
            running.append(tasks.create_task(self._controller.run(), name=self._controller.name))
            await self._stopping.wait()
            self.event_log.emit(Event.STOPPING, "closing streams and removing sockets")
            for task in running:
                task.cancel()

    def _publish(self, snapshot: Snapshot, previous: Snapshot | None) -> None:
        self._kubelet.publish(snapshot, previous)
        if self._audit is not None:
            self._audit.on_snapshot(snapshot, previous)

    def _submit_config(self, config: Config) -> None:
        self._reconciler.prepare(config)
        self._scanner.submit(config)

    def _on_usage(self, used: Mapping[str, Iterable[str]], requested_at: float) -> None:
        """Submit the IDs that pods use, by the device plugin API and by claims."""
        self._unsubmitted_usage = used, requested_at
        if self._kubelet.driver.is_restored:
            self._submit_usage()

    def _submit_usage(self) -> None:
        if self._unsubmitted_usage is None:
            return
        (used, requested_at), self._unsubmitted_usage = self._unsubmitted_usage, None
        claimed = self._kubelet.driver.list_held()
        merged = {name: {*used.get(name, ()), *claimed.get(name, ())} for name in used.keys() | claimed.keys()}
        self._scanner.on_usage(merged, requested_at)

    async def _wait_first_usage(self) -> None:
        await self._usage_poller.wait_first_poll()

    def _on_uevent(self, event: Uevent) -> None:
        self._scanner.on_paths_changed(affected_paths(event))
        self._reconciler.on_uevent(event)

    def _on_uevents_state_changed(self, uevents: UeventListener) -> None:
        self._uevents_failure = uevents.failure
        if uevents.failure:
            self.event_log.emit(Event.WATCH_DEGRADED, uevents.failure)
        self._scanner.request_rescan()

    def _on_allocation(self, resource: str, ids: Iterable[str]) -> None:
        self._scanner.record_allocation(resource, ids)
        self._usage.expire()
        if self._audit is not None:
            self._audit.on_allocation(resource, ids)

    def _on_log_event(self, entry: LogEvent) -> None:
        # Allocate checks the device nodes again: a refusal can be due to a change without an event.
        if entry.event is Event.ALLOCATION_REFUSED:
            self._scanner.request_rescan()

    def _create_audit_recorder(self, host: Host, paths: HungPaths) -> "AuditRecorder | None":
        if self.settings.audit_dir is None:
            return None
        # Imported here: an agent without an audit log does not load its modules.
        from genplug.agent.audit_recorder import AuditRecorder  # noqa: PLC0415

        return AuditRecorder(
            self.settings, host, paths, self.event_log, lambda: self._reloader.active, self._find_claimed
        )

    def _find_claimed(self, uses: Iterable[ClaimUse]) -> Iterable[DeviceUse]:
        """Return the devices of claims that containers use."""
        dra = self._kubelet.driver.status
        return () if dra is None else chain.from_iterable(dra.list_device_uses(uses).values())

    def _on_prepared(self, resource: str, ids: Iterable[str]) -> None:
        # The scanner has recorded them since they were reserved.
        self._usage.expire()
        if self._audit is not None:
            self._audit.on_allocation(resource, ids)

    def _listen(self, host: str, port: int) -> Callable[[], None]:
        # Imported here: an agent without HTTP endpoints does not load the metrics library.
        from genplug.observe.http import StatusServer, StatusSource  # noqa: PLC0415
        from genplug.observe.metrics import Metrics  # noqa: PLC0415

        history = self._kubelet.health_history
        source = StatusSource(lambda: self.status, self._usage.refresh, history.entries)
        metrics = Metrics(lambda: self.status, self.event_log)
        self._kubelet.driver.hooks.count_request = metrics.count_api_request
        try:
            server = StatusServer(host, port, source, metrics, self._report_http_failure)
        except OSError as error:
            raise ListenError(describe_system_error(error)) from error
        self.event_log.listen(lambda _: server.mark_changed())
        self.http_port = server.port
        return server.close

    def _report_http_failure(self, path: str, error: Exception) -> None:
        text = f"the response to a request for {escape_line(path)} failed: {error!r}. This is an internal error"
        self.event_log.emit_failure(f"{text}; please report it", error)
