"""Scans the node for devices when something changes, and hands each new inventory to the reconciler.

Every resource is scanned by a job of its own. A resource whose scan hangs keeps its last known devices and delays no
other resource.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from itertools import takewhile

from genplug.agent.alias_pools import GRACE_POLLS
from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.debounce import SCAN_BUDGET, ScanTimer, SettleTimer
from genplug.agent.device_watches import DeviceWatches
from genplug.agent.pending_changes import EVERYTHING, PendingChanges, ScanRelevance
from genplug.agent.scan_job import keep_last_known
from genplug.agent.scan_jobs import ScanJobs
from genplug.agent.settings import Settings
from genplug.agent.snapshot import NodeScan
from genplug.agent.wakeup import Wakeup
from genplug.hardware.dependencies import Changes
from genplug.hardware.device_ids import device_of_grant
from genplug.hardware.discovery import build_inventory, select_scans
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError, HungPaths
from genplug.hardware.inotify import DirectoryWatcher
from genplug.hardware.inventory import Inventory, ResourceScan
from genplug.hardware.ledger import AllocatedGrants, Ledger
from genplug.observe.events import EventLog
from genplug.spec.model import Config

MAX_WAITING_ALLOCATIONS = 1024
"""Allocations that wait until the ledger is needed: adding them copies the allocations of the ledger."""
MIN_DEVICES_IN_THREAD = 100
"""Devices from which on an inventory is built in a thread, unless only changed paths were scanned.

