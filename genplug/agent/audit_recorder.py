"""Records for the audit log what the agent does. Without ``--audit-dir``, nothing of this module is used.

The recorder gets snapshots and events in the event loop, polls the pod-resources API of the kubelet while devices are
in use, and gives records to a :class:`~genplug.audit.writer.AuditWriter`. No error in it affects the agent.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeAlias

from msgspec.structs import replace

from genplug import __version__
from genplug.agent.audit_config import compare_configs, digest_policy
from genplug.agent.audit_hardware import describe_device, read_hardware
from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.delayed_work import DelayedWork
from genplug.agent.settings import Settings
from genplug.agent.snapshot import Snapshot
from genplug.agent.wakeup import Wakeup
from genplug.audit.assignments import Assignments, Began, Change, ContainerUse, Continued, Ended, ReportTimes, Seen
from genplug.audit.records import (
    Assignment,
    Container,
    EndReason,
    Fields,
    Hardware,
    Origin,
    RecordType,
    cut_text,
    encode_record,
    format_optional_time,
    format_time,
    round_time,
)
from genplug.audit.steady_clock import seconds_since_boot
from genplug.audit.writer import AuditWriter, Recovery
from genplug.hardware.device_ids import device_of_grant
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError, HungPaths
from genplug.health.verdict import DeviceHealth
from genplug.kubelet.client import CallError
from genplug.kubelet.pod_resources import DEADLINE_SECONDS, list_uses
from genplug.kubelet.reports import ClaimUse, DeviceUse
from genplug.observe.events import Event, EventLog, LogEvent
from genplug.observe.status import AuditStatus
from genplug.spec.limits import MAX_AUDIT_HARDWARE, MAX_AUDIT_IDS
from genplug.spec.model import Config, Resource
from genplug.spec.replacement import find_replacements, list_replaced
from genplug.spec.similarity import similarity_key

HEARTBEAT_SECONDS = 600.0
"""Seconds between two heartbeats, which limit how long before a crash the log is silent."""
POLL_DELAYS_SECONDS = (0.1, 0.4, 1.0, 2.0, 4.0)
"""Seconds between an allocation and the polls for its pod, which the kubelet reports some time after it."""
RESTART_GRACE_POLLS = 6
"""Polling intervals after the start of a kubelet or of the agent, in which a pod may be absent from the reports."""
FLUSH_SECONDS = 0.3
"""Seconds for which the end of the agent waits for the writer."""
CHECK_SECONDS = 1.0
"""Seconds between two checks of the writer while records wait."""
_ALLOCATIONS_OF_A_TURN = 2
"""Allocations that are recorded together; each takes about 100 µs."""
HARDWARE_SECONDS = 5.0
"""Seconds after which reading the hardware of devices counts as hanging."""
DEVICES_PER_RECORD = 32
"""Devices in a record: with the longest reasons, `genplug audit` accepts it."""
MAX_SHOWN_ERRORS = 20
"""Errors of a refused configuration in a record."""
_get_device_id = attrgetter("device.id")
_MAX_FILE_SECONDS = 86400.0
_FILES_PER_AGE = 10
_SEQUENCE_BYTES = 24
"""Bytes that the writer adds to a record, approximately."""

DeviceKey: TypeAlias = tuple[str, str]
"""The name of a resource, and the ID of a device of it."""
P = ParamSpec("P")


class _Allocated(NamedTuple):
    """An allocation to record."""

    resource: str
    ids: tuple[str, ...]
    time: float


def _guard(
    method: "Callable[Concatenate[AuditRecorder, P], None]",
) -> "Callable[Concatenate[AuditRecorder, P], None]":
    """Return a method that logs its errors: an error of the audit log must not end another part of the agent."""

    def guarded(self: "AuditRecorder", /, *arguments: P.args, **keywords: P.kwargs) -> None:
        if self._is_reporting:
            return
        try:
            method(self, *arguments, **keywords)
        except Exception as error:  # noqa: BLE001 - see above
            self._is_reporting = True
            try:
                self._event_log.emit_failure(f"the audit log: {method.__name__} failed: {error!r}", error)
            finally:
                self._is_reporting = False

    return guarded


class AuditRecorder:
    """Records what happens on the node. It is created and used in the event loop of the agent."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of the agent that it observes
        self,
        settings: Settings,
        host: Host,
        paths: HungPaths,
        event_log: EventLog,
        active: Callable[[], Config | None],
        find_claimed: Callable[[Iterable[ClaimUse]], Iterable[DeviceUse]],
    ) -> None:
        """``active`` returns the active configuration, ``find_claimed`` the devices of claims that containers use."""
        if settings.audit_dir is None:
            raise ValueError("expected a directory for the audit log, found none")
        self._settings = settings
        self._limits = settings.audit_limits
        self._host = host
        self._event_log = event_log
        self._active = active
        self._find_claimed = find_claimed
        self._loop = asyncio.get_running_loop()
        self._writer = AuditWriter(settings.audit_dir, self._limits, self._on_open_in_thread)
        self._calls = BlockingCalls(paths)
        self._run_id = os.urandom(4).hex()
        self._keys = 0
        self._is_reporting = False
        self._snapshot: Snapshot | None = None
        self._recorded_config: Config | None = None
        self._names: dict[str, str] = {}
        """The resource of each name under which devices are offered, aliases included."""
        self._hardware: dict[DeviceKey, Hardware] = {}
        """The hardware of each device of the snapshot that was read."""
        self._indexes: dict[str, tuple[tuple[DeviceHealth, ...], dict[str, DeviceHealth]]] = {}
        self._allocations = DelayedWork(self._record_allocation, _ALLOCATIONS_OF_A_TURN)
        """The allocations to record."""
        self._unread: dict[DeviceKey, None] = {}
        """The devices whose hardware must be read."""
        self._incomplete: set[str] = set()
        """The keys of assignments of devices whose hardware had not been read."""
        self._assignments = Assignments()
        self._recovered = asyncio.Event()
        self._poll_due = float("inf")
        self._poll_delays: tuple[float, ...] = ()
        self._grace_end = 0.0
        self._has_polled = False
        self._wakeup = Wakeup()
        self._hardware_wakeup = Wakeup()
        self._lost = 0
        self._lost_total = 0
        self._lost_from = 0.0
        self._error = ""
        self._is_check_due = False
        self._file_bytes = 0
        self._max_file_seconds = min(self._limits.max_age / _FILES_PER_AGE, _MAX_FILE_SECONDS)
        self._file_due = seconds_since_boot() + self._max_file_seconds
        """When the next file begins, in seconds since the boot: a jump of the time must not begin files."""

    def __repr__(self) -> str:
        assignments = len(self._assignments.tracked)
        return f"<AuditRecorder [{self._writer!r} | {assignments} assignments, {self._lost_total} records lost]>"

    @property
    def status(self) -> AuditStatus:
        """The state of the audit log."""
        return AuditStatus(
            str(self._settings.audit_dir),
            self._writer.written,
            self._lost_total,
            self._writer.error,
            is_required=self._settings.audit_required,
        )

    # Calls of the agent

    @_guard
    def start(self) -> None:
        """Begin to record. The records wait until the log is open."""
        self._start_grace()
        self._emit(RecordType.STARTED, {"kernel": os.uname().release, "root": str(self._settings.root)})

    @_guard
    def stop(self) -> None:
        """Record the end of the agent, and wait for the writer for a short time."""
        self._emit(RecordType.STOPPED, {"seenAt": format_optional_time(self._assignments.all_seen_at)})
        self._writer.close(FLUSH_SECONDS)

    @_guard
    def on_snapshot(self, snapshot: Snapshot, previous: Snapshot | None) -> None:
        """Record the differences between two published snapshots."""
        self._allocations.flush()
        self._snapshot = snapshot
        names = {
            offered: name
            for name, resource in snapshot.health.resources.items()
            for offered in (name, *resource.aliases)
        }
        if names.keys() - self._names.keys():
            # Pods of an earlier agent may use devices of the resources.
            self._schedule_poll(POLL_DELAYS_SECONDS[0])
        self._names |= names
        self._indexes = {name: self._indexes[name] for name in snapshot.health.devices if name in self._indexes}
        before = previous.health.devices if previous is not None else {}
        for name, devices in snapshot.health.devices.items():
            if devices is not before.get(name):
                self._record_devices(name, before.get(name, ()), devices)
        for name in before.keys() - snapshot.health.devices.keys():
            self._record_devices(name, before[name], ())
        known = previous.inventory.withheld if previous is not None else {}
        for (resource, device), reason in snapshot.inventory.withheld.items():
            if known.get((resource, device)) != reason:
                self._emit(RecordType.DEVICE_WITHHELD, _device_fields(resource, device, reason))

    @_guard
    def on_event(self, entry: LogEvent) -> None:
        """Record an event of the agent, if it belongs into the audit log."""
        facts = entry.facts
        match entry.event:
            case Event.CONFIG_LOADED:
                self._record_config()
            case Event.CONFIG_INVALID:
                summary = entry.text.partition("\n")[0].rstrip(":")
                errors = facts.get("errors", ())
                locations = list(errors)[:MAX_SHOWN_ERRORS] if isinstance(errors, tuple) else []
                self._emit(RecordType.CONFIG_REFUSED, {"summary": cut_text(summary), "errors": locations})
            case Event.ALLOCATION_REFUSED:
                self._record_refusal(str(facts["resource"]), _ids(facts), entry.text)
            case Event.REGISTERED:
                self._emit(RecordType.REGISTERED, {"resource": facts["resource"]})
            case Event.DISCONNECTED:
                fields = {"resource": facts["resource"], "reason": cut_text(entry.text)}
                self._emit(RecordType.DISCONNECTED, fields)
            case Event.KUBELET_RESTARTED:
                self._start_grace()
                self._emit(RecordType.KUBELET_RESTARTED, {})
            case _:
                pass

    @_guard
    def on_allocation(self, resource: str, ids: Iterable[str]) -> None:
        """Record an allocation, or the devices of a prepared claim, soon: the kubelet does not wait for the record."""
        self._allocations.add(_Allocated(resource, tuple(ids), round_time(time.time())))

    # Tasks

    async def run(self) -> None:
        """Read hardware, poll the kubelet and write heartbeats until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_hardware(), name="audit hardware")
            tasks.create_task(self._follow_containers(), name="audit containers")
            tasks.create_task(self._write_heartbeats(), name="audit heartbeats")

    async def _follow_containers(self) -> None:
        await self._recovered.wait()
        self._schedule_poll(0.0)
        while True:
            if self._poll_due <= time.monotonic():
                await self._poll()
            await self._wakeup.sleep_until(self._poll_due)

    async def _poll(self) -> None:
        requested_at, self._poll_due = round_time(time.time()), float("inf")
        try:
            uses = await list_uses(self._settings.pod_resources, DEADLINE_SECONDS)
        except CallError:
            self._start_grace()
            self._schedule_poll(self._settings.poll_seconds)
            return
        times = ReportTimes(requested_at, round_time(time.time()))
        self._on_report((*uses.devices, *self._find_claimed(uses.claims)), times)
        if self._assignments.has_unseen and self._poll_delays:
            delay, *left = self._poll_delays
            self._poll_delays = tuple(left)
            self._schedule_poll(delay)
        elif self._assignments.tracked:
            self._schedule_poll(self._settings.drain_seconds)

    async def _follow_hardware(self) -> None:
        while True:
            while self._unread:
                await self._read_hardware()
            await self._hardware_wakeup.sleep_until(float("inf"))

    async def _read_hardware(self) -> None:
        keys = tuple(self._unread)[:DEVICES_PER_RECORD]
        wanted = {key: device for key in keys if (device := self._find_device(key)) is not None}
        devices = tuple((health.device, resource) for health, resource in wanted.values())
        try:
            what = "reading the hardware of devices for the audit log"
            found = await self._calls.run(partial(read_hardware, devices, self._host), HARDWARE_SECONDS, what)
        except (HangError, OSError):
            found = tuple(describe_device(device) for device, _ in devices)
        for key in keys:
            self._unread.pop(key, None)
        self._record_hardware(dict(zip(wanted, found, strict=True)))

    async def _write_heartbeats(self) -> None:
        await self._recovered.wait()
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self._record_heartbeat()

    # Records

    @_guard
    def _record_heartbeat(self) -> None:
        fields = {
            "seenAt": format_optional_time(self._assignments.all_seen_at),
            "assignments": len(self._assignments.tracked),
        }
        self._emit(RecordType.HEARTBEAT, fields)

    def _record_config(self) -> None:
        config = self._active()
        if config is None:
            return
        difference = compare_configs(self._recorded_config, config)
        self._recorded_config = config
        fields = {
            "files": list(config.files),
            "policy": config.policy.name,
            "policySha256": digest_policy(config.policy),
            "added": list(difference.added),
            "removed": list(difference.removed),
            "changed": {name: list(keys) for name, keys in difference.changed.items()},
            "omitted": difference.omitted,
            "withdrawn": list(config.withdrawn),
        }
        self._emit(RecordType.CONFIG_LOADED, fields, config_sha256=config.sha256)

    def _record_devices(self, resource: str, previous: Sequence[DeviceHealth], current: Sequence[DeviceHealth]) -> None:
        removed, added = list_replaced(previous, current, find_replacements(previous, current))
        known = {health.device.id: health for health in removed}
        for health in added:
            before, device, verdict = known.pop(health.device.id, None), health.device, health.verdict
            if before is health:
                continue
            has_recovered = before is not None and verdict.healthy and not before.verdict.healthy
            if before is None or before.device != device or has_recovered:
                # Another device may be at the same path.
                self._unread[resource, device.id] = None
                self._hardware_wakeup.set()
            if before is not None and _verdict_key(before) != _verdict_key(health):
                type_ = RecordType.DEVICE_HEALTHY if verdict.healthy else RecordType.DEVICE_UNHEALTHY
                self._emit(type_, {**_device_fields(resource, device.id, verdict.reason), "probe": verdict.probe})
        for device_id, before in known.items():
            self._hardware.pop((resource, device_id), None)
            self._unread.pop((resource, device_id), None)
            reason = before.verdict.reason or "the configuration no longer matches it"
            self._emit(RecordType.DEVICE_REMOVED, _device_fields(resource, device_id, reason))

    @_guard
    def _record_hardware(self, found: Mapping[DeviceKey, Hardware]) -> None:
        """Record the devices whose hardware was read, unless they were removed or are the same as before."""
        entries = []
        for key, hardware in found.items():
            device = self._find_device(key)
            if device is None or self._hardware.get(key) == hardware:
                continue
            previous = self._hardware.get(key)
            self._hardware[key] = hardware
            health, _ = device
            entry = {
                "resource": key[0],
                "healthy": health.verdict.healthy,
                "reason": cut_text(health.verdict.reason),
                "probe": health.verdict.probe,
                "isReplacement": previous is not None,
                "hardware": hardware.as_json(),
            }
            entries.append(entry)
        if entries:
            self._emit(RecordType.DEVICES_ADDED, {"devices": entries})

    @_guard
    def _record_allocation(self, allocated: _Allocated) -> None:
        for part in _batch(allocated.ids, MAX_AUDIT_IDS):
            assignment = self._build_assignment(allocated.resource, part)
            assignment = replace(assignment, allocated_at=allocated.time, config_sha256=self._config_sha256)
            self._assignments, changes = self._assignments.after_allocation(assignment, allocated.time)
            self._record_changes(changes, allocated.time)
        self._poll_delays = POLL_DELAYS_SECONDS[1:]
        self._schedule_poll(POLL_DELAYS_SECONDS[0])

    def _record_refusal(self, resource: str, ids: Sequence[str], reason: str) -> None:
        fields = {
            "resource": resource,
            "ids": list(ids[:MAX_AUDIT_IDS]),
            "idsOmitted": max(len(ids) - MAX_AUDIT_IDS, 0),
            "reason": cut_text(reason),
        }
        self._emit(RecordType.REFUSED, fields)

    @_guard
    def _on_report(self, uses: Iterable[DeviceUse], times: ReportTimes) -> None:
        self._allocations.flush()
        resources = self._names.keys() | self._assignments.resources
        found = [
            ContainerUse(Container(use.namespace, use.pod, use.container), use.resource, frozenset(use.ids))
            for use in uses
            if use.resource in resources
        ]
        is_first, self._has_polled = not self._has_polled, True
        self._assignments, changes = self._assignments.after_report(
            found,
            times,
            lambda use: self._build_assignment(use.resource, tuple(sorted(use.ids))),
            may_end=time.monotonic() >= self._grace_end,
        )
        self._record_changes(changes, times.received_at)
        if is_first and self._assignments.tracked:
            # The first report confirms the assignments of the earlier process.
            self._record_heartbeat()

    def _record_changes(self, changes: Iterable[Change], time_: float) -> None:
        for change in changes:
            match change:
                case Began(assignment):
                    self._put(RecordType.ALLOCATED, {"assignment": assignment.as_json()}, time_)
                case Continued(assignment):
                    self._put(RecordType.ALLOCATED, {"isContinued": True, "assignment": assignment.as_json()})
                case Seen(assignment):
                    self._put(RecordType.ASSIGNED, {"assignment": self._complete(assignment).as_json()})
                case Ended(assignment, ended_by, reason):
                    self._incomplete.discard(assignment.key)
                    self._record_end(assignment, ended_by, reason)

    def _record_end(self, assignment: Assignment, ended_by: float, reason: EndReason) -> None:
        fields = {"assignment": assignment.as_json(), "endedBy": format_time(ended_by), "reason": reason.value}
        self._put(RecordType.RELEASED, fields)

    def _complete(self, assignment: Assignment) -> Assignment:
        """Return an assignment with the hardware of its devices, which may have been read after the allocation."""
        if assignment.key not in self._incomplete:
            return assignment
        self._incomplete.discard(assignment.key)
        built = self._describe_hardware(assignment.resource, assignment.ids)
        self._assignments = self._assignments.with_hardware(assignment.key, *built)
        return self._assignments.tracked[assignment.key].assignment

    # Devices

    def _build_assignment(self, resource: str, ids: Sequence[str]) -> Assignment:
        self._keys += 1
        key = f"{self._run_id}-{self._keys}"
        name = self._names.get(resource, resource)
        if any((name, device.device.id) not in self._hardware for device in self._find_devices(resource, ids)):
            self._incomplete.add(key)
        hardware, omitted = self._describe_hardware(resource, ids)
        return Assignment(key, resource, tuple(ids), hardware=hardware, hardware_omitted=omitted)

    def _describe_hardware(self, resource: str, ids: Sequence[str]) -> tuple[tuple[Hardware, ...], int]:
        name = self._names.get(resource, resource)
        devices = self._find_devices(resource, ids)
        hardware = tuple(
            self._hardware.get((name, health.device.id)) or describe_device(health.device)
            for health in devices[:MAX_AUDIT_HARDWARE]
        )
        return hardware, max(len(devices) - MAX_AUDIT_HARDWARE, 0)

    def _find_devices(self, resource: str, ids: Sequence[str]) -> Sequence[DeviceHealth]:
        """Return the devices that a container gets with these IDs; a token stands for all devices of the resource."""
        if self._snapshot is None:
            return ()
        name = self._names.get(resource, resource)
        configured = self._snapshot.health.resources.get(name)
        if configured is not None and configured.tokens is not None:
            return self._snapshot.health.devices.get(name, ())
        devices = self._index(name)
        wanted = dict.fromkeys(id_ if id_ in devices else device_of_grant(id_) for id_ in ids)
        return [devices[id_] for id_ in wanted if id_ in devices]

    def _index(self, resource: str) -> Mapping[str, DeviceHealth]:
        """Return the devices of a resource in the snapshot by ID."""
        devices = self._snapshot.health.devices.get(resource, ()) if self._snapshot is not None else ()
        indexed, index = self._indexes.get(resource, (None, {}))
        if indexed is not devices:
            index = dict(zip(map(_get_device_id, devices), devices, strict=True))
            self._indexes[resource] = (devices, index)
        return index

    def _find_device(self, key: DeviceKey) -> tuple[DeviceHealth, Resource] | None:
        if self._snapshot is None or (resource := self._snapshot.health.resources.get(key[0])) is None:
            return None
        health = self._index(key[0]).get(key[1])
        return None if health is None else (health, resource)

    # The writer

    @property
    def _config_sha256(self) -> str | None:
        return self._snapshot.config.sha256 if self._snapshot is not None else None

    def _emit(
        self, type_: RecordType, fields: Fields, time_: float | None = None, *, config_sha256: str | None = None
    ) -> None:
        """Give a record to the writer, after those of earlier allocations."""
        self._allocations.flush()
        self._put(type_, fields, time_, config_sha256=config_sha256)

    def _put(
        self, type_: RecordType, fields: Fields, time_: float | None = None, *, config_sha256: str | None = None
    ) -> None:
        """Give a record to the writer, or count it as lost."""
        if self._lost and not self._end_gap():
            self._lost += 1
            self._lost_total += 1
            return
        record = self._encode(type_, fields, time_, config_sha256)
        begins_file = self._is_file_complete() and not self._continue_in_new_file()
        if self._writer.put(record, begins_file=begins_file):
            self._file_bytes += len(record) + _SEQUENCE_BYTES
        else:
            self._lost, self._lost_from = 1, time.time()
            self._lost_total += 1
        self._schedule_check()

    def _encode(
        self, type_: RecordType, fields: Fields, time_: float | None = None, config_sha256: str | None = None
    ) -> bytes:
        origin = Origin(self._settings.node_name, __version__, config_sha256 or self._config_sha256)
        return encode_record(origin, time.time() if time_ is None else time_, type_, fields)

    def _is_file_complete(self) -> bool:
        is_old = seconds_since_boot() >= self._file_due
        return self._recovered.is_set() and (self._file_bytes >= self._limits.max_bytes or is_old)

    def _continue_in_new_file(self) -> bool:
        """Begin a file with the assignments that have not ended, which the deletion of older files must not remove.

        Return whether there are any; otherwise, the next record has to begin the file.
        """
        # The first records of a file do not count: they must not fill it.
        self._file_bytes, self._file_due = 0, seconds_since_boot() + self._max_file_seconds
        return self._continue_assignments(begins_file=True)

    def _continue_assignments(self, *, begins_file: bool) -> bool:
        for assignment in self._assignments.current:
            type_ = RecordType.ALLOCATED if assignment.container is None else RecordType.ASSIGNED
            record = self._encode(type_, {"isContinued": True, "assignment": assignment.as_json()})
            self._writer.put(record, begins_file=begins_file, is_forced=True)
            begins_file = False
        return bool(self._assignments.tracked)

    def _end_gap(self) -> bool:
        """Record that records were lost, if the writer has written all earlier records; return whether it was."""
        if not self._writer.is_idle:
            return False
        fields = {"lost": self._lost, "lostFrom": format_time(self._lost_from)}
        self._writer.put(self._encode(RecordType.GAP, fields), is_forced=True)
        self._continue_assignments(begins_file=False)
        self._lost = 0
        return True

    def _schedule_check(self) -> None:
        if not self._is_check_due:
            self._is_check_due = True
            self._loop.call_later(CHECK_SECONDS, self._check)

    def _check(self) -> None:
        """Log whether the log can be written, and record lost records as soon as it can."""
        self._is_check_due = False
        self._writer.start()
        if self._lost:
            self._end_gap()
        error, known = self._writer.error, self._error
        if error != known:
            self._error = error
            if error:
                text = f"the audit log cannot be written, and its records wait: {error}"
                self._event_log.emit(Event.AUDIT_UNWRITABLE, text)
            else:
                text = f"the audit log is written again; {self._lost_total} records were lost since the start"
                self._event_log.emit(Event.AUDIT_RECOVERED, text, lost=self._lost_total)
        if error or self._lost or not self._writer.is_idle:
            self._schedule_check()

    def _on_open_in_thread(self, recovery: Recovery) -> None:
        # The loop is closed when the agent has ended.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_open, recovery)

    @_guard
    def _on_open(self, recovery: Recovery) -> None:
        self._allocations.flush()
        now = round_time(time.time())
        self._file_bytes += recovery.size
        if recovery.began_at is not None:
            age = min(max(now - recovery.began_at, 0), self._max_file_seconds)
            self._file_due = seconds_since_boot() + self._max_file_seconds - age
        self._assignments, changes = self._assignments.after_recovery(
            recovery.assignments, now, is_complete=recovery.is_complete
        )
        self._record_changes(changes, now)
        self._recovered.set()

    def _schedule_poll(self, seconds: float) -> None:
        self._poll_due = min(self._poll_due, time.monotonic() + seconds)
        self._wakeup.set()

    def _start_grace(self) -> None:
        self._grace_end = time.monotonic() + RESTART_GRACE_POLLS * self._settings.drain_seconds


def _ids(facts: Mapping[str, object]) -> tuple[str, ...]:
    devices = facts["devices"]
    return tuple(map(str, devices)) if isinstance(devices, tuple) else ()


def _device_fields(resource: str, device: str, reason: str) -> dict[str, Any]:
    return {"resource": resource, "device": device, "reason": cut_text(reason)}


def _verdict_key(health: DeviceHealth) -> tuple[object, ...]:
    """Return the part of a verdict whose changes are recorded: not the numbers in its reason, such as a temperature."""
    verdict = health.verdict
    return (verdict.healthy, verdict.probe, similarity_key(verdict.reason))


def _batch(ids: Sequence[str], size: int) -> Iterable[tuple[str, ...]]:
    return (tuple(ids[start : start + size]) for start in range(0, len(ids), size))
