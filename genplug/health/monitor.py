"""The monitor: runs the probes of every device in worker processes, and keeps the state of each probe.

It connects its parts: :mod:`~genplug.health.device_probes` keeps the states of probes,
:mod:`~genplug.health.schedule` determines which requests are due, the pools of :mod:`genplug.health.workers` run them,
the probe kinds evaluate the answers, and :mod:`~genplug.health.probe_errors` decides which errors are events.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from genplug.hardware.host import Host
from genplug.hardware.inventory import Inventory
from genplug.hardware.uevents import Uevent
from genplug.health.binding import BoundProbe
from genplug.health.device_probes import FIRST_RESULT_TIMEOUT, DeviceProbes
from genplug.health.event_probes import EventProbes
from genplug.health.probe_errors import ProbeErrors
from genplug.health.probe_instance import ProbeInstance
from genplug.health.probes import READ_KINDS, kind_of
from genplug.health.schedule import DueRequests, RequestTiming, Schedule, ScheduledRequest
from genplug.health.status import (
    KernelLogGap,
    MonitorEvent,
    MonitorStatus,
    PoolExhausted,
    ProbeError,
    ProbeWarning,
    WorkerStartFailed,
)
from genplug.health.thresholds import Outcome, Result, next_state
from genplug.health.verdict import ProbeResults
from genplug.health.workers.call_pool import CallPool
from genplug.health.workers.pool import WorkerPool
from genplug.health.workers.protocol import ProbeResponse
from genplug.health.workers.read_pool import ReadPool
from genplug.spec.probes import ProbeSpec


class ProbeMonitor:
    """Watches the devices of an inventory. It is created and used in a running event loop; call ``run`` once.

    ``on_change`` is called when the health of a device changed, ``report`` with errors of probes and workers, and with
    their end. ``uevents_error`` returns the reason why the kernel's events cannot be received, empty if they can.
    """

    def __init__(
        self,
        host: Host,
        on_change: Callable[[], None],
        report: Callable[[MonitorEvent], None],
        uevents_error: Callable[[], str],
    ) -> None:
        self._on_change, self._report = on_change, report
        self._probes = DeviceProbes(is_archive=host.is_archive)
        self._event_probes = EventProbes(host, uevents_error, self._apply, self._flush, self._spawn)
        self._event_probes.report_gap = self._report_gap
        self._schedule: Schedule[ProbeInstance] = Schedule()
        self._read_pool = ReadPool(host, self._on_pool_change)
        self._call_pool: WorkerPool = CallPool(host, self._on_pool_change)
        self._errors = ProbeErrors(ProbeError)
        self._warnings = ProbeErrors(ProbeWarning)
        self._runs = 0
        self._is_changed = False
        """Whether the health of a device has changed since ``on_change`` was called."""
        self._exhausted_pools: set[WorkerPool] = set()
        self._start_error = ""
        self._wake = asyncio.Event()
        self._has_results = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def status(self) -> MonitorStatus:
        """The current status."""
        return MonitorStatus(
            probes=len(self._probes),
            targets=len(self._schedule),
            runs=self._runs,
            min_runs=self._schedule.min_runs,
            cpu_seconds=self._read_pool.cpu_seconds + self._call_pool.cpu_seconds,
            read_workers=self._read_pool.status,
            call_workers=self._call_pool.status,
            errors=self._errors.current,
            warnings=self._warnings.current,
        )

    def current_results(self, now: float) -> ProbeResults:
        """Return the failures of the devices, and the devices that wait for their first result (monotonic seconds)."""
        return self._probes.results(now)

    async def wait_first_results(self, patience: float = FIRST_RESULT_TIMEOUT) -> ProbeResults:
        """Return the results when every probe has a result or an error, at the latest after ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while self._probes.is_pending:
            self._has_results.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._has_results.wait()
            except TimeoutError:
                break
        return self.current_results(time.monotonic())

    def prepare(self, probes: Iterable[ProbeSpec]) -> None:
        """Start a worker for the reads of probes, so that it has started when their devices are known."""
        if any(kind_of(probe.check).name in READ_KINDS for probe in probes):
            self._read_pool.prepare()

    def update_devices(self, inventory: Inventory) -> None:
        """Watch the devices of an inventory from now on, and no others."""
        now = time.monotonic()
        update = self._probes.update(inventory, now)
        for instance in update.forgotten:
            self._errors.forget(*instance.id, instance.state.error)
            self._warnings.forget(*instance.id, _warning_of(instance))
        for instance in update.started:
            self._subscribe(instance, now)
        # Last, so that a request that an old probe shares with a new probe keeps its times.
        for instance in update.ended:
            self._unsubscribe(instance)
        for instance in update.new:
            if instance.bound.error:
                self._apply(instance, Result(Outcome.ERROR, instance.bound.error))
        self._event_probes.update(update.ended, update.current)
        self._event_probes.start(update.new)
        # The caller reads the results next.
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

    def _report_gap(self) -> None:
        self._report(KernelLogGap())

    def _subscribe(self, instance: ProbeInstance, now: float) -> None:
        if (timing := _request_timing(instance.bound)) is None:
            return
        scheduled = self._schedule.subscribe(
            timing, instance.id, instance, now, is_call=instance.bound.is_call, resource=instance.bound.device.resource
        )
        if scheduled.response is None:
            self._wake.set()
        elif instance.state.is_pending:
            # The request has run for other probes: their last response is the first result.
            self._apply_response(instance, scheduled.response, now)

    def _unsubscribe(self, instance: ProbeInstance) -> None:
        if (timing := _request_timing(instance.bound)) is not None:
            self._schedule.unsubscribe(timing, instance.id, instance)

    def _start_due(self) -> None:
        for due in self._schedule.take_due(time.monotonic()):
            self._spawn(self._run_requests(due))

    async def _run_requests(self, due: DueRequests[ProbeInstance]) -> None:
        requests, is_call, batch = due
        missing = set(range(len(requests)))

        def deliver(responses: Mapping[int, ProbeResponse]) -> None:
            missing.difference_update(responses)
            self._apply_responses([(requests[index], response) for index, response in responses.items()])

        def confirm(unchanged: Collection[int]) -> None:
            missing.difference_update(unchanged)
            self._confirm_responses([requests[index] for index in unchanged])

        try:
            if is_call:
                await self._call_pool.run_each(requests, deliver)
            elif batch is not None:
                await self._read_pool.run_kept(batch, requests, deliver, confirm)
            else:
                await self._read_pool.run_each(requests, deliver)
        except Exception as error:  # noqa: BLE001 - a defect of genplug is an error of these probes, which run again
            failed = ProbeResponse(error=f"internal error: {error!r}; please report it")
            deliver(dict.fromkeys(tuple(missing), failed))

    def _apply_responses(self, responses: Sequence[tuple[ScheduledRequest[ProbeInstance], ProbeResponse]]) -> None:
        now = time.monotonic()
        for scheduled, response in responses:
            is_same = scheduled.response == response
            subscribers = scheduled.record_run(response)
            if not is_same or scheduled in scheduled.group.unsettled:
                self._evaluate(scheduled, subscribers, response, now)
        self._runs += len(responses)
        if responses:
            self._flush()

    def _confirm_responses(self, requests: Sequence[ScheduledRequest[ProbeInstance]]) -> None:
        """Record runs of requests of a group whose responses have not changed."""
        group, now = requests[0].group, time.monotonic()
        group.record_unchanged(requests)
        self._runs += len(requests)
        if group.unsettled:
            for scheduled in group.unsettled.intersection(requests):
                if scheduled.response is not None:
                    self._evaluate(scheduled, tuple(scheduled.subscribers.values()), scheduled.response, now)
            self._flush()

    def _evaluate(
        self,
        scheduled: ScheduledRequest[ProbeInstance],
        subscribers: Sequence[ProbeInstance],
        response: ProbeResponse,
        now: float,
    ) -> None:
        for instance in subscribers:
            self._apply_response(instance, response, now)
        # The same response changes nothing for a healthy device, unless its result depends on the time.
        if all(each.state.is_stable_healthy and not each.may_change_by_itself for each in subscribers):
            scheduled.group.settle(scheduled)
        elif scheduled.subscribers:
            scheduled.group.unsettled.add(scheduled)

    def _apply_response(self, instance: ProbeInstance, response: ProbeResponse, now: float) -> None:
        try:
            result, instance.memory = instance.bound.evaluate(response, instance.memory, now)
        except Exception as error:  # noqa: BLE001 - a defect of genplug is an error of this probe only
            result = Result(Outcome.ERROR, f"internal error: {error!r}; please report it")
        self._apply(instance, result)

    def _apply(self, instance: ProbeInstance, result: Result) -> None:
        """Apply a result to the state of a probe."""
        previous, timing = instance.state, instance.bound.timing
        previous_warning = _warning_of(instance)
        state = next_state(previous, result, timing, time.monotonic())
        if state is not previous:
            self._probes.set_state(instance, state)
        if state.error != previous.error:
            self._errors.change(*instance.id, previous.error, state.error)
        if (warning := _warning_of(instance)) != previous_warning:
            self._warnings.change(*instance.id, previous_warning, warning)
        if instance.is_sticky_failed:
            self._unsubscribe(instance)
        # A new device is listed once the first results are known.
        self._is_changed |= state.healthy != previous.healthy or previous.is_pending

    def _flush(self) -> None:
        """Report collected errors and warnings, wake the tasks that wait for results, and report changed health."""
        for error in self._errors.take_events():
            self._report(error)
        for warning in self._warnings.take_events():
            self._report(warning)
        self._has_results.set()
        if self._is_changed:
            self._is_changed = False
            self._on_change()

    def _on_pool_change(self) -> None:
        pools = (self._read_pool, self._call_pool)
        for pool in pools:
            status = pool.status
            if status.is_exhausted != (pool in self._exhausted_pools):
                self._exhausted_pools ^= {pool}
                is_call = pool is self._call_pool
                self._report(PoolExhausted(is_call, status.hung, resolved=not status.is_exhausted))
        errors = (pool.status.start_error for pool in pools)
        previous, error = self._start_error, next(filter(None, errors), "")
        self._start_error = error
        if bool(error) != bool(previous):
            self._report(WorkerStartFailed(error or previous, resolved=not error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _warning_of(instance: ProbeInstance) -> str:
    """Return the reason why a probe with the severity of a warning fails; empty if it passes."""
    return instance.state.reason if instance.is_warning and not instance.state.healthy else ""


def _request_timing(bound: BoundProbe) -> RequestTiming | None:
    """Return the request of a probe with its times; None if the probe evaluates events or cannot be bound."""
    if bound.request is None:
        return None
    return RequestTiming(bound.request, bound.spec.timing.timeout, bound.spec.timing.period)
