"""The monitor: runs the probes of every device in worker processes, and knows where each probe stands.

It wires its parts together and decides nothing itself: :mod:`~genplug.health.schedule` says what is due, the pools of
:mod:`genplug.health.workers` run it, each probe kind says what an answer means, :mod:`~genplug.health.thresholds` what
follows from that, and :mod:`~genplug.health.probe_errors` which errors are worth an event.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from attrs import evolve

from genplug.hardware.host import Host
from genplug.hardware.inventory import Device, Inventory
from genplug.hardware.uevents import Uevent
from genplug.health.binding import BoundProbe, bind_probe
from genplug.health.event_probes import EventProbes
from genplug.health.probe_errors import ProbeErrors
from genplug.health.probe_instance import ProbeInstance
from genplug.health.schedule import RequestTiming, Schedule, ScheduledRequest
from genplug.health.status import MonitorEvent, MonitorStatus, PoolExhausted, WorkerStartFailed
from genplug.health.thresholds import Outcome, ProbeState, Result, initial_state, next_state, returned_state
from genplug.health.verdict import DeviceRef, ProbeFailure, ProbeResults
from genplug.health.workers.call_pool import CallPool
from genplug.health.workers.pool import WorkerPool
from genplug.health.workers.protocol import ProbeResponse
from genplug.health.workers.read_pool import ReadPool
from genplug.spec.model import Resource
from genplug.spec.policy import Policy
from genplug.spec.probes import HealthSpec

FIRST_RESULT_TIMEOUT = 2.0
"""Seconds for which a new device waits for its first result before it is listed without one."""


class ProbeMonitor:
    """Watches the devices of an inventory. Made and used inside a running loop; ``run`` it once.

    ``on_change`` is called when the health of a device changed, ``report`` with errors of probes and workers, and with
    their end. ``uevents_error`` returns why the kernel's events cannot be received, empty if they can.
    """

    def __init__(
        self,
        host: Host,
        on_change: Callable[[], None],
        report: Callable[[MonitorEvent], None],
        uevents_error: Callable[[], str],
    ) -> None:
        self._on_change, self._report = on_change, report
        self._devices: dict[DeviceRef, tuple[Device, HealthSpec, Policy]] = {}
        self._instances: dict[DeviceRef, dict[str, ProbeInstance]] = {}
        self._gone: dict[DeviceRef, dict[str, ProbeInstance]] = {}
        """The probes of devices that are gone and may return."""
        self._schedule: Schedule[ProbeInstance] = Schedule()
        self._runs = 0
        self._wake = asyncio.Event()
        self._has_results = asyncio.Event()
        self._read_pool: WorkerPool = ReadPool(host, self._on_pool_change)
        self._call_pool: WorkerPool = CallPool(host, self._on_pool_change)
        self._is_changed = False
        """Whether the health of a device has changed since ``on_change`` was called."""
        self._is_exhausted = False
        self._start_error = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors = ProbeErrors()
        self._event_probes = EventProbes(host, uevents_error, self._apply, self._flush, self._spawn)

    @property
    def status(self) -> MonitorStatus:
        """The current status."""
        return MonitorStatus(
            probes=sum(map(len, self._instances.values())),
            targets=len(self._schedule),
            runs=self._runs,
            min_runs=self._schedule.min_runs,
            cpu_seconds=self._read_pool.cpu_seconds + self._call_pool.cpu_seconds,
            read_workers=self._read_pool.status,
            call_workers=self._call_pool.status,
            errors=self._errors.current,
        )

    def current_results(self, now: float) -> ProbeResults:
        """Return the failures of the devices, and which devices wait for their first result (monotonic seconds)."""
        failures, pending = {}, {}
        for device, instances in self._instances.items():
            failed = [
                ProbeFailure(name, instance.state.reason)
                for name, instance in instances.items()
                if not instance.state.healthy
            ]
            if failed:
                failures[device] = tuple(failed)
            waiting = (instance.since for instance in instances.values() if instance.state.is_pending)
            until = max(waiting, default=now - FIRST_RESULT_TIMEOUT) + FIRST_RESULT_TIMEOUT
            if until > now:
                pending[device] = until
        return ProbeResults(failures, pending)

    async def wait_first_results(self, timeout: float = FIRST_RESULT_TIMEOUT) -> ProbeResults:  # noqa: ASYNC109 - what is known then
        """Return the results once every probe has one or an error; what is known after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while any(instance.state.is_pending for instance in self._all_instances()):
            self._has_results.clear()
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                    await self._has_results.wait()
            except TimeoutError:
                break
        return self.current_results(time.monotonic())

    def update_devices(self, inventory: Inventory, listed: AbstractSet[DeviceRef]) -> None:
        """Watch the devices of an inventory from now on, and no others.

        ``listed`` are all devices of the previous list, those that are gone and linger included: one of them that
        returns has to pass its probes ``successThreshold`` times.
        """
        now, present = time.monotonic(), dict(_devices_with_probes(inventory))
        for ref in self._instances.keys() - present.keys():
            # Keep the state: the device may return.
            self._gone[ref] = self._forget(ref)
        for ref in self._gone.keys() - listed - present.keys():
            # Sticky failures are kept until the process restarts, even of devices that are gone.
            self._gone[ref] = {
                name: instance for name, instance in self._gone[ref].items() if instance.is_sticky_failed
            }
            if not self._gone[ref]:
                del self._gone[ref]
        new: list[ProbeInstance] = []
        for ref, (device, resource) in present.items():
            previous = self._devices.get(ref)
            if previous is None or previous[0] is not device or previous[1:] != (resource.health, resource.policy):
                new += self._watch_device(ref, device, resource, now)
        self._event_probes.update(self._all_instances())
        if new:
            for instance in new:
                if instance.bound.error:
                    self._apply(instance, Result(Outcome.ERROR, instance.bound.error))
            self._event_probes.start(new)
        # The caller asks for the results next.
        self._is_changed = False
        self._flush()
        if not self._schedule:
            self._read_pool.stop_idle()
            self._call_pool.stop_idle()

    def on_uevent(self, event: Uevent) -> None:
        """Evaluate an event of the kernel."""
        self._event_probes.on_uevent(event)
        self._flush()

    async def run(self) -> None:
        """Run the probes until cancelled."""
        try:
            while True:
                self._start_due()
                due = self._schedule.next_due
                try:
                    async with asyncio.timeout(None if due is None else max(due - time.monotonic(), 0)):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
        finally:
            for task in self._tasks:
                task.cancel()
            self._read_pool.close()
            self._call_pool.close()
            self._event_probes.close()

    def _all_instances(self) -> Iterable[ProbeInstance]:
        return (instance for instances in self._instances.values() for instance in instances.values())

    def _watch_device(self, ref: DeviceRef, device: Device, resource: Resource, now: float) -> list[ProbeInstance]:
        """Watch a device as it is now; return the probes that have no result yet."""
        previous, returned = self._instances.get(ref, {}), self._gone.pop(ref, None)
        instances: dict[str, ProbeInstance] = {}
        new = []
        for spec in resource.health.probes:
            bound = bind_probe(device, resource, spec)
            old = previous.get(spec.name)
            if old is not None and _is_same_probe(old.bound, bound):
                instance = evolve(previous.pop(spec.name), bound=bound)
            elif returned is not None and spec.name in returned and returned[spec.name].is_sticky_failed:
                instance = evolve(returned[spec.name], bound=bound)
            else:
                instance = ProbeInstance(bound, _first_state(bound, now, has_returned=returned is not None), now)
                new.append(instance)
            instances[spec.name] = instance
            if not instance.is_sticky_failed:
                self._subscribe(instance, now)
            if old is not None:
                # Last, so that a request which the old probe shares with the new one keeps its times.
                self._unsubscribe(old)
        for old in previous.values():
            self._unsubscribe(old)
            self._errors.forget(*old.id, old.state.error)
        self._devices[ref], self._instances[ref] = (device, resource.health, resource.policy), instances
        return new

    def _forget(self, ref: DeviceRef) -> dict[str, ProbeInstance]:
        self._devices.pop(ref, None)
        instances = self._instances.pop(ref, {})
        for instance in instances.values():
            self._errors.forget(*instance.id, instance.state.error)
            self._unsubscribe(instance)
        return instances

    def _subscribe(self, instance: ProbeInstance, now: float) -> None:
        if (timing := _request_timing(instance.bound)) is None:
            return
        scheduled = self._schedule.subscribe(timing, instance.id, instance, now, is_call=instance.bound.is_call)
        if scheduled.response is None:
            self._wake.set()
        elif instance.state.is_pending:
            # The request has been run for other probes: their last response is the first result.
            self._apply_response(instance, scheduled.response, now)

    def _unsubscribe(self, instance: ProbeInstance) -> None:
        if (timing := _request_timing(instance.bound)) is not None:
            self._schedule.unsubscribe(timing, instance.id, instance)

    def _start_due(self) -> None:
        due = self._schedule.take_due(time.monotonic())
        for pool, is_call in ((self._read_pool, False), (self._call_pool, True)):
            requests = [scheduled for scheduled in due if scheduled.is_call == is_call]
            # Small batches, so that the results of the first are not late.
            for start in range(0, len(requests), pool.batch_size):
                self._spawn(self._run_requests(requests[start : start + pool.batch_size], pool))

    async def _run_requests(self, due: Sequence[ScheduledRequest[ProbeInstance]], pool: WorkerPool) -> None:
        try:
            responses = await pool.run([scheduled.timing[:2] for scheduled in due])
        except Exception as error:  # noqa: BLE001 - a mistake of genplug: an error of these probes, which run again
            responses = [ProbeResponse(error=f"internal error: {error!r}; please report it")] * len(due)
        now = time.monotonic()
        for scheduled, response in zip(due, responses, strict=True):
            is_same = scheduled.response == response
            for instance in scheduled.record_run(response):
                # Fast path: an unchanged passing result changes nothing.
                if not (is_same and instance.state.is_stable_healthy and not instance.may_change_by_itself):
                    self._apply_response(instance, response, now)
        self._runs += len(due)
        self._flush()

    def _apply_response(self, instance: ProbeInstance, response: ProbeResponse, now: float) -> None:
        try:
            result, instance.memory = instance.bound.evaluate(response, instance.memory, now)
        except Exception as error:  # noqa: BLE001 - a mistake of genplug is an error of this probe, and of no other
            result = Result(Outcome.ERROR, f"internal error: {error!r}; please report it")
        self._apply(instance, result)

    def _apply(self, instance: ProbeInstance, result: Result) -> None:
        """Apply a result to the state of a probe."""
        previous, timing = instance.state, instance.bound.timing
        state = instance.state = next_state(previous, result, timing, time.monotonic())
        if state.error != previous.error:
            self._errors.change(*instance.id, previous.error, state.error)
        if instance.is_sticky_failed:
            self._unsubscribe(instance)
        # A new device is listed once the first results are known.
        self._is_changed |= state.healthy != previous.healthy or previous.is_pending

    def _flush(self) -> None:
        """Report collected errors, wake those that wait for results, and publish changed health."""
        for event in self._errors.take_events():
            self._report(event)
        self._has_results.set()
        if self._is_changed:
            self._is_changed = False
            self._on_change()

    def _on_pool_change(self) -> None:
        pools = (self._read_pool.status, self._call_pool.status)
        is_exhausted = any(pool.is_exhausted for pool in pools)
        if is_exhausted != self._is_exhausted:
            self._is_exhausted = is_exhausted
            self._report(PoolExhausted(sum(pool.hung for pool in pools), resolved=not is_exhausted))
        previous, error = self._start_error, next((pool.start_error for pool in pools if pool.start_error), "")
        self._start_error = error
        if bool(error) != bool(previous):
            self._report(WorkerStartFailed(error or previous, resolved=not error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _devices_with_probes(inventory: Inventory) -> Iterable[tuple[DeviceRef, tuple[Device, Resource]]]:
    for name, devices in inventory.devices.items():
        resource = inventory.resources.get(name)
        if resource is not None and resource.health.probes:
            for device in devices:
                yield DeviceRef(name, device.id), (device, resource)


def _first_state(bound: BoundProbe, now: float, *, has_returned: bool) -> ProbeState:
    needed = bound.timing.success_threshold
    if not has_returned or bound.request is None or needed == 1:
        return initial_state(now)
    return returned_state(f"the device returned; it needs {needed} consecutive passing probe runs", now)


def _is_same_probe(old: BoundProbe, new: BoundProbe) -> bool:
    """Return whether the state of one probe holds for the other: both check the same."""
    same = (old.request, old.error, old.sysfs_directories) == (new.request, new.error, new.sysfs_directories)
    return same and old.spec.check == new.spec.check


def _request_timing(bound: BoundProbe) -> RequestTiming | None:
    """Return what is scheduled for a probe, None for one that listens or cannot be bound."""
    if bound.request is None:
        return None
    return RequestTiming(bound.request, bound.spec.timing.timeout, bound.spec.timing.period)
