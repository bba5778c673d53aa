"""The monitor: has the probes of every device looked at in their time, off the loop, and knows where each stands.

What to ask is spread over the period, and what two probes ask alike in one round is asked once. The kernel's log and
its events are heard as they come. Nothing here decides what a look means: that do the probes and
:mod:`~genplug.health.thresholds`.
"""

import asyncio
import heapq
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from attrs import define, evolve, field

from genplug.hardware.host import Host
from genplug.hardware.inventory import Device, Inventory
from genplug.hardware.uevents import Uevent
from genplug.health.binding import BoundProbe, bind_probe
from genplug.health.kernel_log import PATH, KernelLog, LogRecord
from genplug.health.probes import file, kernel_log, uevent
from genplug.health.status import MonitorEvent, MonitorStatus, PoolExhausted, ProbeError, WorkerStartFailed
from genplug.health.thresholds import Outcome, ProbeState, Result, initial_state, next_state, returned_state
from genplug.health.verdict import DeviceRef, ProbeFailure, ProbeResults
from genplug.health.workers.call_pool import CallPool
from genplug.health.workers.pool import WorkerPool
from genplug.health.workers.protocol import ProbeRequest, ProbeResponse
from genplug.health.workers.read_pool import ReadPool
from genplug.spec.model import Resource
from genplug.spec.policy import Policy
from genplug.spec.probes import FileCheck, HealthSpec, KernelLogCheck

FIRST_RESULT_TIMEOUT = 2.0
"""Seconds for which a new device waits for its first verdict before it is listed without one."""
_TICKS = 10
"""Into how many parts a period is cut: what is due in one of them is asked together."""
_LONGEST_TICK = 1.0
_GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, without what is before the point, are spread evenly however many there are."""


@define(eq=False)
class _ProbeInstance:
    """A probe of a device, and where it stands."""

    bound: BoundProbe
    state: ProbeState
    since: float
    memory: Any = None
    number: int = -1
    """The number of the newest line of the kernel's log that counted."""


@define(eq=False)
class _ScheduledRequest:
    """A question that is put every ``period`` seconds, and whose probes wait for the reply."""

    ask: ProbeRequest
    timeout: float
    period: float
    is_call: bool
    due: float
    phase: float
    watched: dict[tuple[DeviceRef, str], _ProbeInstance] = field(factory=dict)
    is_under_way: bool = False
    count: int = 0
    reply: ProbeResponse | None = None

    def later(self, now: float) -> float:
        """Return when it is due next: in its own part of the period, together with others."""
        tick = min(_LONGEST_TICK, self.period / _TICKS)
        turns = math.floor((now - self.phase) / self.period) + 1
        return math.ceil((self.phase + turns * self.period) / tick) * tick