If all devices have changed, a build takes up to 40 µs for each, and an Allocate call would wait for it.
"""
MAX_BUILDS_IN_THREAD = 3
"""Builds in a thread whose results are outdated by allocations or reports; the next build is made in the event loop."""
SYSTEM_RETRY_SECONDS = 1.0
"""Seconds after which a resource is scanned again when the system had no file descriptor or memory left."""


class DeviceScanner:
    """Follows the devices of the newest submitted configuration.

    ``publish`` gets each new scan, ``accept`` each submitted configuration that is scanned from now on, and ``reject``
    each that is not, with the reason. ``ask_usage`` is called when a report of the IDs that pods use is needed, and
    with whether this need is new. ``wait_usage`` returns when the first report has arrived, or cannot be waited for.
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
        ask_usage: Callable[[bool], None],
        wait_usage: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._publish, self._accept, self._reject = publish, accept, reject
        self._ask_usage, self._wait_usage = ask_usage, wait_usage
        calls = self._calls = BlockingCalls(paths, on_return=self._rescan_stalled)
        self.watches = DeviceWatches(host, watcher, calls, event_log, self.on_change, self.request_rescan)
        self._submitted: Config | None = None
        self._config: Config | None = None
        self._scans: dict[str, ResourceScan] = {}
        self._inventory: Inventory | None = None
        self._ledger = Ledger(grace=GRACE_POLLS * settings.drain_seconds)
        self._allocations: list[AllocatedGrants] = []
        """The allocations that the ledger lacks."""
        self._is_usage_new = False
        self._changes = PendingChanges()
        self._settling = PendingChanges()
        """The changes after which files may still be written that nothing reports."""
        self._settle_timer = SettleTimer()
        self._relevance = ScanRelevance(())
        self._is_retry_due = False
        self._timer = ScanTimer(fallback_due=float("inf"), budget=SCAN_BUDGET)
        self._wakeup = Wakeup()
        self._jobs = ScanJobs(host, calls, event_log, self._wakeup.set)

    def __repr__(self) -> str:
        config = self._config.sha256[:12] if self._config else "none"
        return f"<DeviceScanner [config: {config} | {self._changes} | {self._jobs!r}]>"

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
        self._settling = self._settling.add(directory, names)
        self._settle_timer = self._settle_timer.after_event(time.monotonic())
        self._schedule()

    def on_paths_changed(self, changes: Changes) -> None:
        """Record changes that a uevent reports; most of them do not concern any device."""
        if self._relevance.is_affected(changes):
            for directory, names in changes.items():
                self.on_change(directory, names)

    def on_usage(self, used: Mapping[str, Iterable[str]], requested_at: float) -> None:
        """Record a report of the kubelet which IDs pods use, by resource, and when it was requested."""
        self._ledger = self._update_ledger().with_report(used, requested_at)
        self._is_usage_new = True
        self._wakeup.set()

    def record_allocation(self, resource: str, ids: Iterable[str]) -> None:
        """Record an allocation, before the next call is answered."""
        self._allocations.append(AllocatedGrants(resource, tuple(ids), time.monotonic()))
        if len(self._allocations) >= MAX_WAITING_ALLOCATIONS:
            self._update_ledger()

    def _update_ledger(self) -> Ledger:
        """Add the recorded allocations to the ledger, and return it."""
        if self._allocations:
            self._ledger = self._ledger.with_allocations(self._allocations)
            self._allocations = []
        return self._ledger

    async def run(self) -> None:
        """Follow the devices until cancelled."""
        if self._config is not None:
            # After a failure, nothing is known of what was in progress.
            self.request_rescan()
        try:
            while True:
                await self._step(time.monotonic())
                due = min(self._timer.next, self._settle_timer.next) if self._config is not None else float("inf")
                is_due = self._submitted is not None or self._is_usage_new
                await self._wakeup.sleep_until(0.0 if is_due else due)
        finally:
            self._jobs.discard(self._jobs.running)

    async def _step(self, now: float) -> None:
        if self._submitted is not None:
            config, self._submitted = self._submitted, None
            try:
                await self._try_config(config)
            except Exception as error:
                self._reject(config, f"it cannot be scanned for, by an internal error: {error!r}")
                raise
            return
        if self._config is not None and self._settle_timer.next <= now:
            self._settle()
        if self._config is not None and self._timer.next <= now:
            await self._scan(self._config, is_full=self._timer.fallback_due <= now)
        elif self._is_usage_new:
            self._is_usage_new = False
            if self._config is not None:
                await self._publish_scans(self._config)
        elif self._config is not None and self._collect(self._config):
            self._timer = self._timer.after_scan(now, has_found=await self._publish_scans(self._config))
            self._schedule_pending()

    async def _try_config(self, config: Config) -> None:
        """Scan for a configuration, and make it active."""
        self._scans |= self._jobs.collect()
        scans = {name: self._scans[name] for name in config.resources if name in self._scans}
        # Events report what changes for resources that are selected as before: only the others are scanned.
        selected = select_scans(config, scans, {})
        if self._config is None:
            await self.watches.prepare(_list_glob_directories(config))
        await self._jobs.start(config, selected, self._scans)
        await self._jobs.settle(selected)
        scans |= self._jobs.collect(selected)
        for name in selected.keys() & self._jobs.running & scans.keys():
            if scans[name].resource.policy != config.resources[name].policy:
                # A changed policy counts at once, also while the scan is not finished.
                reason = "its scan under the changed policy has not finished"
                scans[name] = keep_last_known(config.resources[name], scans[name], reason)
        self._jobs.discard(self._jobs.running - config.resources.keys())
        self._config, self._scans = config, scans
        self._ledger = self._update_ledger().after_reload(time.monotonic())
        # The next change is published at once: it is not part of a burst.
        self._timer = self._timer.after_full_scan(time.monotonic(), self._settings.rescan_seconds, has_found=False)
        self._schedule_pending()
        is_built = False
        if self._inventory is None and self._ledger.usage is None:
            # Without the report, the first list lacks the devices that several IDs lead to: after a restart of the
            # agent, the node would lose them for a moment.
            inventory, ledger = build_inventory(config, scans, None, self._ledger, time.monotonic())
            if inventory.withheld:
                await self._wait_usage()
            else:
                # It is built again below, from the assignments that were made here, which takes little time.
                self._inventory, self._ledger, is_built = inventory, ledger, True
        await self._publish_scans(config, is_forced=True, is_limited=is_built)
        self._accept(config)

    async def _scan(self, config: Config, *, is_full: bool) -> None:
        changes = None if is_full else self._changes.limit
        self._changes = PendingChanges()
        await self._jobs.start(config, select_scans(config, self._scans, changes), self._scans)
        self._collect(config)
        has_found = await self._publish_scans(config, is_limited=changes is not None)
        now = time.monotonic()
        if changes is None:
            self._timer = self._timer.after_full_scan(now, self._settings.rescan_seconds, has_found=has_found)
        else:
            self._timer = self._timer.after_scan(now, has_found=has_found)
        self._schedule_pending()

    def _collect(self, config: Config) -> bool:
        """Take the results of finished jobs; return whether there were any."""
        finished = self._jobs.collect()
        self._scans |= finished
        self._jobs.start_requested(config, self._scans)
        return bool(finished)

    async def _publish_scans(self, config: Config, *, is_forced: bool = False, is_limited: bool = False) -> bool:
        """Publish the inventory if it has changed; return whether it was published.

        ``is_limited`` is whether at most changed paths were scanned since the previous inventory.
        """
        self._relevance = ScanRelevance(self._scans.values())
        previous, inventory = await self._build_inventory(config, is_limited=is_limited)
        if needs := self._ledger.needs:
            self._ask_usage(needs != previous.needs)
        is_changed = is_forced or inventory != self._inventory
        if is_changed:
            self._inventory = inventory
            self._publish(NodeScan(config, inventory))
        self.watches.follow(inventory, is_complete=config.resources.keys() <= self._scans.keys())
        if not self._is_retry_due and any(stall.is_system_limit for stall in inventory.stalls):
            self._is_retry_due = True
            asyncio.get_running_loop().call_later(SYSTEM_RETRY_SECONDS, self._retry)
        return is_changed

    async def _build_inventory(self, config: Config, *, is_limited: bool) -> tuple[Ledger, Inventory]:
        """Return the ledger, and the inventory that is built with it; update the ledger."""
        # The first list waits for the first inventory, and no call does.
        is_threaded = (
            not is_limited
            and self._inventory is not None
            and sum(len(scan.devices) for scan in self._scans.values()) >= MIN_DEVICES_IN_THREAD
        )
        for _ in range(MAX_BUILDS_IN_THREAD if is_threaded else 0):
            ledger = self._update_ledger()
            build = partial(build_inventory, config, dict(self._scans), self._inventory, ledger, time.monotonic())
            try:
                inventory, following = await self._calls.start(build).done
            except HangError:
                # The system cannot start a thread now.
                break
            # A report that arrived meanwhile has replaced the ledger.
            if self._ledger is ledger and _keeps_devices(self._inventory, inventory, self._allocations):
                self._ledger = following
                self._update_ledger()
                return ledger, inventory
        ledger = self._update_ledger()
        inventory, self._ledger = build_inventory(config, self._scans, self._inventory, ledger, time.monotonic())
        return ledger, inventory

    def _retry(self) -> None:
        self._is_retry_due = False
        self._rescan_stalled()

    def _schedule(self) -> None:
        if self._config is not None:
            self._timer = self._timer.after_event(time.monotonic())
            self._wakeup.set()

    def _schedule_pending(self) -> None:
        if self._changes:
            self._schedule()

    def _settle(self) -> None:
        """Scan again what changed a moment ago, if attributes are read from files whose changes nothing reports."""
        if not self._relevance.has_unreported_files:
            self._settling, self._settle_timer = PendingChanges(), SettleTimer()
            return
        self._changes = self._changes.merge(self._settling)
        self._settle_timer = self._settle_timer.after_scan()
        if self._settle_timer.event_at is None:
            self._settling = PendingChanges()
        self._schedule()

    def _rescan_stalled(self) -> None:
        """Scan again the resources of which a file operation could not be finished: one has returned."""
        self._jobs.request(name for name, scan in self._scans.items() if scan.stalls)
        if self._config is not None:
            self._jobs.start_requested(self._config, self._scans)


def _keeps_devices(previous: Inventory | None, current: Inventory, allocations: Iterable[AllocatedGrants]) -> bool:
    """Return whether the devices of allocations are the same in two inventories: each keeps its hardware."""
    allocated: dict[str, set[str]] = {}
    for allocation in allocations:
        allocated.setdefault(allocation.resource, set()).update(map(device_of_grant, allocation.grants))
    for resource, ids in allocated.items():
        before, after = (
            [device for device in inventory.devices.get(resource, ()) if device.id in ids]
            for inventory in (previous or current, current)
        )
        if len(after) < len(ids) or before != after:
            return False
    return True


def _list_glob_directories(config: Config) -> set[str]:
    """Return the directories in which the globs of a configuration begin to match, without symlinks resolved."""
    sources = (source for resource in config.resources.values() for source in resource.sources)
    alternatives = (alternative for source in sources for glob in source.globs for alternative in glob)
    # The last segment matches the entries of a directory, also if it is the name of one entry.
    beginnings = (takewhile(lambda segment: segment.is_literal, alternative[:-1]) for alternative in alternatives)
    return {f"/{'/'.join(segment.text for segment in beginning)}" for beginning in beginnings}
