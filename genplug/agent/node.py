"""The node's side: reads configuration and hardware when they change, and publishes a snapshot when that matters.

Files and devices are read in a worker thread: a file system that hangs must not hold up streams or Allocate.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from genplug.agent.debounce import SECOND_LOOK, ReloadTimer, ScanTimer
from genplug.agent.settings import Settings
from genplug.config.diagnostics import ConfigInvalidError, Diagnostic, format_diagnostics
from genplug.config.load import load
from genplug.config.policy import load_policy
from genplug.hardware.dependencies import Changes, ChangeSet, is_affected, with_ancestors
from genplug.hardware.discovery import rescan
from genplug.hardware.host import Host
from genplug.hardware.inotify import DirectoryWatcher
from genplug.hardware.inventory import Inventory
from genplug.hardware.uevents import Uevent, affected_paths
from genplug.health.presence import NO_PROBE_RESULTS, evaluate_health
from genplug.health.status import NO_MONITOR_STATUS, MonitorEvent, MonitorStatus
from genplug.health.verdict import DeviceRef, HealthSnapshot, ProbeResults
from genplug.observe.events import Event, EventLog
from genplug.observe.messages import log_monitor_event, log_rejected_names
from genplug.observe.status import ConfigStatus
from genplug.spec.model import Config

if TYPE_CHECKING:
    from genplug.health.monitor import ProbeMonitor

MAX_PROBLEMS = 20
"""Mistakes of a configuration that log and pages show."""


@frozen
class Snapshot:
    """The newest truth about the node, all parts of one configuration."""

    config: Config
    inventory: Inventory
    health: HealthSnapshot

    @property
    def resources_without_instances(self) -> tuple[str, ...]:
        """The resources whose names are templates that no device fills in."""
        named = {one.configured_name for one in self.health.resources.values()}
        return tuple(name for name in self.config.resources if name not in named)


class DeviceNodeConflictError(Exception):
    """A changed configuration claims nodes twice on this node; the text names resources and lines."""


class NodeFollower:
    """Follows files and devices; calls ``publish`` in the loop with each new snapshot and the one before."""

    def __init__(
        self,
        settings: Settings,
        host: Host,
        watch: DirectoryWatcher,
        event_log: EventLog,
        publish: Callable[[Snapshot, Snapshot | None], None],
    ) -> None:
        self.config_status = ConfigStatus()
        self.snapshot: Snapshot | None = None
        self._settings = settings
        self._host = host
        self._watch = watch
        self._event_log = event_log
        self._publish = publish
        self.uevents_failure = ""
        """Why the kernel's events cannot be heard, empty where they can."""
        self._monitor: ProbeMonitor | None = None
        self._monitoring: asyncio.Task[None] | None = None
        self._is_rejudged = False
        """Whether what probes say has changed since the newest snapshot."""
        self._news = asyncio.Event()
        self._reading = ReloadTimer(due=0.0)
        self._scanning = ScanTimer(fallback_due=float("inf"))
        self._changes: dict[str, frozenset[str]] = {}
        self._is_all_changed = False
        self._read_of: Inventory | None = None
        self._read_paths: frozenset[str] = frozenset()
        """Where a change can touch what was read for the inventory before."""

    def reload(self) -> None:
        """Read the configuration now, whether or not an event told of a change."""
        self._reading = ReloadTimer(due=0.0)
        self._news.set()

    def request_rescan(self) -> None:
        """Scan for devices soon: something was seen to be not as the newest snapshot has it."""
        self._is_all_changed = True
        self._scanning = self._scanning.after_event(time.monotonic())
        self._news.set()

    def on_paths_changed(self, changes: Changes) -> None:
        """Take note of changes in directories of /sys, of which the kernel tells by events and inotify does not."""
        if self.snapshot is None or not self._matters(self.snapshot.inventory, changes):
            return
        for directory, names in changes.items():
            self._note(directory, names)

    def _matters(self, inventory: Inventory, changes: Changes) -> bool:
        """Say whether changes can touch a device: a node's network has many that do not."""
        if self._read_of is not inventory:
            examined = (one for scan in inventory.scans.values() for one in scan.candidates)
            self._read_of, self._read_paths = (
                inventory,
                with_ancestors(path for one in examined for path in one.depends),
            )
        if any(is_affected(scan.dependencies, changes) for scan in inventory.scans.values()):
            return True
        return not self._read_paths.isdisjoint(ChangeSet.of(changes).paths)

    def _note(self, directory: str, names: frozenset[str]) -> None:
        known = self._changes.get(directory)
        # No names mean that anything may have changed there.
        self._changes[directory] = frozenset() if not names or known == frozenset() else names | (known or names)
        self._scanning = self._scanning.after_event(time.monotonic())
        self._news.set()

    @property
    def health(self) -> MonitorStatus:
        """How it stands with the probes."""
        return self._monitor.status if self._monitor is not None else NO_MONITOR_STATUS

    def on_uevent(self, event: Uevent) -> None:
        """Take note of an event of the kernel's: of what changed under /sys, and of what it says of a device."""
        self.on_paths_changed(affected_paths(event))
        if self._monitor is not None:
            self._monitor.on_uevent(event)

    async def run(self) -> None:
        """Follow the node until cancelled."""
        try:
            await self._run()
        finally:
            if self._monitoring is not None:
                self._monitoring.cancel()
                await asyncio.wait([self._monitoring])

    async def _run(self) -> None:
        while True:
            try:
                await self._follow(time.monotonic())
            except Exception as error:  # noqa: BLE001 - a mistake of ours: what ran keeps running, the nets try again
                text = f"following files and devices failed: {error!r}. A mistake of genplug's own; please report it"
                self._event_log.emit_failure(text, error)
                self._reading = self._reading.after_reading(time.monotonic(), self._settings.rescan)
                self._scanning = self._scanning.after_scan(time.monotonic(), self._settings.rescan, has_found=True)
            await self._next_due()

    async def _follow(self, now: float) -> None:
        if self._reading.due <= now:
            await self._read()
        elif self._scanning.next <= now:
            await self._scan(is_net=self._scanning.fallback_due <= now)
        elif self.snapshot is not None and (self._is_rejudged or (self.snapshot.health.next_change or now + 1) <= now):
            self._judge(self.snapshot.config, self.snapshot.inventory)

    async def _next_due(self) -> None:
        times = [self._reading.due, self._scanning.next, *([0.0] if self._is_rejudged and self.snapshot else ())]
        if self.snapshot is not None and self.snapshot.health.next_change is not None:
            times.append(self.snapshot.health.next_change)
        try:
            async with asyncio.timeout(max(min(times) - time.monotonic(), 0)):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    async def _read(self) -> None:
        settings = self._settings
        # Events from here on speak of what this reading may miss.
        self._reading = self._reading.after_reading(time.monotonic(), settings.rescan)
        try:
            loaded = await asyncio.to_thread(load, settings.config, settings.node_name, settings.policy)
            directories = loaded.directories
            await self._apply_config(loaded.config)
        except ConfigInvalidError as error:
            directories = error.directories
            await self._apply_policy()
            self._reject_config(_summarize(error.problems))
        except DeviceNodeConflictError as error:
            await self._apply_policy()
            self._reject_config(str(error))
        if self._watch_config(directories):
            # What changed before these directories were watched, no event will tell: another look, not in the way of
            # this.
            self._reading = self._reading.no_later_than(time.monotonic() + SECOND_LOOK)

    async def _apply_policy(self) -> None:
        """Let a changed policy hold at once, whatever is wrong with the configuration beside it."""
        if self.snapshot is None:
            return
        try:
            policy = (await asyncio.to_thread(load_policy, self._settings.policy)).policy
        except ConfigInvalidError:
            # It stays, and has been told of with the other mistakes.
            return
        if policy != self.snapshot.config.policy:
            await self._apply_config(self.snapshot.config.restricted_by(policy))

    async def _apply_config(self, config: Config) -> None:
        before = self.snapshot
        is_changed = before is None or config.sha256 != before.config.sha256
        if before is not None and not is_changed and config.policy == before.config.policy:
            self.config_status = evolve(self.config_status, error="")
            self._event_log.emit(Event.CONFIG_UNCHANGED, "the configuration's files say what is already in force")
            return
        # Of what is asked as before, events tell what changed on the node: only the rest is looked for anew.
        found = before.inventory if before else None
        inventory = await asyncio.to_thread(rescan, config, self._host, found, {} if found is not None else None)
        known = (
            {conflict.path for conflict in before.inventory.conflicts}
            if before
            else {c.path for c in inventory.conflicts}
        )
        new = [conflict.message for conflict in inventory.conflicts if conflict.path not in known]
        # A policy holds whatever it brings to light.
        if new and is_changed:
            raise DeviceNodeConflictError("\n".join(new))
        self.config_status = ConfigStatus(config.files, config.sha256, time.time())
        self._event_log.emit(
            Event.CONFIG_LOADED,
            f"a configuration of {len(config.resources)} resource(s) is in force",
            files=config.files,
            policy=config.policy.name,
            config_sha256=config.sha256[:12],
        )
        # Not a find in a burst of events: the first change after it goes out at once.
        self._scanning = self._scanning.after_scan(time.monotonic(), self._settings.rescan, has_found=False)
        if self._changes or self._is_all_changed:
            self._scanning = self._scanning.after_event(time.monotonic())
        await self._look_first(inventory)
        self._judge(config, inventory)

    def _reject_config(self, error: str) -> None:
        if error == self.config_status.error:
            return
        self.config_status = evolve(self.config_status, error=error)
        stays = (
            "the last good configuration stays in force" if self.snapshot else "nothing is offered until it is mended"
        )
        self._event_log.emit(Event.CONFIG_INVALID, f"the configuration was refused; {stays}:\n{error}")

    async def _scan(self, *, is_net: bool) -> None:
        if (before := self.snapshot) is None:
            self._scanning = ScanTimer(fallback_due=float("inf"))
            return
        changes = None if is_net or self._is_all_changed else self._changes
        self._changes, self._is_all_changed = {}, False
        inventory = await asyncio.to_thread(rescan, before.config, self._host, before.inventory, changes)
        has_found = inventory != before.inventory
        self._scanning = self._scanning.after_scan(time.monotonic(), self._settings.rescan, has_found=has_found)
        if self._changes or self._is_all_changed:
            self._scanning = self._scanning.after_event(time.monotonic())
        if has_found:
            self._judge(before.config, inventory)
        else:
            self._watch_devices(inventory)

    def _judge(self, config: Config, inventory: Inventory) -> None:
        before, self._is_rejudged = self.snapshot, False
        resources = {**(before.health.resources if before else {}), **inventory.resources}
        keep_gone = {name: resource.health.removal_grace_period_seconds for name, resource in resources.items()}
        judgement = evaluate_health(
            inventory, before.health if before else None, keep_gone, time.monotonic(), self._findings(inventory)
        )
        self.snapshot = Snapshot(config, inventory, judgement)
        self._log_conflicts(before.inventory if before else None, inventory)
        log_rejected_names(self._event_log, before.inventory if before else None, inventory)
        self._watch_devices(inventory)
        self._publish(self.snapshot, before)

    def _findings(self, inventory: Inventory) -> ProbeResults:
        """Have probes look at what is there now, and return what they say of it so far."""
        if self._monitor is None:
            return NO_PROBE_RESULTS
        devices = self.snapshot.health.devices if self.snapshot is not None else {}
        listed = {DeviceRef(name, one.device.id) for name, judged in devices.items() for one in judged}
        self._monitor.update_devices(inventory, listed)
        return self._monitor.current_results(time.monotonic())

    async def _look_first(self, inventory: Inventory) -> None:
        """Before anything is offered, let the probes say what they see at once: it is not offered and taken back."""
        if self._monitor is None and any(one.health.probes for one in inventory.resources.values()):
            # Imported here: a configuration without probes does not pay for what they need.
            from genplug.health.monitor import ProbeMonitor  # noqa: PLC0415

            self._monitor = ProbeMonitor(self._host, self._judge_again, self._tell_health, lambda: self.uevents_failure)
            self._monitoring = asyncio.create_task(self._monitor.run())
            self._monitoring.add_done_callback(self._monitoring_ended)
        if self._monitor is not None and self.snapshot is None:
            self._monitor.update_devices(inventory, frozenset())
            await self._monitor.wait_first_results()

    def _tell_health(self, news: MonitorEvent) -> None:
        log_monitor_event(self._event_log, news)

    def _monitoring_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            text = f"probes do not look any more: {error!r}. A mistake of genplug's own; please report it"
            self._event_log.emit_failure(text, error)

    def _judge_again(self) -> None:
        self._is_rejudged = True
        self._news.set()

    def _log_conflicts(self, before: Inventory | None, after: Inventory) -> None:
        known = {conflict.message for conflict in before.conflicts} if before else set()
        for conflict in after.conflicts:
            if conflict.message not in known:
                self._event_log.emit(Event.DEVICE_NODE_CONFLICT, conflict.message, path=conflict.path)

    def _watch_config(self, directories: Iterable[Path]) -> bool:
        def changed(_directory: Path, _names: frozenset[str]) -> None:
            self._reading = self._reading.after_event(time.monotonic())
            self._news.set()

        return self._watch.set("config", directories, changed, contents=True)

    def _watch_devices(self, inventory: Inventory) -> None:
        directories = inventory.directories | inventory.directories_of_attributes
        seen = {
            self._host.real_path(directory): directory
            for directory in directories
            if self._host.supports_inotify(directory)
        }

        def changed(directory: Path, names: frozenset[str]) -> None:
            self._note(seen[directory], names)

        # Stand-in files get their text after they appear; real nodes are complete at once.
        if self._watch.set("devices", seen, changed, contents=self._host.stand_ins):
            # What changed in these directories before they were watched, no event will tell.
            self.request_rescan()
        for warning in self._watch.take_warnings():
            self._event_log.emit(Event.WATCH_DEGRADED, warning)


def _summarize(problems: Sequence[Diagnostic]) -> str:
    """Return the problems as the log and the pages show them: who has hundreds wants the first ones and the number."""
    text = format_diagnostics(problems[:MAX_PROBLEMS])
    left = len(problems) - MAX_PROBLEMS
    return text + (f"\nand {left} more; `genplug validate` prints them all" if left > 0 else "")
