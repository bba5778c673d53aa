"""Evaluates the health of scanned devices, and publishes each new snapshot. It is the only owner of the snapshot."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from genplug.agent.snapshot import NodeScan, Snapshot
from genplug.agent.wakeup import Wakeup
from genplug.hardware.host import Host
from genplug.hardware.inventory import Inventory
from genplug.hardware.uevents import Uevent
from genplug.health.presence import NO_PROBE_RESULTS, evaluate_health
from genplug.health.status import NO_MONITOR_STATUS, MonitorStatus
from genplug.health.verdict import ProbeResults
from genplug.observe.events import EventLog
from genplug.observe.messages import log_conflicts, log_monitor_event, log_rejected_names, log_stalls, log_withheld
from genplug.spec.model import Config

if TYPE_CHECKING:
    from genplug.health.monitor import ProbeMonitor


class Reconciler:
    """Publishes a snapshot when a scan is new, when probes change their results, and when a grace period ends.

    ``publish`` gets the snapshot and the previous snapshot.
    """

    def __init__(
        self,
        host: Host,
        event_log: EventLog,
        publish: Callable[[Snapshot, Snapshot | None], None],
        uevents_failure: Callable[[], str],
    ) -> None:
        self.snapshot: Snapshot | None = None
        self._host = host
        self._event_log = event_log
        self._publish = publish
        self._uevents_failure = uevents_failure
        self._scan: NodeScan | None = None
        self._is_due = False
        self._wakeup = Wakeup()
        self._monitor: ProbeMonitor | None = None
        self._unstarted_monitor: ProbeMonitor | None = None
        self._needs_monitor = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Reconciler [{self.snapshot!r} | {'due' if self._is_due else 'idle'}]>"

    @property
    def monitor_status(self) -> MonitorStatus:
        """The status of the probes."""
        return self._monitor.status if self._monitor is not None else NO_MONITOR_STATUS

    def submit(self, scan: NodeScan) -> None:
        """Publish the result of a scan."""
        self._scan = scan
        self._request()

    def prepare(self, config: Config) -> None:
        """Start what the probes of a configuration need, while the node is scanned for its devices."""
        if self._monitor is None and any(resource.health.probes for resource in config.resources.values()):
            self._start_monitor().prepare(
                probe for resource in config.resources.values() for probe in resource.health.probes
            )

    def on_uevent(self, event: Uevent) -> None:
        """Pass an event of the kernel to the probes."""
        if self._monitor is not None:
            self._monitor.on_uevent(event)

    async def run(self) -> None:
        """Publish snapshots until cancelled."""
        self._is_due = True
        while True:
            if self._scan is not None and (self._is_due or self._next_change() <= time.monotonic()):
                await self._wait_first_results(self._scan.inventory)
                self._reconcile(self._scan)
            await self._wakeup.sleep_until(self._next_change())

    async def run_monitor(self) -> None:
        """Run the probes, once there are any, until cancelled. After a failure, new probes take over."""
        await self._needs_monitor.wait()
        monitor, self._unstarted_monitor = self._unstarted_monitor or self._build_monitor(), None
        running = asyncio.create_task(monitor.run(), name="probes")
        try:
            if monitor is not self._monitor and self._scan is not None:
                # The results of the failed probes count until the new probes have results.
                monitor.update_devices(self._scan.inventory)
                await monitor.wait_first_results()
                self._monitor = monitor
                self._request()
            await running
        finally:
            running.cancel()
            await asyncio.wait([running])

    def _request(self) -> None:
        self._is_due = True
        self._wakeup.set()

    def _next_change(self) -> float:
        """Return the time at which the health of a device changes without an event (monotonic seconds)."""
        change = self.snapshot.health.next_change if self.snapshot is not None else None
        return float("inf") if change is None else change

    def _reconcile(self, scan: NodeScan) -> None:
        previous, self._is_due = self.snapshot, False
        inventory = scan.inventory
        resources = {**(previous.health.resources if previous else {}), **inventory.resources}
        health = evaluate_health(
            inventory,
            previous.health if previous else None,
            {name: resource.health.removal_grace_period_seconds for name, resource in resources.items()},
            time.monotonic(),
            self._probe_results(inventory),
        )
        snapshot = Snapshot(scan, health)
        before = previous.inventory if previous else None
        log_stalls(self._event_log, before, inventory)
        log_conflicts(self._event_log, before, inventory)
        log_withheld(self._event_log, before, inventory)
        log_rejected_names(self._event_log, before, inventory)
        self._publish(snapshot, previous)
        # Last, so that the next attempt publishes a snapshot that could not be published.
        self.snapshot = snapshot

    async def _wait_first_results(self, inventory: Inventory) -> None:
        """Wait for first probe results before the first list, so that a faulty device is never listed as healthy."""
        if self._monitor is None and any(resource.health.probes for resource in inventory.resources.values()):
            self._start_monitor()
        if self._monitor is not None and self.snapshot is None:
            self._monitor.update_devices(inventory)
            await self._monitor.wait_first_results()

    def _start_monitor(self) -> "ProbeMonitor":
        monitor = self._monitor = self._unstarted_monitor = self._build_monitor()
        self._needs_monitor.set()
        return monitor

    def _build_monitor(self) -> "ProbeMonitor":
        # Imported here: a configuration without probes does not need the memory of the module.
        from genplug.health.monitor import ProbeMonitor  # noqa: PLC0415

        return ProbeMonitor(
            self._host, self._request, lambda event: log_monitor_event(self._event_log, event), self._uevents_failure
        )

    def _probe_results(self, inventory: Inventory) -> ProbeResults:
        """Update the probes for an inventory, and return their current results."""
        if self._monitor is None:
            return NO_PROBE_RESULTS
        self._monitor.update_devices(inventory)
        return self._monitor.current_results(time.monotonic())
