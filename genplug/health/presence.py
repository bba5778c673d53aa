"""Evaluates the health of devices from their presence, their faults and the failures of their probes. Pure.

The kubelet shows an allocated device that is missing from the list as healthy (docs/internals/kubelet-contract.md §4).
A device that disappears therefore lingers in the list, Unhealthy, for ``removalGracePeriodSeconds``.
A device that loses a part of its nodes is what is left of it: a missing node that is required is a fault of discovery.
A device that returns is judged as a new device: nothing of the time before its absence counts.
A device that a changed configuration does not select any more does not linger, and neither does a device whose hardware
is offered under another ID: discovery offers that when no pod uses the first ID.
Times are monotonic seconds.
"""

from bisect import insort
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, compress, count
from operator import attrgetter, not_
from typing import NamedTuple, cast

from msgspec import Struct
from msgspec.structs import replace

from genplug.hardware.inventory import CandidateOutcome, Device, Inventory
from genplug.hardware.ledger import Thing, is_node_or_path, is_replugged, things_of
from genplug.health.verdict import (
    NO_HEALTH,
    PRESENCE,
    DeviceHealth,
    DeviceRef,
    HealthSnapshot,
    ProbeFailure,
    ProbeResults,
    ResourceHealth,
    Verdict,
)
from genplug.spec.content import list_content
from genplug.spec.model import Resource
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.replacement import Replacement, find_replacements

