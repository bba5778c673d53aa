"""Builds the status of resources from offers, inventories and endpoints."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from genplug.allocation.offer import Grant, OfferChange, ResourceOffer
from genplug.hardware.inventory import CandidateOutcome, Inventory
from genplug.health.verdict import HealthSnapshot
from genplug.kubelet.reports import EndpointStatus
from genplug.observe.stalls import describe_stalls
from genplug.observe.status import (
    PUBLISHED,
    UNPUBLISHED,
    DeviceStatus,
    LazyDevices,
    ListChange,
    Refusal,
    ResourceStatus,
    ScanStatus,
)
from genplug.observe.text import join_names, to_epoch_seconds
from genplug.spec.model import Config
from genplug.spec.similarity import similarity_key

MAX_NOTES = 20
"""Notes of a resource in the status."""


def build_resource_status(
    offer: ResourceOffer,
    endpoint: EndpointStatus | None,
    *,
    is_removed: bool,
    notes: Sequence[str],
    last_refusal: Refusal | None = None,
) -> ResourceStatus:
    """Return the status of a resource that has an offer; without an endpoint, the resource is not served yet."""
    return ResourceStatus(
        name=offer.resource.name,
        phase=endpoint.phase.value if endpoint else "none",
        generation=endpoint.generation if endpoint else 0,
        streams=endpoint.streams if endpoint else 0,
        is_registered=endpoint is not None and endpoint.is_registered,
        is_removed=is_removed,
        reason=endpoint.reason if endpoint else "the agent has not locked the directory of the kubelet yet",
        devices=LazyDevices(offer.entries, _build_device_status),
        notes=tuple(notes),
        expected=offer.resource.expected,
        healthy_devices=offer.healthy_devices,
        last_refusal=last_refusal,
        omitted=offer.omitted,
    )


def build_refusal(message: str) -> Refusal:
    """Return the refusal of an Allocate request that was answered now."""
    return Refusal(time.time(), message)


def build_list_change(change: OfferChange) -> ListChange:
    """Return the change between two offers of a resource that happened now."""
    return ListChange(time.time(), "; ".join(_describe_list_change(change)))


def _describe_list_change(change: OfferChange) -> Iterator[str]:
    """Yield what differs between two device lists, the most important difference first."""
    current = change.current
    if change.previous is None:
        yield f"first list: {current.healthy} healthy, {len(current.entries) - current.healthy} unhealthy"
        return
    unhealthy: dict[str, list[str]] = {}
    recovered, added = [], []
    for grant in change.after.values():
        known = change.before.get(grant.id)
        if not grant.healthy and (known is None or known.healthy):
            unhealthy.setdefault(similarity_key(grant.reason), []).append(grant.id)
        elif known is None:
            added.append(grant.id)
        elif grant.healthy and not known.healthy:
            recovered.append(grant.id)
    removed = [id_ for id_ in change.before if id_ not in change.after]
    for ids in unhealthy.values():
        yield f"{join_names(ids)}: unhealthy: {current.grants[ids[0]].reason}"
    for ids, what in ((removed, "removed"), (recovered, "healthy again"), (added, "added")):
        if ids:
            yield f"{join_names(ids)}: {what}"


def build_unscanned_status(name: str) -> ResourceStatus:
    """Return the status of a resource whose first scan has not finished."""
    return _build_unserved_status(name, "its first scan has not finished, so its devices are not known")


def build_unwritten_status(name: str) -> ResourceStatus:
    """Return the status of a resource whose devices are not offered before their CDI file is written."""
    return _build_unserved_status(name, "the CDI file of its devices has not been written yet")


def build_unreported_status(name: str) -> ResourceStatus:
    """Return the status of a resource with aliases whose devices are not offered before the kubelet has reported."""
    return _build_unserved_status(name, "the kubelet has not reported yet which devices pods use")


def build_published_status(offer: ResourceOffer, reason: str, notes: Sequence[str]) -> ResourceStatus:
    """Return the status of a resource of Dynamic Resource Allocation; ``reason`` states why it is not published."""
    status = build_resource_status(offer, None, is_removed=False, notes=notes)
    return replace(status, phase=UNPUBLISHED if reason else PUBLISHED, is_registered=not reason, reason=reason)


def build_template_status(name: str, notes: Sequence[str]) -> ResourceStatus:
    """Return the status of a resource whose name is a template for which no device has a value."""
    reason = "no device has a value for the template in its name, so there is nothing to register"
    return _build_unserved_status(name, reason, notes, has_no_instances=True)


def collect_notes(inventory: Inventory, health: HealthSnapshot | None = None) -> dict[str, tuple[str, ...]]:
    """Return, by resource, the reasons for fewer devices than expected: stalls, unmatched globs, left out paths.

    With the health of the devices, the reasons include probes that have no result yet.
    Paths with the same reason are one note. A resource has at most :data:`MAX_NOTES` of them, and a note for the rest.
    """
    notes: dict[str, list[str]] = {}
    for resource, stalls in describe_stalls(inventory.stalls).items():
        notes[resource] = [f"scan stalled: {stall}" for stall in stalls]
    for unmatched in inventory.unmatched_globs:
        notes.setdefault(unmatched.resource, []).append(unmatched.text)
    if health is not None:
        for resource, waiting in _find_waiting(inventory, health):
            notes.setdefault(resource, []).append(f"{join_names(waiting)}: waits for the first results of its probes")
    left_out: dict[tuple[str, str], list[CandidateOutcome]] = {}
    listed = _list_unhealthy_paths(health) if inventory.left_out else {}
    for outcome in inventory.left_out:
        # The reason of a device that is still listed is that of the device.
        if outcome.reason not in listed.get((outcome.resource, outcome.path), ""):
            left_out.setdefault((outcome.resource, similarity_key(outcome.reason)), []).append(outcome)
    # The most frequent reason first; the sort keeps the order of the files otherwise.
    for (resource, _), outcomes in sorted(left_out.items(), key=lambda item: -len(item[1])):
        paths = join_names([outcome.path for outcome in outcomes])
        notes.setdefault(resource, []).append(f"{paths}: {outcomes[0].reason}")
    return {resource: _cut_notes(texts) for resource, texts in notes.items()}


def _list_unhealthy_paths(health: HealthSnapshot | None) -> dict[tuple[str, str], str]:
    """Return the reason of each unhealthy device by the configured name of its resource and each of its candidates."""
    if health is None:
        return {}
    return {
        (health.resources[name].configured_name, path): entry.verdict.reason
        for name, devices in health.devices.items()
        if name in health.resources
        for entry in devices
        if not entry.verdict.healthy
        for path in entry.device.candidates
    }


def _find_waiting(inventory: Inventory, health: HealthSnapshot) -> Iterator[tuple[str, list[str]]]:
    """Yield the resources with devices (IDs) that are not in the snapshot, because a probe has no result yet."""
    for resource, devices in inventory.devices.items():
        if resource in health.parts and not health.parts[resource].waiting:
            continue
        evaluated = {entry.device.id for entry in health.devices.get(resource, ())}
        if waiting := [device.id for device in devices if device.id not in evaluated]:
            yield resource, waiting


def _cut_notes(notes: Sequence[str]) -> tuple[str, ...]:
    if len(notes) <= MAX_NOTES:
        return tuple(notes)
    return (*notes[:MAX_NOTES], f"{len(notes) - MAX_NOTES} more reasons; 'genplug plan -o wide' shows every path")


def build_scan_statuses(config: Config, inventory: Inventory) -> tuple[ScanStatus, ...]:
    """Return the state of the scan of each resource of a configuration."""
    stalls = describe_stalls(inventory.stalls)
    conflicts = Counter(conflict.resource for conflict in inventory.conflicts)
    configured = {name: resource.configured_name for name, resource in inventory.resources.items()}
    withheld = Counter(configured.get(name, name) for name, _ in inventory.withheld)
    return tuple(ScanStatus(name, stalls.get(name, ()), conflicts[name], withheld[name]) for name in config.resources)


def _build_device_status(grant: Grant) -> DeviceStatus:
    # The newest verdict of the devices decides about the grant.
    verdict = max((health.verdict for health in grant.devices), key=lambda verdict: verdict.since)
    return DeviceStatus(
        id=grant.id,
        paths=tuple(path for health in grant.devices for path in health.device.candidates),
        healthy=grant.healthy,
        reason=grant.reason,
        probe="" if grant.healthy else verdict.probe,
        since=to_epoch_seconds(verdict.since),
        numa_nodes=tuple(sorted({node for health in grant.devices for node in health.device.numa})),
    )


def _build_unserved_status(
    name: str, reason: str, notes: Sequence[str] = (), *, has_no_instances: bool = False
) -> ResourceStatus:
    return ResourceStatus(
        name=name,
        phase="none",
        generation=0,
        streams=0,
        is_registered=False,
        is_removed=False,
        reason=reason,
        devices=(),
        notes=tuple(notes),
        has_no_instances=has_no_instances,
    )
