"""The probes of all devices of an inventory, and their states across changes of devices and configuration. Pure.

A probe keeps its state as long as it checks the same property of the same device.
A device that disappears and returns is a new device: no result from before counts, sticky failures included.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from genplug.hardware.inventory import Device, Inventory
from genplug.hardware.ledger import is_replugged
from genplug.health.binding import BoundProbe, ProbeBinder
from genplug.health.probe_instance import ProbeInstance
from genplug.health.thresholds import ProbeState, initial_state
from genplug.health.verdict import DeviceRef, ProbeFailure, ProbeResults
from genplug.spec.limits import MAX_PROBED_DEVICES
from genplug.spec.policy import Policy
from genplug.spec.probes import HealthSpec
from genplug.spec.replacement import find_replacements, list_replaced

FIRST_RESULT_TIMEOUT = 2.0
"""Seconds for which a new device waits for its first result before it is listed without one."""


class Update(Struct, frozen=True):
    """The probes that an update changed.

    ``current`` are the probes of all devices that are new or have changed.
    ``started`` are those of them that run from now on, and ``new`` those without a result.
    ``ended`` are probes that do not run any more, and ``forgotten`` are those whose state is not kept.
    """

    current: list[ProbeInstance] = []
    started: list[ProbeInstance] = []
    new: list[ProbeInstance] = []
    ended: list[ProbeInstance] = []
    forgotten: list[ProbeInstance] = []


class _Watched(NamedTuple):
    """The devices of a resource with probes, and the settings that the probes depend on."""

    devices: tuple[Device, ...]
    health: HealthSpec
    policy: Policy


class DeviceProbes:
    """The probes of the devices of the newest inventory.

    The probes of a device that disappears are forgotten: a device that returns is judged as a new device.

    ``is_archive`` is whether the devices are those of an archive of a node.
    """

    def __init__(self, *, is_archive: bool = False) -> None:
        self._is_archive = is_archive
        self._watched: dict[str, _Watched] = {}
        self._instances: dict[DeviceRef, tuple[ProbeInstance, ...]] = {}
        self._count = 0
        self._without_result: set[tuple[DeviceRef, str]] = set()
        """The probes that have neither a result nor an error."""
        self._changed: set[DeviceRef] = set()
        """The devices whose results have changed since they were collected."""
        self._failures: dict[DeviceRef, tuple[ProbeFailure, ...]] = {}
        self._warnings: dict[DeviceRef, tuple[ProbeFailure, ...]] = {}
        self._pending: dict[DeviceRef, float] = {}

    def __iter__(self) -> Iterator[ProbeInstance]:
        return (instance for instances in self._instances.values() for instance in instances)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        failed = sum(not instance.state.healthy for instance in self)
        return f"<DeviceProbes [{len(self)} probes: {len(self._without_result)} pending, {failed} failed]>"

    @property
    def is_pending(self) -> bool:
        """Whether a probe has neither a result nor an error yet."""
        return bool(self._without_result)

    def set_state(self, instance: ProbeInstance, state: ProbeState) -> None:
        """Replace the state of a probe."""
        instance.state = state
        self._changed.add(instance.bound.device)
        is_current = any(each is instance for each in self._instances.get(instance.bound.device, ()))
        if is_current and not state.is_pending:
            self._without_result.discard(instance.id)
            if not self._without_result:
                # A set keeps the memory of all elements that it had.
                self._without_result = set()

    def results(self, now: float) -> ProbeResults:
        """Return failures and warnings of devices, and until when they wait for a first result (monotonic seconds)."""
        for ref in (*self._changed, *self._pending):
            self._collect(ref, self._instances.get(ref, ()), now)
        self._changed.clear()
        return ProbeResults(dict(self._failures), dict(self._pending), dict(self._warnings))

    def _collect(self, ref: DeviceRef, instances: Sequence[ProbeInstance], now: float) -> None:
        for are_warnings, found in ((False, self._failures), (True, self._warnings)):
            if failed := tuple(_list_failures(instances, are_warnings=are_warnings)):
                found[ref] = failed
            else:
                found.pop(ref, None)
        until = [
            each.since + FIRST_RESULT_TIMEOUT for each in instances if each.state.is_pending and not each.is_warning
        ]
        if max(until, default=now) > now:
            self._pending[ref] = max(until)
        else:
            self._pending.pop(ref, None)

    def update(self, inventory: Inventory, now: float) -> Update:
        """Watch the devices of an inventory, and no others; return the changes."""
        update, watched = Update(), dict(_list_watched(inventory))
        changes = {name: _compare(self._watched.get(name), watched.get(name)) for name in {**self._watched, **watched}}
        for name, (removed, added) in changes.items():
            for device_id in removed.keys() - added.keys():
                self._forget_device(DeviceRef(name, device_id), update)
        for name, (removed, added) in changes.items():
            if not added:
                continue
            binder = ProbeBinder(inventory.resources[name], is_archive=self._is_archive)
            for device_id, device in added.items():
                ref, known = DeviceRef(name, device_id), removed.get(device_id)
                if known is not None and is_replugged(known, device):
                    self._forget_device(ref, update)
                self._update_device(ref, device, binder, now, update)
        # Last, so that the next update completes what this one could not.
        self._watched = watched
        return update

    def _forget_device(self, ref: DeviceRef, update: Update) -> None:
        instances = self._instances.pop(ref, ())
        self._count -= len(instances)
        self._changed.add(ref)
        self._without_result.difference_update(instance.id for instance in instances)
        update.ended.extend(instances)
        update.forgotten.extend(instances)

    def _update_device(self, ref: DeviceRef, device: Device, binder: ProbeBinder, now: float, update: Update) -> None:
        ended = self._instances.get(ref, ())
        previous = {instance.bound.spec.name: instance for instance in ended}
        self._count -= len(previous)
        instances: list[ProbeInstance] = []
        update.ended.extend(ended)
        for candidate in binder.bind(device):
            bound = candidate
            if self._count + len(instances) >= MAX_PROBED_DEVICES:
                reason = f"not run: the node has more than {MAX_PROBED_DEVICES} probes of devices, the maximum"
                bound = BoundProbe(ref, candidate.spec, error=reason)
            name = bound.spec.name
            old = previous.get(name)
            if old is not None and _is_same_probe(old.bound, bound):
                instance = replace(previous.pop(name), bound=bound)
            else:
                instance = ProbeInstance(bound, initial_state(now), now)
                update.new.append(instance)
                self._without_result.add(instance.id)
            instances.append(instance)
            if not instance.is_sticky_failed:
                update.started.append(instance)
        update.forgotten.extend(previous.values())
        self._without_result.difference_update({each.id for each in ended} - {each.id for each in instances})
        update.current.extend(instances)
        self._count += len(instances)
        self._changed.add(ref)
        self._instances[ref] = tuple(instances)


def _compare(previous: _Watched | None, current: _Watched | None) -> tuple[dict[str, Device], dict[str, Device]]:
    """Return the devices, by ID, that are not the same before and now, or have other probes."""
    old = previous.devices if previous is not None else ()
    new = current.devices if current is not None else ()
    if previous is None or current is None or previous[1:] != current[1:]:
        return {device.id: device for device in old}, {device.id: device for device in new}
    removed, added = list_replaced(old, new, find_replacements(old, new))
    before, after = {device.id: device for device in removed}, {device.id: device for device in added}
    same = [device_id for device_id, device in before.items() if after.get(device_id) is device]
    for device_id in same:
        del before[device_id], after[device_id]
    return before, after


def _list_failures(instances: Iterable[ProbeInstance], *, are_warnings: bool) -> Iterator[ProbeFailure]:
    for instance in instances:
        if not instance.state.healthy and instance.is_warning == are_warnings:
            yield ProbeFailure(instance.bound.spec.name, instance.state.reason)


def _list_watched(inventory: Inventory) -> Iterator[tuple[str, _Watched]]:
    for name, devices in inventory.devices.items():
        resource = inventory.resources.get(name)
        if resource is not None and resource.health.probes:
            yield name, _Watched(devices, resource.health, resource.policy)


def _is_same_probe(old: BoundProbe, new: BoundProbe) -> bool:
    """Return whether both probes check the same property, so that the state of the old probe is kept."""
    if old.spec.is_warning != new.spec.is_warning:
        return False
    same = (old.request, old.error, old.sysfs_directories) == (new.request, new.error, new.sysfs_directories)
    return same and old.spec.check == new.spec.check