class ProbeMonitor:
    """Watches over the devices of an inventory. Made and used inside a running loop; ``run`` it once.

    ``changed`` is called when a device's ailments did, ``tell`` with what keeps probes from looking, and what does not
    any more. ``uevents_failure`` says why the kernel's events cannot be heard, empty where they can.
    """

    def __init__(
        self,
        host: Host,
        changed: Callable[[], None],
        tell: Callable[[MonitorEvent], None],
        uevents_failure: Callable[[], str],
    ) -> None:
        self._host = host
        self._changed, self._tell = changed, tell
        self._uevents_failure = uevents_failure
        self._devices: dict[DeviceRef, tuple[Device, HealthSpec, Policy]] = {}
        self._watched: dict[DeviceRef, dict[str, _ProbeInstance]] = {}
        self._left: dict[DeviceRef, dict[str, _ProbeInstance]] = {}
        self._told: tuple[_ProbeInstance, ...] = ()
        """Those of them that are not asked, but told by the kernel."""
        self._looks: dict[tuple[ProbeRequest, float, float], _ScheduledRequest] = {}
        self._plan: list[tuple[float, int, _ScheduledRequest]] = []
        self._made = 0
        self._answered = 0
        self._news = asyncio.Event()
        self._first = asyncio.Event()
        self._readers: WorkerPool = ReadPool(host, self._crew_changed)
        self._callers: WorkerPool = CallPool(host, self._crew_changed)
        self._log: KernelLog | None = None
        self._is_exhausted = False
        self._start_error = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._troubles: dict[tuple[str, str, str], set[str]] = {}
        """The devices that a probe of a resource cannot look at, by resource, probe and reason."""
        self._new_troubles: set[tuple[str, str, str]] = set()

    @property
    def status(self) -> MonitorStatus:
        """How it stands with the probes."""
        return MonitorStatus(
            probes=sum(map(len, self._watched.values())),
            targets=len(self._looks),
            runs=self._answered,
            min_runs=min((look.count for look in self._looks.values()), default=0),
            cpu_seconds=self._readers.cpu_seconds + self._callers.cpu_seconds,
            read_workers=self._readers.status,
            call_workers=self._callers.status,
            errors=tuple(ProbeError(*key, tuple(sorted(devices))) for key, devices in sorted(self._troubles.items())),
        )

    def current_results(self, now: float) -> ProbeResults:
        """Return what the probes say of the devices now (monotonic seconds)."""
        ailments, awaited = {}, {}
        for key, probes in self._watched.items():
            sick = [ProbeFailure(name, one.state.reason) for name, one in probes.items() if not one.state.healthy]
            if sick:
                ailments[key] = tuple(sick)
            until = max(
                (one.since + FIRST_RESULT_TIMEOUT for one in probes.values() if one.state.is_pending), default=now
            )
            if until > now:
                awaited[key] = until
        return ProbeResults(ailments, awaited)

    async def wait_first_results(self, patience: float = FIRST_RESULT_TIMEOUT) -> ProbeResults:
        """Return the findings once every probe has looked, or could not; what is known after so many seconds."""
        deadline = time.monotonic() + patience
        while any(one.state.is_pending for probes in self._watched.values() for one in probes.values()):
            self._first.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._first.wait()
            except TimeoutError:
                break
        return self.current_results(time.monotonic())

    def update_devices(self, inventory: Inventory, listed: AbstractSet[DeviceRef]) -> None:
        """Watch over the devices of an inventory from now on, and no others.

        ``listed`` are all devices that were judged before, those that are gone and linger included: one of them that
        comes back has to prove itself.
        """
        now, wanted = time.monotonic(), dict(_probed(inventory))
        for key in self._watched.keys() - wanted.keys():
            # Gone, and perhaps back some time.
            self._left[key] = self._watched[key]
            self._forget(key)
        for key in self._left.keys() - listed - wanted.keys():
            # Who may never be well again before a restart is remembered for ever.
            self._left[key] = {name: one for name, one in self._left[key].items() if _is_sticky_failed(one)}
            if not self._left[key]:
                del self._left[key]
        fresh = []
        for key, (device, resource) in wanted.items():
            before = self._devices.get(key)
            if before is None or before[0] is not device or before[1:] != (resource.health, resource.policy):
                fresh += self._watch_device(key, device, resource, now)
        every = (one for probes in self._watched.values() for one in probes.values())
        self._told = tuple(one for one in every if one.bound.events is not None or one.bound.lines is not None)
        if fresh:
            self._begin(fresh, now)
        if not self._looks:
            self._readers.stop_idle()
            self._callers.stop_idle()

    def on_uevent(self, event: Uevent) -> None:
        """Take note of an event of the kernel's."""
        is_changed = False
        for one in self._told:
            result = None
            if one.bound.events is not None:
                result = uevent.evaluate(one.bound.events, event)
            elif uevent.is_driver_rebind(one.bound.locations, event):
                # What the log said of a device was said under the driver that it had before.
                result = Result(Outcome.PASSED)
            if result is not None:
                is_changed |= self._judge(one, result, time.monotonic())
        self._flush_events(is_changed=is_changed)

    async def run(self) -> None:
        """Have the probes look until cancelled."""
        try:
            while True:
                self._start_due(time.monotonic())
                due = self._plan[0][0] if self._plan else None
                try:
                    async with asyncio.timeout(None if due is None else max(due - time.monotonic(), 0)):
                        await self._news.wait()
                except TimeoutError:
                    pass
                self._news.clear()
        finally:
            for task in self._tasks:
                task.cancel()
            self._readers.close()
            self._callers.close()
            if self._log is not None:
                self._log.close()

    def _watch_device(self, key: DeviceRef, device: Device, resource: Resource, now: float) -> list[_ProbeInstance]:
        """Watch over a device as it is now; return the probes that begin anew."""
        known, came_back = self._watched.get(key, {}), self._left.pop(key, None)
        watched: dict[str, _ProbeInstance] = {}
        fresh = []
        for spec in resource.health.probes:
            new = bind_probe(key, device, spec, resource.policy)
            old = known.get(spec.name)
            if old is not None and _is_same(old.bound, new):
                one = evolve(known.pop(spec.name), bound=new)
            elif came_back is not None and spec.name in came_back and _is_sticky_failed(came_back[spec.name]):
                one = evolve(came_back[spec.name], bound=new)
            else:
                one = _ProbeInstance(new, _beginning(new, now, has_come_back=came_back is not None), now)
                fresh.append(one)
            watched[spec.name] = one
            if new.request is not None and not _is_sticky_failed(one):
                self._subscribe(one, new.request, now)
            if old is not None:
                # Only now: a question that others put too, or that stays the same, goes on in its rhythm.
                self._unsubscribe(old)
        for old in known.values():
            self._unsubscribe(old)
            self._clear_error(old, old.state.error)
        self._devices[key], self._watched[key] = (device, resource.health, resource.policy), watched
        return fresh

    def _forget(self, key: DeviceRef) -> None:
        self._devices.pop(key, None)
        for one in self._watched.pop(key, {}).values():
            self._clear_error(one, one.state.error)
            self._unsubscribe(one)

    def _subscribe(self, one: _ProbeInstance, ask: ProbeRequest, now: float) -> None:
        numbers = one.bound.spec.timing
        name = (ask, numbers.timeout, numbers.period)
        look = self._looks.get(name)
        if look is None:
            self._made += 1
            phase = now + numbers.period * (self._made * _GOLDEN % 1)
            look = _ScheduledRequest(ask, numbers.timeout, numbers.period, one.bound.is_call, now, phase)
            self._looks[name] = look
            heapq.heappush(self._plan, (now, self._made, look))
            self._news.set()
        elif one.state.is_pending and look.reply is not None:
            # Others have asked already: what they were told is the first look.
            self._judge_reply(one, look.reply, now)
        look.watched[one.bound.key, one.bound.spec.name] = one

    def _unsubscribe(self, one: _ProbeInstance) -> None:
        if one.bound.request is None:
            return
        numbers, key = one.bound.spec.timing, (one.bound.key, one.bound.spec.name)
        name = (one.bound.request, numbers.timeout, numbers.period)
        look = self._looks.get(name)
        if look is not None and look.watched.get(key) is one:
            del look.watched[key]
            if not look.watched:
                del self._looks[name]

    def _begin(self, fresh: Iterable[_ProbeInstance], now: float) -> None:
        """Give the first verdict to those that are not asked but told."""
        listening = []
        for one in fresh:
            if one.bound.fault:
                self._judge(one, Result(Outcome.ERROR, one.bound.fault), now)
            elif one.bound.events is not None:
                failure = self._uevents_failure()
                self._judge(one, Result(Outcome.ERROR if failure else Outcome.PASSED, failure), now)
            elif one.bound.lines is not None:
                listening.append(one)
        if listening:
            self._spawn(self._read_log(listening))
        self._flush_events(is_changed=False)

    async def _read_log(self, listening: Sequence[_ProbeInstance]) -> None:
        """Let the log's lines from before now count, too, for those that have just begun to listen."""
        try:
            await self._judge_history(listening)
        except Exception as error:  # noqa: BLE001 - a mistake of ours is an error of these probes, and of no other
            failed = Result(Outcome.ERROR, f"failed by a mistake of genplug's own: {error!r}; please report it")
            for one in self._told:
                if one.bound.lines is not None and one.state.is_pending:
                    self._judge(one, failed, time.monotonic())
        self._flush_events(is_changed=True)

    async def _judge_history(self, listening: Sequence[_ProbeInstance]) -> None:
        if self._log is None or self._log.failure:
            if self._log is not None:
                self._log.close()
            self._log = KernelLog(self._host.real_path(PATH), self._lines, self._log_failed)
            lines = await self._log.follow()
        else:
            lines = await self._log.read_existing()
        log, names = self._log, {(one.bound.key, one.bound.spec.name) for one in listening}
        # As they are by now: a reload may have come between.
        self._judge_lines([one for one in self._told if (one.bound.key, one.bound.spec.name) in names], lines)
        for one in self._told:
            if one.bound.lines is not None and one.state.is_pending:
                failed = Result(Outcome.ERROR, log.failure) if log.failure else Result(Outcome.PASSED)
                self._judge(one, failed, time.monotonic())

    def _lines(self, lines: Sequence[LogRecord]) -> None:
        self._flush_events(is_changed=self._judge_lines(self._told, lines))

    def _judge_lines(self, listening: Iterable[_ProbeInstance], lines: Sequence[LogRecord]) -> bool:
        """Judge by what the log says; say whether that changes what is said of a device."""
        is_changed, now = False, time.monotonic()
        for spec, of_spec in _by_spec(listening).items():
            hints = kernel_log.prefilter_patterns(spec)
            told = [line for line in lines if any(one.search(line.text) for one in hints)]
            for one in of_spec if told else ():
                newest = _newest(one, told)
                # What was heard while the lines from before were read is newer than they are.
                if newest is not None and newest[0] > one.number:
                    one.number = newest[0]
                    is_changed |= self._judge(one, newest[1], now)
        return is_changed

    def _log_failed(self) -> None:
        now, failure = time.monotonic(), self._log.failure if self._log is not None else ""
        for one in self._told:
            if one.bound.lines is not None:
                self._judge(one, Result(Outcome.ERROR, failure), now)
        self._flush_events(is_changed=True)

    def _start_due(self, now: float) -> None:
        due: dict[bool, list[_ScheduledRequest]] = {False: [], True: []}
        while self._plan and self._plan[0][0] <= now:
            _, number, look = heapq.heappop(self._plan)
            if not look.watched:
                continue
            look.due = look.later(now)
            heapq.heappush(self._plan, (look.due, number, look))
            if not look.is_under_way:
                look.is_under_way = True
                due[look.is_call].append(look)
        for is_call, looks in due.items():
            crew = self._callers if is_call else self._readers
            # A worker's share is small enough that the first are not told late.
            for start in range(0, len(looks), crew.batch_size):
                self._spawn(self._round(looks[start : start + crew.batch_size], crew))

    async def _round(self, looks: Sequence[_ScheduledRequest], crew: WorkerPool) -> None:
        try:
            replies = await crew.run([(look.ask, look.timeout) for look in looks])
        except Exception as error:  # noqa: BLE001 - no worker could be started, or a mistake of ours: said, and tried again
            replies = [ProbeResponse(error=f"nobody could be sent to look: {error!r}")] * len(looks)
        now, is_changed = time.monotonic(), False
        for look, reply in zip(looks, replies, strict=True):
            look.is_under_way = False
            look.count += 1
            is_same, look.reply = look.reply == reply, reply
            for one in tuple(look.watched.values()):
                # Most looks find what the last one found, and that was well.
                if not (is_same and one.state.is_stable_healthy and not _has_risen(one)):
                    is_changed |= self._judge_reply(one, reply, now)
        self._answered += len(looks)
        self._flush_events(is_changed=is_changed)

    def _judge_reply(self, one: _ProbeInstance, reply: ProbeResponse, now: float) -> bool:
        try:
            result, one.memory = one.bound.evaluate(reply, one.memory, now)
        except Exception as error:  # noqa: BLE001 - a mistake of ours is an error of this probe, and of no other
            result = Result(Outcome.ERROR, f"failed by a mistake of genplug's own: {error!r}; please report it")
        return self._judge(one, result, now)

    def _judge(self, one: _ProbeInstance, result: Result, now: float) -> bool:
        """Take a look's result; say whether that changes what is said of the device."""
        before = one.state
        after = one.state = next_state(before, result, one.bound.timing, now)
        if after.error != before.error:
            self._record_error(one, before.error)
        if not after.healthy and one.bound.timing.sticky:
            self._unsubscribe(one)
        # A new device is listed once it is known.
        return after.healthy != before.healthy or before.is_pending

    def _record_error(self, one: _ProbeInstance, before: str) -> None:
        """Note that what keeps a probe from looking at a device is another thing than before, or nothing."""
        self._clear_error(one, before)
        if one.state.error:
            trouble = self._name(one, one.state.error)
            if not before and trouble not in self._troubles:
                self._new_troubles.add(trouble)
            self._troubles.setdefault(trouble, set()).add(one.bound.key.device)

    def _clear_error(self, one: _ProbeInstance, error: str) -> None:
        name = self._name(one, error)
        devices = self._troubles.get(name, set())
        devices.discard(one.bound.key.device)
        if not devices and self._troubles.pop(name, None) is not None and not one.state.error:
            self._tell(ProbeError(*name, (one.bound.key.device,), resolved=True))

    @staticmethod
    def _name(one: _ProbeInstance, error: str) -> tuple[str, str, str]:
        return one.bound.key.resource, one.bound.spec.name, error

    def _flush_events(self, *, is_changed: bool) -> None:
        """Tell what came of a round: one line for all devices of a resource that have the same trouble."""
        for name in sorted(self._new_troubles & self._troubles.keys()):
            self._tell(ProbeError(*name, tuple(sorted(self._troubles[name]))))
        self._new_troubles.clear()
        self._first.set()
        if is_changed:
            self._changed()

    def _crew_changed(self) -> None:
        pools = (self._readers.status, self._callers.status)
        is_exhausted = any(pool.is_exhausted for pool in pools)
        if is_exhausted != self._is_exhausted:
            self._is_exhausted = is_exhausted
            self._tell(PoolExhausted(sum(pool.hung for pool in pools), resolved=not is_exhausted))
        previous, error = self._start_error, next((pool.start_error for pool in pools if pool.start_error), "")
        if error != previous:
            self._start_error = error
            if not error or not previous:
                self._tell(WorkerStartFailed(error or previous, resolved=not error))

    def _spawn(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _probed(inventory: Inventory) -> Iterable[tuple[DeviceRef, tuple[Device, Resource]]]:
    for name, devices in inventory.devices.items():
        resource = inventory.resources.get(name)
        if resource is not None and resource.health.probes:
            for device in devices:
                yield DeviceRef(name, device.id), (device, resource)


def _beginning(new: BoundProbe, now: float, *, has_come_back: bool) -> ProbeState:
    needed = new.timing.success_threshold
    if not has_come_back or new.request is None or needed == 1:
        return initial_state(now)
    return returned_state(f"it was gone and has come back; {needed} looks in a row have to find it well", now)


def _is_same(old: BoundProbe, new: BoundProbe) -> bool:
    """Say whether what was found by one probe holds for another: they look at the same."""
    return (old.request, old.fault, old.locations) == (
        new.request,
        new.fault,
        new.locations,
    ) and old.spec.check == new.spec.check


def _is_sticky_failed(one: _ProbeInstance) -> bool:
    return one.bound.spec.timing.sticky and not one.state.healthy


def _has_risen(one: _ProbeInstance) -> bool:
    """Say whether an unchanged reply can mean something else than before: a counter's rise leaves its window."""
    check = one.bound.spec.check
    return isinstance(check, FileCheck) and check.counter is not None and file.has_increased(one.memory)


def _newest(one: _ProbeInstance, lines: Iterable[LogRecord]) -> tuple[int, Result] | None:
    """Return the last line that means something for a device, and what."""
    newest = None
    if one.bound.lines is not None:
        for line in lines:
            if (result := kernel_log.evaluate(one.bound.lines, line.text)) is not None:
                newest = (line.number, result)
    return newest


def _by_spec(listening: Iterable[_ProbeInstance]) -> Mapping[KernelLogCheck, list[_ProbeInstance]]:
    found: dict[KernelLogCheck, list[_ProbeInstance]] = {}
    for one in listening:
        if isinstance(one.bound.spec.check, KernelLogCheck):
            found.setdefault(one.bound.spec.check, []).append(one)
    return found