NO_PROBE_RESULTS = ProbeResults()
_get_id, _get_path, _get_candidates = attrgetter("id"), attrgetter("path"), attrgetter("candidates")
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
    Unchanged entries, and unchanged tuples of entries, are the identical objects of ``previous``. Only the devices that
    are new, have changed, fail, wait or linger are evaluated; the others are compared by identity.
    """
    evaluation = _Evaluation(inventory, previous, now, results)
    evaluated: dict[str, ResourceHealth] = {}
    for name, change in evaluation.changes.items():
        health = evaluation.evaluate(name, change, grace_periods.get(name, 0.0))
        if name in inventory.devices or health.listed:
            evaluated[name] = health
    found = {name: _find_resource(name, inventory, previous) for name in evaluated}
    return HealthSnapshot(
        {name: health.listed for name, health in evaluated.items()},
        min(evaluation.deadlines, default=None),
        inventory,
        {name: resource for name, resource in found.items() if resource is not None},
        evaluated,
        results,
    )


class _Change(NamedTuple):
    """The difference between the devices of a resource and those of its previous health.

    ``known`` has the previous entries of the replaced devices and of the absent devices, by ID; ``gone`` are those of
    them whose device is not in ``devices``.
    """

    devices: tuple[Device, ...]
    previous: ResourceHealth
    replaced: Sequence[Replacement] = ()
    known: Mapping[str, DeviceHealth] = {}
    gone: tuple[DeviceHealth, ...] = ()

    @property
    def new_devices(self) -> list[Device]:
        """The devices that are new or have changed."""
        return [device for start, _, stop in self.replaced for device in self.devices[start:stop]]


class _Evaluation:
    """An evaluation of an inventory. ``deadlines`` are the times at which another evaluation has another result."""

    def __init__(
        self, inventory: Inventory, previous: HealthSnapshot | None, now: float, results: ProbeResults
    ) -> None:
        self.deadlines: list[float] = []
        self._inventory = inventory
        self._previous = previous
        self._now = now
        self._results = results
        self._healthy = Verdict(healthy=True, reason="", since=now)
        """The verdict of all devices that are healthy from now on."""
        devices = {**_resources_without_devices(inventory, previous), **inventory.devices}
        self.changes = {name: self._compare(name, present) for name, present in devices.items()}

    def evaluate(self, name: str, change: _Change, grace: float) -> ResourceHealth:
        """Return the health of the devices of a resource."""
        previous, replaced = change.previous, change.replaced
        probed = self._find_probed(name, change.devices)
        if not (replaced or probed or change.gone):
            return previous
        entries, waiting, is_changed = list(previous.present), previous.waiting, False
        for start, old_stop, new_stop in reversed(replaced):
            old = entries[start:old_stop]
            entries[start:old_stop] = new = [
                self._evaluate_device(name, device, change.known.get(device.id))
                for device in change.devices[start:new_stop]
            ]
            waiting += sum(entry is None for entry in new) - sum(entry is None for entry in old)
            is_changed |= bool(find_replacements(old, new))
        for position in probed:
            before = entries[position]
            entries[position] = after = self._evaluate_device(name, change.devices[position], before)
            waiting += (after is None) - (before is None)
            is_changed |= after is not before
        present = tuple(entries) if is_changed else previous.present
        absent = tuple(self._let_linger(name, change, grace))
        if not find_replacements(previous.absent, absent):
            absent = previous.absent
        if is_changed or absent is not previous.absent:
            listed = _list_entries(present, absent, waiting)
        else:
            listed = previous.listed
        return ResourceHealth(change.devices, present, absent, listed, waiting)

    def _compare(self, name: str, devices: tuple[Device, ...]) -> _Change:
        previous = self._previous.parts.get(name, NO_HEALTH) if self._previous is not None else NO_HEALTH
        if devices is previous.devices and not previous.absent:
            return _Change(devices, previous)
        if self._previous is not None and not _is_same_selection(name, self._inventory, self._previous):
            # An absent device may only be deselected; the others keep the time of their verdict.
            old = {entry.device.id: entry for entry in previous.listed}
            kept = {device.id: replace(old[device.id], device=device) for device in devices if device.id in old}
            return _Change(devices, previous, (Replacement(0, len(previous.present), len(devices)),), kept)
        replaced = find_replacements(previous.devices, devices)
        entries = (entry for start, stop, _ in replaced for entry in previous.present[start:stop])
        known = {entry.device.id: entry for entry in (*entries, *previous.absent) if entry is not None}
        change = _Change(devices, previous, replaced, known)
        if not known:
            return change
        new = {device.id for device in change.new_devices}
        return change._replace(gone=tuple(entry for id_, entry in known.items() if id_ not in new))

    def _find_probed(self, name: str, devices: tuple[Device, ...]) -> tuple[int, ...]:
        """Return the positions of the devices of which a probe fails or has no result, now or at the previous time."""
        ids = self._probed.get(name)
        return tuple(compress(count(), map(ids.__contains__, map(_get_id, devices)))) if ids else ()

    @cached_property
    def _probed(self) -> Mapping[str, Container[str]]:
        before = self._previous.results if self._previous is not None else NO_PROBE_RESULTS
        found: dict[str, set[str]] = {}
        for results in (before, self._results):
            for ref in chain(results.failures, results.pending):
                found.setdefault(ref.resource, set()).add(ref.device)
        return found

    def _evaluate_device(self, name: str, device: Device, entry: DeviceHealth | None) -> DeviceHealth | None:
        """Return the entry of a present device, given its previous entry; None if it waits for its first results."""
        failures: tuple[ProbeFailure, ...] = ()
        if name in self._probed:
            ref = DeviceRef(name, device.id)
            until = self._results.pending.get(ref)
            if until is not None and (entry is None or _has_returned(device, entry)):
                self.deadlines.append(until)
                return None if entry is None else self._wait_for_probes(device, entry)
            failures = self._results.failures.get(ref, ())
        if entry is not None and entry.device is device and entry.gone_since is None and entry.failures == failures:
            return entry
        verdict = self._make_verdict(device.faults, entry, failures)
        return _reuse(DeviceHealth(device, verdict, failures=failures), entry)

    def _wait_for_probes(self, device: Device, previous: DeviceHealth) -> DeviceHealth:
        """Return the entry of a returned device without probe results. It was not Healthy, and its probes decide."""
        since = self._now if previous.gone_since is None else previous.gone_since
        return _reuse(DeviceHealth(device, self._make_verdict((WAITING,), previous), since), previous)

    def _let_linger(self, name: str, change: _Change, grace: float) -> Iterator[DeviceHealth]:
        """Yield the entries of the devices that have disappeared, and whose grace period is not over."""
        if not change.gone:
            return
        resource = _find_resource(name, self._inventory, self._previous)
        reasons = self._find_reasons({name, resource.configured_name if resource is not None else name})
        for entry in change.gone:
            device, since = entry.device, self._now if entry.gone_since is None else entry.gone_since
            if device.id in self._ids_elsewhere or self._now >= since + grace:
                continue
            if resource is not None and self._is_replaced(device, resource, change):
                continue
            self.deadlines.append(since + grace)
            texts = tuple(f"{path} {reasons.get(path, 'is gone')}" for path in device.candidates)
            yield _reuse(DeviceHealth(device, self._make_verdict(texts, entry), since), entry)

    @cached_property
    def _ids_elsewhere(self) -> Container[str]:
        """The IDs of the devices that have disappeared which devices of other resources have."""
        gone = {entry.device.id for change in self.changes.values() for entry in change.gone}
        return gone.intersection(map(_get_id, chain.from_iterable(self._inventory.devices.values())))

    def _is_replaced(self, device: Device, resource: Resource, change: _Change) -> bool:
        """Return whether the hardware of a device that disappeared is offered under another ID."""
        things = {thing for thing in things_of(device, resource) if is_node_or_path(thing)}
        if any(
            other.configured_name == resource.configured_name or not (other.overlap and resource.overlap)
            for thing in things
            for other in self._newly_taken.get(thing, ())
        ):
            return True
        # A thing has one device at a time, unless the resource shares it between its own devices.
        is_shared = resource.overlap or resource.tokens is not None
        if not is_shared or any(entry.device is device for entry in change.previous.absent):
            return False
        return any(
            not things.isdisjoint(things_of(other, resource))
            for name, others in self._inventory.devices.items()
            if (found := self._inventory.resources.get(name)) is not None
            if found.configured_name == resource.configured_name
            for other in others
        )

    @cached_property
    def _newly_taken(self) -> Mapping[Thing, list[Resource]]:
        """The resources of the devices that are new or have changed, by the things of these devices."""
        taken: dict[Thing, list[Resource]] = {}
        for name, change in self.changes.items():
            if (resource := self._inventory.resources.get(name)) is not None:
                for device in change.new_devices:
                    for thing in things_of(device, resource):
                        taken.setdefault(thing, []).append(resource)
        return taken

    def _find_reasons(self, names: Container[str]) -> dict[str, str]:
        """Return the reasons why existing paths are not a device any more, or belong to another device."""
        left_out = (outcome for outcome in self._left_out_of_gone if outcome.resource in names)
        holders = (device for name, device in self._holders_of_gone if name in names)
        return {
            **{outcome.path: f"is no longer usable: {outcome.reason}" for outcome in left_out},
            **{path: f"belongs to device {device.id} now" for device in holders for path in device.candidates},
        }

    @cached_property
    def _paths_of_gone(self) -> frozenset[str]:
        """The paths of the devices that have disappeared."""
        gone = (entry for change in self.changes.values() for entry in change.gone)
        return frozenset(path for entry in gone for path in entry.device.candidates)

    @cached_property
    def _left_out_of_gone(self) -> tuple[CandidateOutcome, ...]:
        """The outcomes of the paths of the devices that have disappeared."""
        left_out = self._inventory.left_out
        return tuple(compress(left_out, map(self._paths_of_gone.__contains__, map(_get_path, left_out))))

    @cached_property
    def _holders_of_gone(self) -> tuple[tuple[str, Device], ...]:
        """The devices that have paths of the devices that have disappeared, with the names of their resources."""
        is_other = self._paths_of_gone.isdisjoint
        return tuple(
            (name, device)
            for name, devices in self._inventory.devices.items()
            for device in compress(devices, map(not_, map(is_other, map(_get_candidates, devices))))
        )

    def _make_verdict(
        self, reasons: Iterable[str], previous: DeviceHealth | None, failures: tuple[ProbeFailure, ...] = ()
    ) -> Verdict:
        """Return the verdict for these reasons; it is the previous one if the reason is the same."""
        texts = tuple(reasons)
        reason = "; ".join((*texts, *(f"probe {failure.probe}: {failure.reason}" for failure in failures)))
        if previous is not None and previous.verdict.reason == reason:
            return previous.verdict
        if not reason:
            return self._healthy
        return Verdict(healthy=False, reason=reason, since=self._now, probe=PRESENCE if texts else failures[0].probe)


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
    return (resource.overlap, tuple(map(_text_key, resource.sources)))


def _text_key(value: object) -> object:
    """Return a value without its locations and compiled patterns, which have no equality: their text is compared."""
    if isinstance(value, Struct):
        return tuple(map(_text_key, list_content(value)))
    return tuple(map(_text_key, value)) if isinstance(value, tuple) else value


def _has_returned(device: Device, previous: DeviceHealth) -> bool:
    """Return whether a device was absent: it lingered, or all of its nodes were replaced between two scans."""
    return previous.gone_since is not None or is_replugged(previous.device, device)


def _list_entries(
    present: tuple[DeviceHealth | None, ...], absent: tuple[DeviceHealth, ...], waiting: int
) -> tuple[DeviceHealth, ...]:
    """Return the entries of a resource in natural order; those of the present devices have it already."""
    # Without a device that waits, there is an entry for each device.
    found = tuple(filter(None, present)) if waiting else cast(tuple[DeviceHealth, ...], present)
    if not absent:
        return found
    entries = list(found)
    for entry in absent:
        insort(entries, entry, key=_sort_key)
    return tuple(entries)


def _reuse(entry: DeviceHealth, previous: DeviceHealth | None) -> DeviceHealth:
    return previous if previous is not None and previous == entry else entry


def _sort_key(entry: DeviceHealth) -> tuple[object, str]:
    return natural_sort_key(entry.device.key), entry.device.id
