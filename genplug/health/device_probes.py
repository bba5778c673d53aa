"""The probes of all devices of an inventory, and their states across changes of devices and configuration. Pure.

A probe keeps its state as long as it checks the same property of the same device.
A device that disappears and returns is a new device: no result from before counts, sticky failures included.
"""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from genplug.hardware.inventory import Device, Inventory
from genplug.hardware.ledger import is_replugged
from genplug.health.binding import BoundProbe, bind_probe
from genplug.health.probe_instance import ProbeInstance
from genplug.health.thresholds import initial_state
from genplug.health.verdict import DeviceRef, ProbeFailure, ProbeResults
from genplug.spec.limits import MAX_PROBED_DEVICES
from genplug.spec.model import Resource
from genplug.spec.policy import Policy
from genplug.spec.probes import HealthSpec

FIRST_RESULT_TIMEOUT = 2.0
"""Seconds for which a new device waits for its first result before it is listed without one."""


class Update(Struct, frozen=True):
    """The probes that an update changed.

    ``started`` are probes that run from now on, and ``new`` are those without a result.
    ``ended`` are probes that do not run any more, and ``forgotten`` are those whose state is not kept.
    """

    started: list[ProbeInstance] = []
    new: list[ProbeInstance] = []
    ended: list[ProbeInstance] = []
    forgotten: list[ProbeInstance] = []


class DeviceProbes:
    """The probes of the devices of the newest inventory.

    The probes of a device that disappears are forgotten: a device that returns is judged as a new device.

    ``is_archive`` is whether the devices are those of an archive of a node.
    """

    def __init__(self, *, is_archive: bool = False) -> None:
        self._is_archive = is_archive
        self._devices: dict[DeviceRef, tuple[Device, HealthSpec, Policy]] = {}
        self._instances: dict[DeviceRef, dict[str, ProbeInstance]] = {}
        self._count = 0

    def __iter__(self) -> Iterator[ProbeInstance]:
        return (instance for instances in self._instances.values() for instance in instances.values())

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        pending = sum(instance.state.is_pending for instance in self)
        failed = sum(not instance.state.healthy for instance in self)
        return f"<DeviceProbes [{len(self)} probes: {pending} pending, {failed} failed]>"

    @property
    def is_pending(self) -> bool:
        """Whether a probe has neither a result nor an error yet."""
        return any(instance.state.is_pending for instance in self)

    def results(self, now: float) -> ProbeResults:
        """Return failures and warnings of devices, and until when they wait for a first result (monotonic seconds)."""
        failures, warnings, pending = {}, {}, {}
        for ref, instances in self._instances.items():
            if failed := tuple(_list_failures(instances, are_warnings=False)):
                failures[ref] = failed
            if failed := tuple(_list_failures(instances, are_warnings=True)):
                warnings[ref] = failed
            until = [
                each.since + FIRST_RESULT_TIMEOUT
                for each in instances.values()
                if each.state.is_pending and not each.is_warning
            ]
            if max(until, default=now) > now:
                pending[ref] = max(until)
        return ProbeResults(failures, pending, warnings)

    def update(self, inventory: Inventory, now: float) -> Update:
        """Watch the devices of an inventory, and no others; return the changes."""
        update, present = Update(), dict(_devices_with_probes(inventory))
        for ref in self._instances.keys() - present.keys():
            self._forget_device(ref, update)
        for ref, (device, resource) in present.items():
            previous = self._devices.get(ref)
            if previous is not None and is_replugged(previous[0], device):
                self._forget_device(ref, update)
                previous = None
            if previous is None or previous[0] is not device or previous[1:] != (resource.health, resource.policy):
                self._update_device(ref, device, resource, now, update)
        return update

    def _forget_device(self, ref: DeviceRef, update: Update) -> None:
        del self._devices[ref]
        instances = self._instances.pop(ref)
        self._count -= len(instances)
        update.ended.extend(instances.values())
        update.forgotten.extend(instances.values())

    def _update_device(self, ref: DeviceRef, device: Device, resource: Resource, now: float, update: Update) -> None:
        previous = self._instances.get(ref, {})
        self._count -= len(previous)
        instances: dict[str, ProbeInstance] = {}
        update.ended.extend(previous.values())
        for spec in resource.health.probes:
            bound = bind_probe(device, resource, spec, is_archive=self._is_archive)
            if self._count + len(instances) >= MAX_PROBED_DEVICES:
                reason = f"not run: the node has more than {MAX_PROBED_DEVICES} probes of devices, the maximum"
                bound = BoundProbe(ref, spec, error=reason)
            old = previous.get(spec.name)
            if old is not None and _is_same_probe(old.bound, bound):
                instance = replace(previous.pop(spec.name), bound=bound)
            else:
                instance = ProbeInstance(bound, initial_state(now), now)
                update.new.append(instance)
            instances[spec.name] = instance
            if not instance.is_sticky_failed:
                update.started.append(instance)
        update.forgotten.extend(previous.values())
        self._count += len(instances)
        self._devices[ref], self._instances[ref] = (device, resource.health, resource.policy), instances


def _list_failures(instances: Mapping[str, ProbeInstance], *, are_warnings: bool) -> Iterator[ProbeFailure]:
    for name, instance in instances.items():
        if not instance.state.healthy and instance.is_warning == are_warnings:
            yield ProbeFailure(name, instance.state.reason)


def _devices_with_probes(inventory: Inventory) -> Iterable[tuple[DeviceRef, tuple[Device, Resource]]]:
    for name, devices in inventory.devices.items():
        resource = inventory.resources.get(name)
        if resource is not None and resource.health.probes:
            for device in devices:
                yield DeviceRef(name, device.id), (device, resource)


def _is_same_probe(old: BoundProbe, new: BoundProbe) -> bool:
    """Return whether both probes check the same property, so that the state of the old probe is kept."""
    if old.spec.is_warning != new.spec.is_warning:
        return False
    same = (old.request, old.error, old.sysfs_directories) == (new.request, new.error, new.sysfs_directories)
    return same and old.spec.check == new.spec.check
