"""Presence: what was there and is not any more stays in the list, Unhealthy, for a while. Pure; time is monotonic.

The kubelet shows an allocated device that is missing from the list as healthy (contract 4), so a device that
vanished lingers with its reason for ``removalGracePeriodSeconds``; so does one that lost a part of its nodes, after
which it is judged by what it still has. What a changed configuration no longer asks for is not gone and does not
linger.
"""

from collections.abc import Container, Iterable, Mapping

from attrs import Attribute, astuple, evolve

from genplug.hardware.inventory import Device, Inventory
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


def evaluate_health(
    inventory: Inventory,
    previous: HealthSnapshot | None,
    keep_gone: Mapping[str, float],
    now: float,
    findings: ProbeResults = NO_PROBE_RESULTS,
) -> HealthSnapshot:
    """Judge every device of an inventory.

    ``keep_gone`` holds, for each resource, the seconds for which what vanished stays; ``now`` is monotonic seconds;
    ``findings`` is what probes say of what is there. A new device without a verdict is not listed yet.
    What is as in ``previous`` comes back as the very same objects.
    """
    present = {device.id for devices in inventory.devices.values() for device in devices}
    judged: dict[str, tuple[DeviceHealth, ...]] = {}
    deadlines: list[float] = []
    for name, devices in {**_nameless(inventory, previous), **inventory.devices}.items():
        keep, resource = keep_gone.get(name, 0.0), _resource(name, inventory, previous)
        known = _known(name, inventory, previous)
        keys = {device.id: DeviceRef(name, device.id) for device in devices}
        waiting = {id_ for id_, key in keys.items() if key in findings.pending and id_ not in known}
        deadlines += (findings.pending[keys[id_]] for id_ in waiting)
        all_judged = [
            _judged(device, known.get(device.id), keep, now, findings.failures.get(keys[device.id], ()))
            for device in devices
            if device.id not in waiting
        ]
        vanished = [one for id_, one in known.items() if id_ not in present]
        if vanished:
            reasons = _reasons({name, resource.configured_name if resource is not None else name}, inventory)
            lingering = (_lingering(one, reasons, keep, now) for one in vanished)
            all_judged = sorted([*all_judged, *(one for one in lingering if one is not None)], key=_order)
        if name not in inventory.devices and not all_judged:
            continue
        judged[name] = tuple(all_judged)
        deadlines += (one.gone_since + keep for one in all_judged if one.gone_since is not None)
    resources = {name: _resource(name, inventory, previous) for name in judged}
    known_resources = {name: one for name, one in resources.items() if one is not None}
    return HealthSnapshot(judged, min(deadlines, default=None), inventory, known_resources)


def _nameless(inventory: Inventory, previous: HealthSnapshot | None) -> dict[str, tuple[Device, ...]]:
    """Return the resources that had their name from devices of which none is left: they stay while those linger."""
    if previous is None:
        return {}
    return {
        name: ()
        for name, resource in previous.resources.items()
        if name not in inventory.devices and resource.name != resource.configured_name
        if resource.configured_name in inventory.scans
    }


def _resource(name: str, inventory: Inventory, previous: HealthSnapshot | None) -> Resource | None:
    if name in inventory.resources or previous is None:
        return inventory.resources.get(name)
    return previous.resources.get(name)


def _known(name: str, inventory: Inventory, previous: HealthSnapshot | None) -> dict[str, DeviceHealth]:
    """Return what was judged of a resource; nothing where its configuration has changed what is looked for."""
    if previous is None or name not in previous.devices:
        return {}
    known = {one.device.id: one for one in previous.devices[name]}
    if _same_selection(name, inventory, previous):
        return known
    # What is missing may still be there and only not be asked for; a verdict's time stays.
    present = {device.id: device for device in inventory.devices.get(name, ())}
    return {id_: evolve(one, device=present[id_]) for id_, one in known.items() if id_ in present}


