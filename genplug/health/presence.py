"""Evaluates the health of devices from their presence, their faults and the failures of their probes. Pure.

The kubelet shows an allocated device that is missing from the list as healthy (docs/internals/kubelet-contract.md §4).
A device that disappears therefore lingers in the list, Unhealthy, for ``removalGracePeriodSeconds``.
A device that loses a part of its nodes is what is left of it: a missing node that is required is a fault of discovery.
A device that returns is judged as a new device: nothing of the time before its absence counts.
A device that a changed configuration does not select any more does not linger, and neither does a device whose hardware
is offered under another ID: discovery offers that when no pod uses the first ID.
Times are monotonic seconds.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from functools import cache, partial

from attrs import Attribute, astuple, evolve

from genplug.hardware.inventory import Device, Inventory
from genplug.hardware.ledger import Thing, is_replugged, things_of
from genplug.health.verdict import (
    PRESENCE,
    DeviceHealth,
    DeviceRef,
    HealthSnapshot,
    ProbeFailure,
    ProbeResults,
    Verdict,
)
from genplug.spec.location import SourceLocation
from genplug.spec.model import Resource
from genplug.spec.natural_sort import natural_sort_key

NO_PROBE_RESULTS = ProbeResults()
WAITING = "the device has returned and waits for the first results of its probes"


def evaluate_health(
    inventory: Inventory,
    previous: HealthSnapshot | None,
    grace_periods: Mapping[str, float],
    now: float,
    results: ProbeResults = NO_PROBE_RESULTS,
) -> HealthSnapshot:
    """Return the health of every device of an inventory, and of the devices that linger.

    ``grace_periods`` has for each resource the seconds for which a device that disappeared lingers.
    A new device that waits for the first result of a probe is not in the snapshot; a returned device is Unhealthy.
    Unchanged entries are the identical objects of ``previous``.
    """
    present = {device.id for devices in inventory.devices.values() for device in devices}
    evaluated: dict[str, tuple[DeviceHealth, ...]] = {}
    deadlines: list[float] = []
    taken = cache(partial(_find_taken, inventory))
    for name, devices in {**_resources_without_devices(inventory, previous), **inventory.devices}.items():
        grace, resource = grace_periods.get(name, 0.0), _find_resource(name, inventory, previous)
        known = _find_known(name, inventory, previous)
        refs = {device.id: DeviceRef(name, device.id) for device in devices}
        entries: list[DeviceHealth] = []
        for device in devices:
            entry, ref = known.get(device.id), refs[device.id]
            if ref in results.pending and (entry is None or _has_returned(device, entry)):
                deadlines.append(results.pending[ref])
                if entry is not None:
                    entries.append(_wait_for_probes(device, entry, now))
            else:
                entries.append(_evaluate_device(device, entry, now, results.failures.get(ref, ())))
        gone = [entry for id_, entry in known.items() if id_ not in present]
        if gone:
            reasons = _find_reasons({name, resource.configured_name if resource is not None else name}, inventory)
            gone = [entry for entry in gone if not _is_replaced(entry.device, resource, taken())]
            lingering = (_let_linger(entry, reasons, grace, now) for entry in gone)
            entries = sorted([*entries, *(entry for entry in lingering if entry is not None)], key=_sort_key)
        if name not in inventory.devices and not entries:
            continue
        evaluated[name] = tuple(entries)
        deadlines += (
            entry.gone_since + grace
            for entry in entries
            if entry.gone_since is not None and entry.device.id not in present
        )
    found = {name: _find_resource(name, inventory, previous) for name in evaluated}
    resources = {name: resource for name, resource in found.items() if resource is not None}
    return HealthSnapshot(evaluated, min(deadlines, default=None), inventory, resources)


def _find_taken(inventory: Inventory) -> dict[Thing, list[Resource]]:
    """Return the resources whose devices have each thing."""
    taken: dict[Thing, list[Resource]] = {}
    for name, devices in inventory.devices.items():
        if (resource := inventory.resources.get(name)) is not None:
            for device in devices:
                for thing in things_of(device, resource):
                    taken.setdefault(thing, []).append(resource)
    return taken


def _is_replaced(device: Device, resource: Resource | None, taken: Mapping[Thing, Sequence[Resource]]) -> bool:
    """Return whether the hardware of a device that disappeared is offered under another ID."""
    return resource is not None and any(
        other.configured_name == resource.configured_name or not (other.overlap and resource.overlap)
        for thing in things_of(device, resource)
        if thing[0] in {"node", "path"}
        for other in taken.get(thing, ())
    )


def _resources_without_devices(inventory: Inventory, previous: HealthSnapshot | None) -> dict[str, tuple[Device, ...]]:
    """Return the instances whose devices have all disappeared: they exist while those devices linger."""
    if previous is None:
        return {}
    return {
        name: ()
        for name, resource in previous.resources.items()
        if name not in inventory.devices and resource.name != resource.configured_name
        if resource.configured_name in inventory.scans
    }


def _find_resource(name: str, inventory: Inventory, previous: HealthSnapshot | None) -> Resource | None:
    if name in inventory.resources or previous is None:
        return inventory.resources.get(name)
    return previous.resources.get(name)


def _find_known(name: str, inventory: Inventory, previous: HealthSnapshot | None) -> dict[str, DeviceHealth]:
    """Return the previous entries of a resource by ID, without devices that a changed configuration deselects."""
    if previous is None or name not in previous.devices:
        return {}
    known = {entry.device.id: entry for entry in previous.devices[name]}
    if _is_same_selection(name, inventory, previous):
        return known
    # An absent device may only be deselected; the others keep the time of their verdict.
    present = {device.id: device for device in inventory.devices.get(name, ())}
    return {id_: evolve(entry, device=present[id_]) for id_, entry in known.items() if id_ in present}


def _is_same_selection(name: str, inventory: Inventory, previous: HealthSnapshot) -> bool:
    old = _find_scanned(name, previous.inventory, previous)
    new = _find_scanned(name, inventory, previous)
    return old is None or new is None or old is new or _selection_key(old) == _selection_key(new)


def _find_scanned(name: str, inventory: Inventory | None, previous: HealthSnapshot) -> Resource | None:
    """Return the resource of the scan that found the devices: a slow scan can be of an earlier configuration."""
    resource = (inventory.resources.get(name) if inventory is not None else None) or previous.resources.get(name)
    if resource is None or inventory is None or resource.configured_name not in inventory.scans:
        return resource
    return inventory.scans[resource.configured_name].resource


def _selection_key(resource: Resource) -> tuple[object, ...]:
    """Return the settings that select the devices of a resource, without locations in the configuration."""

    def is_relevant(attribute: "Attribute[object]", value: object) -> bool:
        # Compiled patterns of selectors have no equality; their text is compared.
        return not isinstance(value, SourceLocation) and attribute.name != "matches"

    sources = tuple(astuple(source, filter=is_relevant) for source in resource.sources)
    return (resource.overlap, sources)


def _evaluate_device(
    device: Device, previous: DeviceHealth | None, now: float, failures: tuple[ProbeFailure, ...]
) -> DeviceHealth:
    is_present = previous is not None and previous.device is device and previous.gone_since is None
    if previous is not None and is_present and previous.failures == failures:
        return previous
    return _reuse(
        DeviceHealth(device, _make_verdict(device.faults, previous, now, failures), failures=failures), previous
    )


def _has_returned(device: Device, previous: DeviceHealth) -> bool:
    """Return whether a device was absent: it lingered, or all of its nodes were replaced between two scans."""
    return previous.gone_since is not None or is_replugged(previous.device, device)


def _wait_for_probes(device: Device, previous: DeviceHealth, now: float) -> DeviceHealth:
    """Return the entry of a returned device without probe results. It was not Healthy, and its probes decide."""
    since = now if previous.gone_since is None else previous.gone_since
    return _reuse(DeviceHealth(device, _make_verdict((WAITING,), previous, now), since), previous)


def _let_linger(previous: DeviceHealth, reasons: Mapping[str, str], grace: float, now: float) -> DeviceHealth | None:
    """Return the entry of a device that disappeared, or None if its grace period is over."""
    device = previous.device
    since = now if previous.gone_since is None else previous.gone_since
    if now >= since + grace:
        return None
    texts = tuple(f"{path} {reasons.get(path, 'is gone')}" for path in device.candidates)
    return _reuse(DeviceHealth(device, _make_verdict(texts, previous, now), since), previous)


def _find_reasons(names: Container[str], inventory: Inventory) -> dict[str, str]:
    """Return the reasons why existing paths are not a device any more, or belong to another device."""
    belonging = {
        path: f"belongs to device {device.id} now"
        for name, devices in inventory.devices.items()
        if name in names
        for device in devices
        for path in device.candidates
    }
    left_out = (outcome for outcome in inventory.left_out if outcome.resource in names)
    return {**{outcome.path: f"is no longer usable: {outcome.reason}" for outcome in left_out}, **belonging}


def _make_verdict(
    reasons: Iterable[str], previous: DeviceHealth | None, now: float, failures: tuple[ProbeFailure, ...] = ()
) -> Verdict:
    """Return the verdict for these reasons; it is the previous one if the reason is the same."""
    texts = tuple(reasons)
    reason = "; ".join((*texts, *(f"probe {failure.probe}: {failure.reason}" for failure in failures)))
    if previous is not None and previous.verdict.reason == reason:
        return previous.verdict
    probe = PRESENCE if texts else failures[0].probe if failures else ""
    return Verdict(not reason, reason, now, probe)


def _reuse(entry: DeviceHealth, previous: DeviceHealth | None) -> DeviceHealth:
    return previous if previous is not None and previous == entry else entry


def _sort_key(entry: DeviceHealth) -> tuple[object, str]:
    return natural_sort_key(entry.device.key), entry.device.id
