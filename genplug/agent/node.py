"""The node's side: reads configuration and hardware when they change, and publishes a snapshot when that matters.

Files and devices are read in a worker thread: a file system that hangs must not hold up streams or Allocate.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from genplug.agent.debounce import SECOND_LOOK, Reading, Scanning
from genplug.agent.settings import Settings
from genplug.config.diagnostics import ConfigInvalidError, Problem, rendered
from genplug.config.load import load
from genplug.config.policy import load_policy
from genplug.hardware.dependencies import Changes, Touch, is_concerned, within
from genplug.hardware.discovery import rescan
from genplug.hardware.host import Host
from genplug.hardware.inotify import FolderWatch
from genplug.hardware.inventory import Inventory
from genplug.hardware.uevents import Uevent, changes
from genplug.health.presence import NO_FINDINGS, judge
from genplug.health.status import NO_HEALTH, HealthStatus, News
from genplug.health.verdict import Findings, Judgement, Key
from genplug.observe.events import Event, Journal
from genplug.observe.messages import tell_health, tell_names
from genplug.observe.status import ConfigStatus
from genplug.spec.model import Config

if TYPE_CHECKING:
    from genplug.health.monitor import Monitor

MOST_PROBLEMS = 20
"""Mistakes of a configuration that log and pages show."""


@frozen
class Snapshot:
    """The newest truth about the node, all parts of one configuration."""

    config: Config
    inventory: Inventory
    judgement: Judgement

    @property
    def nameless(self) -> tuple[str, ...]:
        """The resources whose names are templates that no device fills in."""
        named = {one.written_name for one in self.judgement.resources.values()}
        return tuple(name for name in self.config.resources if name not in named)


class ClaimedTwiceError(Exception):
    """A changed configuration claims nodes twice on this node; the text names resources and lines."""


class NodeFollower:
    """Follows files and devices; calls ``publish`` in the loop with each new snapshot and the one before."""

    def __init__(
        self,
        settings: Settings,
        host: Host,
        watch: FolderWatch,
        journal: Journal,
        publish: Callable[[Snapshot, Snapshot | None], None],
    ) -> None:
        self.config_status = ConfigStatus()
        self.snapshot: Snapshot | None = None
        self._settings = settings
        self._host = host
        self._watch = watch
        self._journal = journal
        self._publish = publish
        self.uevents_failure = ""
        """Why the kernel's events cannot be heard, empty where they can."""
        self._monitor: Monitor | None = None
        self._monitoring: asyncio.Task[None] | None = None
        self._is_rejudged = False
        """Whether what probes say has changed since the newest snapshot."""
        self._news = asyncio.Event()
        self._reading = Reading(due=0.0)
        self._scanning = Scanning(net=float("inf"))
        self._changes: dict[str, frozenset[str]] = {}
        self._is_all_changed = False
        self._read_of: Inventory | None = None
        self._read_paths: frozenset[str] = frozenset()
        """Where a change can touch what was read for the inventory before."""

    def reload(self) -> None:
        """Read the configuration now, whether or not an event told of a change."""
        self._reading = Reading(due=0.0)
        self._news.set()

    def look_again(self) -> None:
        """Scan for devices soon: something was seen to be not as the newest snapshot has it."""
        self._is_all_changed = True
        self._scanning = self._scanning.after_event(time.monotonic())
        self._news.set()

    def heard(self, changes: Changes) -> None:
        """Take note of changes in folders of /sys, of which the kernel tells by events and inotify does not."""
        if self.snapshot is None or not self._matters(self.snapshot.inventory, changes):
            return
        for folder, names in changes.items():
            self._note(folder, names)

    def _matters(self, inventory: Inventory, changes: Changes) -> bool:
        """Say whether changes can touch a device: a node's network has many that do not."""
        if self._read_of is not inventory:
            examined = (one for scan in inventory.scans.values() for one in scan.candidates)
            self._read_of, self._read_paths = inventory, within(path for one in examined for path in one.depends)
        if any(is_concerned(scan.interests, changes) for scan in inventory.scans.values()):
            return True
        return not self._read_paths.isdisjoint(Touch.of(changes).paths)

    def _note(self, folder: str, names: frozenset[str]) -> None:
        known = self._changes.get(folder)
        # No names mean that anything may have changed there.
        self._changes[folder] = frozenset() if not names or known == frozenset() else names | (known or names)
        self._scanning = self._scanning.after_event(time.monotonic())
        self._news.set()

    @property
    def health(self) -> HealthStatus:
        """How it stands with the probes."""
        return self._monitor.status if self._monitor is not None else NO_HEALTH

    def told(self, event: Uevent) -> None:
        """Take note of an event of the kernel's: of what changed under /sys, and of what it says of a device."""
        self.heard(changes(event))
        if self._monitor is not None:
            self._monitor.heard(event)

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
                self._journal.failure(text, error)
                self._reading = self._reading.after_reading(time.monotonic(), self._settings.rescan)
                self._scanning = self._scanning.after_scan(time.monotonic(), self._settings.rescan, has_found=True)
            await self._next_due()

    async def _follow(self, now: float) -> None:
        if self._reading.due <= now:
            await self._read()
        elif self._scanning.next <= now:
            await self._scan(is_net=self._scanning.net <= now)
        elif self.snapshot is not None and (
            self._is_rejudged or (self.snapshot.judgement.next_change or now + 1) <= now
        ):
            self._judge(self.snapshot.config, self.snapshot.inventory)

    async def _next_due(self) -> None:
        times = [self._reading.due, self._scanning.next, *([0.0] if self._is_rejudged and self.snapshot else ())]
        if self.snapshot is not None and self.snapshot.judgement.next_change is not None:
            times.append(self.snapshot.judgement.next_change)
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
            folders = loaded.folders
            await self._adopt(loaded.config)
        except ConfigInvalidError as error:
            folders = error.folders
            await self._bound()
            self._refuse(_in_short(error.problems))
        except ClaimedTwiceError as error:
            await self._bound()
            self._refuse(str(error))
        if self._watch_config(folders):
            # What changed before these folders were watched, no event will tell: another look, not in the way of this.
            self._reading = self._reading.no_later_than(time.monotonic() + SECOND_LOOK)

    async def _bound(self) -> None:
        """Let a changed policy hold at once, whatever is wrong with the configuration beside it."""
        if self.snapshot is None:
            return
        try:
            policy = (await asyncio.to_thread(load_policy, self._settings.policy)).policy
        except ConfigInvalidError:
            # It stays, and has been told of with the other mistakes.
            return
        if policy != self.snapshot.config.policy:
            await self._adopt(self.snapshot.config.bounded(policy))

    async def _adopt(self, config: Config) -> None:
        before = self.snapshot
        is_changed = before is None or config.sha256 != before.config.sha256
        if before is not None and not is_changed and config.policy == before.config.policy:
            self.config_status = evolve(self.config_status, error="")
            self._journal.write(Event.CONFIG_UNCHANGED, "the configuration's files say what is already in force")
            return
        # Of what is asked as before, events tell what changed on the node: only the rest is looked for anew.
        found = before.inventory if before else None
        inventory = await asyncio.to_thread(rescan, config, self._host, found, {} if found is not None else None)
        known = {clash.path for clash in before.inventory.clashes} if before else {c.path for c in inventory.clashes}
        new = [clash.message for clash in inventory.clashes if clash.path not in known]
        # A policy holds whatever it brings to light.
        if new and is_changed:
            raise ClaimedTwiceError("\n".join(new))
        self.config_status = ConfigStatus(config.files, config.sha256, time.time())
        self._journal.write(
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

    def _refuse(self, error: str) -> None:
        if error == self.config_status.error:
            return
        self.config_status = evolve(self.config_status, error=error)
        stays = (
            "the last good configuration stays in force" if self.snapshot else "nothing is offered until it is mended"
        )
        self._journal.write(Event.CONFIG_INVALID, f"the configuration was refused; {stays}:\n{error}")

    async def _scan(self, *, is_net: bool) -> None:
        if (before := self.snapshot) is None:
            self._scanning = Scanning(net=float("inf"))
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
        resources = {**(before.judgement.resources if before else {}), **inventory.resources}
        keep_gone = {name: resource.health.keep_gone_seconds for name, resource in resources.items()}
        judgement = judge(
            inventory, before.judgement if before else None, keep_gone, time.monotonic(), self._findings(inventory)
        )
        self.snapshot = Snapshot(config, inventory, judgement)
        self._tell_clashes(before.inventory if before else None, inventory)
        tell_names(self._journal, before.inventory if before else None, inventory)
        self._watch_devices(inventory)
        self._publish(self.snapshot, before)

    def _findings(self, inventory: Inventory) -> Findings:
        """Have probes look at what is there now, and return what they say of it so far."""
        if self._monitor is None:
            return NO_FINDINGS
        devices = self.snapshot.judgement.devices if self.snapshot is not None else {}
        listed = {Key(name, one.device.id) for name, judged in devices.items() for one in judged}
        self._monitor.watch(inventory, listed)
        return self._monitor.findings(time.monotonic())

    async def _look_first(self, inventory: Inventory) -> None:
        """Before anything is offered, let the probes say what they see at once: it is not offered and taken back."""
        if self._monitor is None and any(one.health.probes for one in inventory.resources.values()):
            # Imported here: a configuration without probes does not pay for what they need.
            from genplug.health.monitor import Monitor  # noqa: PLC0415

            self._monitor = Monitor(self._host, self._judge_again, self._tell_health, lambda: self.uevents_failure)
            self._monitoring = asyncio.create_task(self._monitor.run())
            self._monitoring.add_done_callback(self._monitoring_ended)
        if self._monitor is not None and self.snapshot is None:
            self._monitor.watch(inventory, frozenset())
            await self._monitor.first_looks()

    def _tell_health(self, news: News) -> None:
        tell_health(self._journal, news)

    def _monitoring_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            text = f"probes do not look any more: {error!r}. A mistake of genplug's own; please report it"
            self._journal.failure(text, error)

    def _judge_again(self) -> None:
        self._is_rejudged = True
        self._news.set()

    def _tell_clashes(self, before: Inventory | None, after: Inventory) -> None:
        known = {clash.message for clash in before.clashes} if before else set()
        for clash in after.clashes:
            if clash.message not in known:
                self._journal.write(Event.NODE_CLAIMED_TWICE, clash.message, path=clash.path)

    def _watch_config(self, folders: Iterable[Path]) -> bool:
        def changed(_folder: Path, _names: frozenset[str]) -> None:
            self._reading = self._reading.after_event(time.monotonic())
            self._news.set()

        return self._watch.set("config", folders, changed, contents=True)

    def _watch_devices(self, inventory: Inventory) -> None:
        folders = inventory.folders | inventory.folders_of_attributes
        seen = {self._host.real(folder): folder for folder in folders if self._host.tells_of(folder)}

        def changed(folder: Path, names: frozenset[str]) -> None:
            self._note(seen[folder], names)

        # Stand-in files get their text after they appear; real nodes are complete at once.
        if self._watch.set("devices", seen, changed, contents=self._host.stand_ins):
            # What changed in these folders before they were watched, no event will tell.
            self.look_again()
        for warning in self._watch.take_warnings():
            self._journal.write(Event.WATCH_DEGRADED, warning)


def _in_short(problems: Sequence[Problem]) -> str:
    """Return the problems as the log and the pages show them: who has hundreds wants the first ones and the number."""
    text = rendered(problems[:MOST_PROBLEMS])
    left = len(problems) - MOST_PROBLEMS
    return text + (f"\nand {left} more; `genplug validate` prints them all" if left > 0 else "")