def _same_selection(name: str, inventory: Inventory, previous: HealthSnapshot) -> bool:
    old = previous.resources.get(name)
    new = inventory.resources.get(name)
    if new is None and old is not None and old.configured_name in inventory.scans:
        new = inventory.scans[old.configured_name].resource
    return old is None or new is None or old is new or _selection_key(old) == _selection_key(new)


def _selection_key(resource: Resource) -> tuple[object, ...]:
    """Return what decides which devices a resource has, wherever in the file it stands."""

    def counts(attribute: "Attribute[object]", value: object) -> bool:
        # A selector's compiled pattern has no equality of its own; its text is compared.
        return not isinstance(value, SourceLocation) and attribute.name != "matches"

    sources = tuple(astuple(source, filter=counts) for source in resource.sources)
    return (resource.overlap, sources)


def _judged(
    device: Device, before: DeviceHealth | None, keep: float, now: float, ailments: tuple[ProbeFailure, ...]
) -> DeviceHealth:
    if before is not None and before.device is device and before.gone_since is None and before.failures == ailments:
        return before
    lost = _lost(device, before)
    since = _gone_since(lost, before, now)
    if since is None or now >= since + keep:
        return _kept(DeviceHealth(device, _verdict(device.faults, before, now, ailments), failures=ailments), before)
    missing = tuple(node for node in (before.device.nodes if before is not None else ()) if node.path in lost)
    whole = evolve(device, nodes=tuple(sorted((*device.nodes, *missing), key=lambda node: natural_sort_key(node.path))))
    reasons = (*(f"{path} is gone" for path in lost), *device.faults)
    return _kept(DeviceHealth(whole, _verdict(reasons, before, now, ailments), since, lost, ailments), before)


def _lost(device: Device, before: DeviceHealth | None) -> tuple[str, ...]:
    """Return the paths of the nodes that a device had and has not; none where all are others."""
    if before is None or device.nodes == before.device.nodes:
        return ()
    has = {node.path for node in device.nodes}
    lost = tuple(node.path for node in before.device.nodes if node.path not in has)
    # What was plugged in anew may have other numbers and names; who it is, its ID says.
    is_another_time = len(lost) == len(before.device.nodes) and len(device.nodes) >= len(lost)
    return () if is_another_time else lost


def _lingering(before: DeviceHealth, reasons: Mapping[str, str], keep: float, now: float) -> DeviceHealth | None:
    device = before.device
    paths = tuple(dict.fromkeys((*device.candidates, *(node.path for node in device.nodes))))
    since = _gone_since(paths, before, now)
    if since is None or now >= since + keep:
        return None
    said = tuple(f"{path} {reasons.get(path, 'is gone')}" for path in device.candidates)
    return _kept(DeviceHealth(device, _verdict(said, before, now), since, paths), before)


def _gone_since(gone: tuple[str, ...], before: DeviceHealth | None, now: float) -> float | None:
    """Return since when all of this is gone: from now on where it has become more."""
    if not gone:
        return None
    if before is not None and before.gone_since is not None and set(gone) <= set(before.gone):
        return before.gone_since
    return now


def _reasons(names: Container[str], inventory: Inventory) -> dict[str, str]:
    """Return why paths that are there make no device any more, or not the one they made."""
    return {
        one.path: f"is no longer usable: {one.reason}" if one.device is None else f"belongs to device {one.device} now"
        for one in inventory.outcomes
        if one.resource in names
    }


def _verdict(
    reasons: Iterable[str], before: DeviceHealth | None, now: float, ailments: tuple[ProbeFailure, ...] = ()
) -> Verdict:
    seen = tuple(reasons)
    reason = "; ".join((*seen, *(f"probe {one.probe}: {one.reason}" for one in ailments)))
    if before is not None and before.verdict.reason == reason:
        return before.verdict
    probe = PRESENCE if seen else ailments[0].probe if ailments else ""
    return Verdict(not reason, reason, now, probe)


def _kept(judged: DeviceHealth, before: DeviceHealth | None) -> DeviceHealth:
    return before if before is not None and before == judged else judged


def _order(judged: DeviceHealth) -> tuple[object, str]:
    return natural_sort_key(judged.device.key), judged.device.id
