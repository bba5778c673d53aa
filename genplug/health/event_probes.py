"""The probes that evaluate events: of the kernel log, from its oldest record on, and of the kernel's devices."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from genplug.hardware.host import Host
from genplug.hardware.uevents import Uevent
from genplug.health.kernel_log import MAX_RECORDS_PER_TURN, PATH, KernelLog, LogRecord
from genplug.health.kernel_log_buffer import KernelLogBuffer, is_kernel_log, is_open_denied
from genplug.health.probe_instance import ProbeInstance
from genplug.health.probe_kind import EventStream, Listening
from genplug.health.thresholds import Outcome, Result
from genplug.health.verdict import DeviceRef

MAX_EVALUATIONS_PER_TURN = 10_000
"""Evaluations of a record for a probe before the event loop does other work: about 20 ms."""
GAP_REPORT_SECONDS = 60.0
"""Time for which lost records of the kernel log are not reported again."""
_PASSED = Result(Outcome.PASSED)


class EventProbes:
    """The probes that listen to event streams.

    ``apply`` is called with each result of a probe, ``flush`` after the results of an event of the kernel log, and
    ``spawn`` runs a coroutine in the background.
    ``uevents_error`` returns the reason why the kernel's events cannot be received, empty if they can.
    """

    def __init__(
        self,
        host: Host,
        uevents_error: Callable[[], str],
        apply: Callable[[ProbeInstance, Result], None],
        flush: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._host = host
        self._uevents_error = uevents_error
        self._apply, self._flush, self._spawn = apply, flush, spawn
        self.report_gap: Callable[[], None] = lambda: None
        """Called when records of the kernel log were lost."""
        self._instances: dict[tuple[DeviceRef, str], tuple[ProbeInstance, Listening]] = {}
        self._log: KernelLog | KernelLogBuffer | None = None
        self._gap_report_due = 0.0
        """The time from which lost records are reported again (monotonic seconds)."""

    def update(self, ended: Iterable[ProbeInstance], current: Iterable[ProbeInstance]) -> None:
        """Remove probes and add others; those with an error or without events are left out."""
        for instance in ended:
            if self._instances.get(instance.id, (None,))[0] is instance:
                del self._instances[instance.id]
        for instance in current:
            listening = instance.bound.kind.listening
            if listening is not None and not instance.bound.error:
                self._instances[instance.id] = (instance, listening)
        if self._log is not None:
            self._log.records_per_turn = self._records_per_turn

    @property
    def _records_per_turn(self) -> int:
        """The number of records to evaluate before the event loop does other work."""
        probes = sum(1 for _ in self._instances_of(EventStream.KERNEL_LOG))
        return min(max(MAX_EVALUATIONS_PER_TURN // max(probes, 1), 1), MAX_RECORDS_PER_TURN)

    def start(self, new: Iterable[ProbeInstance]) -> None:
        """Apply the first result of new probes: passed, unless existing records of the kernel log are failures."""
        added = [self._instances[instance.id] for instance in new if instance.id in self._instances]
        for instance, listening in added:
            if listening.stream is EventStream.UEVENTS:
                error = self._uevents_error()
                self._apply(instance, Result(Outcome.ERROR, error) if error else _PASSED)
        ids = {instance.id for instance, listening in added if listening.stream is EventStream.KERNEL_LOG}
        if ids:
            self._spawn(self._read_log(ids))

    def on_uevent(self, event: Uevent) -> None:
        """Evaluate an event of the kernel."""
        for instance, listening in self._instances.values():
            result = None
            if listening.stream is EventStream.UEVENTS:
                result = listening.evaluate(instance.bound.patterns, event)
            elif is_driver_bound(instance.bound.sysfs_directories, event):
                # Earlier log records concern the driver that was bound before.
                result = _PASSED
            if result is not None:
                self._apply(instance, result)

    def close(self) -> None:
        """Stop following the kernel log."""
        if self._log is not None:
            self._log.close()

    def _instances_of(self, stream: EventStream) -> Iterable[ProbeInstance]:
        return (instance for instance, listening in self._instances.values() if listening.stream is stream)

    async def _read_log(self, ids: AbstractSet[object]) -> None:
        """Evaluate the existing records of the log for these probes, and follow the log for all probes."""
        try:
            await self._replay_log(ids)
        except Exception as error:  # noqa: BLE001 - a defect of genplug is an error of these probes only
            failed = Result(Outcome.ERROR, f"internal error: {error!r}; please report it")
            self._apply_to_pending(failed)
        self._flush()

    async def _replay_log(self, ids: AbstractSet[object]) -> None:
        if self._log is None or self._log.error:
            if self._log is not None:
                self._log.close()
            self._log = self._open_log()
            records = await self._log.follow()
        else:
            records = await self._log.read_existing()
        log = self._log
        log.records_per_turn = self._records_per_turn
        waiting = [instance.id for instance in self._instances_of(EventStream.KERNEL_LOG) if instance.id in ids]
        count = max(MAX_EVALUATIONS_PER_TURN // max(len(records), 1), 1)
        for start in range(0, len(waiting), count):
            turn = frozenset(waiting[start : start + count])
            # The current probes: a reload may have replaced them in the meantime.
            self._evaluate_records([pair for id_, pair in self._instances.items() if id_ in turn], records)
            # The evaluation for all probes can take seconds, in which the kubelet would wait for responses.
            await asyncio.sleep(0)
        self._apply_to_pending(Result(Outcome.ERROR, log.error) if log.error else _PASSED)

    def _open_log(self) -> KernelLog | KernelLogBuffer:
        """Return a reader of /dev/kmsg, or of the log by syslog(2) if this process may not open the device node."""
        path = self._host.process_path(PATH)
        if is_kernel_log(path) and is_open_denied(path):
            return KernelLogBuffer(self._on_records, self._on_log_error, self._on_log_gap)
        return KernelLog(path, self._on_records, self._on_log_error, self._on_log_gap)

    def _on_log_gap(self) -> None:
        now = time.monotonic()
        if now >= self._gap_report_due:
            self._gap_report_due = now + GAP_REPORT_SECONDS
            self.report_gap()

    def _apply_to_pending(self, result: Result) -> None:
        for instance in self._instances_of(EventStream.KERNEL_LOG):
            if instance.state.is_pending:
                self._apply(instance, result)

    def _on_records(self, records: Sequence[LogRecord]) -> None:
        self._evaluate_records(self._instances.values(), records)
        self._flush()

    def _on_log_error(self) -> None:
        error = self._log.error if self._log is not None else ""
        for instance in self._instances_of(EventStream.KERNEL_LOG):
            self._apply(instance, Result(Outcome.ERROR, error))
        self._flush()

    def _evaluate_records(
        self, instances: Iterable[tuple[ProbeInstance, Listening]], records: Sequence[LogRecord]
    ) -> None:
        records_by_check: dict[object, list[LogRecord]] = {}
        for instance, listening in instances:
            if listening.stream is not EventStream.KERNEL_LOG:
                continue
            check = instance.bound.spec.check
            if check not in records_by_check:
                records_by_check[check] = [record for record in records if listening.may_concern(check, record.text)]
            newest = _find_newest(instance, listening, records_by_check[check])
            # A record that arrived while the existing records were read is newer than those.
            if newest is not None and newest[0] > instance.log_position:
                instance.log_position = newest[0]
                self._apply(instance, newest[1])


def is_driver_bound(directories: tuple[str, ...], event: Uevent) -> bool:
    """Return whether a driver was bound to the device of these directories, or to a device of which it is a part.

    The devices below it and the bridges above it have drivers of their own.
    """
    bound = f"/sys{event.devpath}/"
    is_own = any(f"{directory}/".startswith(bound) for directory in directories)
    return event.action == "bind" and is_own and event.values.get("DRIVER") != "pcieport"


def _find_newest(
    instance: ProbeInstance, listening: Listening, records: Iterable[LogRecord]
) -> tuple[int, Result] | None:
    """Return the number and the result of the last record that has a result for a device."""
    newest = None
    for record in records:
        if (result := listening.evaluate(instance.bound.patterns, record.text)) is not None:
            newest = (record.number, result)
    return newest
