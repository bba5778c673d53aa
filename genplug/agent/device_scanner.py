"""Scans the node for devices when something changes, and hands each new inventory to the reconciler.

Every resource is scanned by a job of its own. A resource whose scan hangs keeps its last known devices and delays no
other resource.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.debounce import ScanTimer
from genplug.agent.device_watches import DeviceWatches
from genplug.agent.pending_changes import EVERYTHING, PendingChanges, ScanRelevance
from genplug.agent.scan_job import STUCK_SECONDS, ScanJob, keep_last_known
from genplug.agent.settings import Settings
from genplug.agent.snapshot import NodeScan
from genplug.agent.wakeup import Wakeup
from genplug.hardware.dependencies import Changes
from genplug.hardware.discovery import build_inventory, select_scans
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from genplug.hardware.inotify import DirectoryWatcher
from genplug.hardware.inventory import Inventory, ResourceScan
from genplug.observe.events import EventLog
from genplug.spec.model import Config

HANDOVER_SECONDS = 0.02
"""Seconds after which the next resource is scanned beside one whose scan has not finished."""


class DeviceScanner:
    """Follows the devices of the newest submitted configuration.

    ``publish`` gets each new scan, ``accept`` each submitted configuration that is scanned from now on, and ``reject``
    each that is not, with the reason.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it uses, and to whom it reports
        self,
        settings: Settings,
        host: Host,
        paths: HungPaths,
        watcher: DirectoryWatcher,
        event_log: EventLog,
        publish: Callable[[NodeScan], None],
        accept: Callable[[Config], None],
        reject: Callable[[Config, str], None],
    ) -> None:
        self._settings = settings
        self._host = host
        self._event_log = event_log
        self._publish, self._accept, self._reject = publish, accept, reject
        self._calls = BlockingCalls(paths, on_return=self._rescan_stalled)
        self.watches = DeviceWatches(host, watcher, self._calls, event_log, self.on_change, self.request_rescan)
        self._submitted: Config | None = None
        self._config: Config | None = None
        self._scans: dict[str, ResourceScan] = {}
        self._inventory: Inventory | None = None
        self._jobs: dict[str, ScanJob] = {}
        self._overdue: set[str] = set()
        """Resources to scan again in full as soon as no job of theirs runs."""
        self._changes = PendingChanges()
        self._relevance = ScanRelevance(())
        self._timer = ScanTimer(fallback_due=float("inf"))
        self._wakeup = Wakeup()

    def __repr__(self) -> str:
        config = self._config.sha256[:12] if self._config else "none"
        return f"<DeviceScanner [config: {config} | jobs: {list(self._jobs.values())} | {self._calls!r}]>"

    def submit(self, config: Config) -> None:
        """Scan for the devices of a configuration from now on."""
        self._submitted = config
        self._wakeup.set()

    def request_rescan(self) -> None:
        """Scan every resource soon: something may have changed without an event."""
        self._changes = EVERYTHING
        self._schedule()

    def on_change(self, directory: str, names: frozenset[str]) -> None:
        """Record that names in a directory of the host changed; without names anything may have changed there."""
        self._changes = self._changes.add(directory, names)
        self._schedule()

    def on_paths_changed(self, changes: Changes) -> None:
        """Record changes that a uevent reports; most of them do not concern any device."""
        if self._relevance.is_affected(changes):
            for directory, names in changes.items():
                self.on_change(directory, names)

    async def run(self) -> None:
        """Follow the devices until cancelled."""
        self._discard_jobs(self._jobs)
        if self._config is not None:
            self.request_rescan()
        while True:
            await self._step(time.monotonic())
            due = self._timer.next if self._config is not None else float("inf")
            await self._wakeup.sleep_until(0.0 if self._submitted is not None else due)

    async def _step(self, now: float) -> None:
        if self._submitted is not None:
            config, self._submitted = self._submitted, None
            try:
                await self._try_config(config)
            except Exception as error:
                self._reject(config, f"it cannot be scanned for, by an internal error: {error!r}")
                raise
        elif self._config is not None and self._timer.next <= now:
            await self._scan(self._config, is_full=self._timer.fallback_due <= now)
        elif self._config is not None and self._collect(self._scans, self._jobs.keys()):
            self._timer = self._timer.after_scan(now, has_found=self._publish_scans(self._config))
            self._schedule_pending()

    async def _try_config(self, config: Config) -> None:
        """Scan for a configuration; make it active unless it brings new conflicts between its resources."""
        self._collect(self._scans, self._jobs.keys())
        scans = {name: self._scans[name] for name in config.resources if name in self._scans}
        # Events report what changes for resources that are selected as before: only the others are scanned.
        selected = select_scans(config, scans, {})
        await self._start_jobs(config, selected)
        await self._settle([self._jobs[name] for name in selected])
        self._collect(scans, selected.keys())
        for name in selected.keys() & self._jobs.keys() & scans.keys():
            if scans[name].resource.policy != config.resources[name].policy:
                # A changed policy counts at once, also while the scan is not finished.
                reason = "its scan under the changed policy has not finished"
                scans[name] = keep_last_known(config.resources[name], scans[name], reason)
        conflicts = _new_conflicts(self._inventory, build_inventory(config, scans, self._inventory))
        # A policy is applied even if it brings conflicts.
        if conflicts and self._config is not None and config.sha256 != self._config.sha256:
            self._discard_jobs(selected.keys())
            self._overdue |= selected.keys() & self._config.resources.keys()
            self._start_overdue()
            self._reject(config, "\n".join(conflicts))
            return
        self._discard_jobs(self._jobs.keys() - config.resources.keys())
        self._config, self._scans = config, scans
        # The next change is published at once: it is not part of a burst.
        self._timer = self._timer.after_full_scan(time.monotonic(), self._settings.rescan, has_found=False)
        self._schedule_pending()
        self._publish_scans(config, is_forced=True)
        self._accept(config)

    async def _scan(self, config: Config, *, is_full: bool) -> None:
        changes = None if is_full else self._changes.limit
        self._changes = PendingChanges()
        await self._start_jobs(config, select_scans(config, self._scans, changes))
        self._collect(self._scans, self._jobs.keys())
        has_found = self._publish_scans(config)
        now = time.monotonic()
        if changes is None:
            self._timer = self._timer.after_full_scan(now, self._settings.rescan, has_found=has_found)
        else:
            self._timer = self._timer.after_scan(now, has_found=has_found)
        self._schedule_pending()

    async def _start_jobs(self, config: Config, selected: Mapping[str, Changes | None]) -> None:
        """Start a job for each resource; the next one starts when the previous one is done, or takes long."""
        host = self._host.cached()
        for name, changes in selected.items():
            job = self._jobs.get(name)
            if job is not None and job.resource == config.resources[name]:
                self._overdue.add(name)
                continue
            if job is not None:
                job.cancel()
            await self._start_job(config, name, host, changes).wait(HANDOVER_SECONDS)

    def _start_job(self, config: Config, name: str, host: Host, changes: Changes | None = None) -> ScanJob:
        job = ScanJob(config.resources[name], self._scans.get(name), host, self._calls, changes)
        job.task.add_done_callback(lambda _: self._wakeup.set())
        self._jobs[name] = job
        return job

    async def _settle(self, jobs: Iterable[ScanJob]) -> None:
        """Wait until every job is done, or stays in one file operation for long."""
        while running := [job for job in jobs if not job.task.done()]:
            if all(job.is_stuck(time.monotonic()) for job in running):
                return
            await asyncio.wait([job.task for job in running], timeout=STUCK_SECONDS / 2)

    def _collect(self, scans: dict[str, ResourceScan], names: Iterable[str]) -> bool:
        """Move the results of finished jobs to ``scans``; return whether there were any."""
        finished = [name for name in names if name in self._jobs and self._jobs[name].task.done()]
        for name in finished:
            scans[name] = self._result(self._jobs.pop(name))
        self._start_overdue()
        return bool(finished)

    def _discard_jobs(self, names: Iterable[str]) -> None:
        for name in tuple(names):
            if (job := self._jobs.pop(name, None)) is not None:
                job.cancel()

    def _result(self, job: ScanJob) -> ResourceScan:
        try:
            return job.task.result()
        except Exception as error:  # noqa: BLE001 - an internal error must not keep the other resources from being scanned
            reason = f"its scan failed by an internal error: {error!r}"
            name = job.resource.name
            self._event_log.emit_failure(f"{name}: {reason}; please report it", error, resource=name)
            return keep_last_known(job.resource, job.previous, reason)

    def _start_overdue(self) -> None:
        ready = [name for name in self._overdue if name not in self._jobs]
        self._overdue -= set(ready)
        for name in ready:
            if self._config is not None and name in self._config.resources:
                self._start_job(self._config, name, self._host.cached())

    def _publish_scans(self, config: Config, *, is_forced: bool = False) -> bool:
        """Publish the inventory if it has changed; return whether it was published."""
        self._relevance = ScanRelevance(self._scans.values())
        inventory = build_inventory(config, self._scans, self._inventory)
        is_changed = is_forced or inventory != self._inventory
        if is_changed:
            self._inventory = inventory
            self._publish(NodeScan(config, inventory))
        self.watches.follow(inventory)
        return is_changed

    def _schedule(self) -> None:
        if self._config is not None:
            self._timer = self._timer.after_event(time.monotonic())
            self._wakeup.set()

    def _schedule_pending(self) -> None:
        if self._changes:
            self._schedule()

    def _rescan_stalled(self) -> None:
        """Scan again what a file operation kept from being examined that has returned."""
        self._overdue |= {name for name, scan in self._scans.items() if scan.stalls}
        self._start_overdue()
        self._wakeup.set()


def _new_conflicts(previous: Inventory | None, inventory: Inventory) -> list[str]:
    """Return the conflicts on device nodes that the previous inventory did not have; none without one."""
    if previous is None:
        return []
    known = {conflict.path for conflict in previous.conflicts}
    return [conflict.message for conflict in inventory.conflicts if conflict.path not in known]
