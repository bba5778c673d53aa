"""Discovers the devices of a configuration on a node. State between scans is a value: the ledger of identities.

Each resource is scanned separately; then conflicts are resolved, because a device node belongs to one device of one
resource. :func:`select_scans` returns the resources that a change can affect.
"""

from bisect import insort
from collections.abc import Mapping
from operator import is_

from msgspec.structs import replace

from genplug.hardware.candidate_budget import CandidateBudget
from genplug.hardware.candidate_users import CandidateUsers
from genplug.hardware.candidates import find_candidates
from genplug.hardware.conflicts import Resolution, resolve_conflicts
from genplug.hardware.dependencies import Changes, ChangeSet, Dependencies, is_affected
from genplug.hardware.devices import build_devices
from genplug.hardware.host import Host
from genplug.hardware.inventory import (
    CandidatesBySource,
    Device,
    Inventory,
    ResourceScan,
    device_order,
    leave_out,
    sort_devices,
)
from genplug.hardware.ledger import NO_USAGE, Ledger
from genplug.hardware.partial_scan import update_scan
from genplug.hardware.resource_naming import NameHistory, group_by_resource_name, instantiate_resource
from genplug.spec.model import Config, Resource


def discover(config: Config, host: Host) -> Inventory:
    """Return the devices of all resources.

    Raises:
        HangError: see :func:`scan_resource`.
    """
    cached, budget = host.cached(), CandidateBudget(config.resources)
    scans = {name: scan_resource(resource, cached, budget=budget) for name, resource in config.resources.items()}
    return build_inventory(config, scans)[0]


def select_scans(
    config: Config, scans: Mapping[str, ResourceScan], changes: Changes | None
) -> Mapping[str, Changes | None]:
    """Return the resources to scan after changes of entries in directories (of ``Inventory.directories``).

    Each resource has the changes to which its scan can be limited. None means that anything may have changed.
    """
    selected: dict[str, Changes | None] = {}
    change_set = ChangeSet.of(changes) if changes is not None else None
    for name, resource in config.resources.items():
        scan = scans.get(name)
        if scan is None or scan.resource != resource or changes is None or change_set is None:
            selected[name] = None
        elif not changes and scan.stalls:
            # A new configuration, which may be the correction. The scan is of an earlier configuration of the resource.
            selected[name] = None
        elif changes and _is_scan_affected(scan, changes, change_set):
            selected[name] = changes
    return selected


def _is_scan_affected(scan: ResourceScan, changes: Changes, change_set: ChangeSet) -> bool:
    return is_affected(scan.dependencies, changes) or scan.users.may_affect_files(change_set)


def scan_resource(
    resource: Resource,
    host: Host,
    previous: ResourceScan | None = None,
    changes: Changes | None = None,
    *,
    budget: CandidateBudget | None = None,
) -> ResourceScan:
    """Scan a resource; with ``changes``, examine only the paths that they can affect.

    ``budget`` limits the candidates of all resources together.

    Unchanged parts are the identical objects of ``previous``, so that comparisons are fast.

    Raises:
        HangError: a directory in which a glob may match cannot be listed, because a file operation hangs.
    """
    if previous is not None and changes and previous.resource == resource:
        updated = update_scan(previous, host, changes, budget)
        if updated is not None:
            return updated
    dependencies = Dependencies()
    comparable = previous if previous is not None and previous.resource.sources == resource.sources else None
    examined = comparable.candidates_by_source if comparable is not None else None
    change_set = ChangeSet.of(changes) if changes is not None and examined is not None else None
    candidates = find_candidates(resource, host, dependencies, examined, change_set, budget=budget)
    reused: dict[tuple[str, ...], Device] = {}
    extra = None
    if comparable is not None and changes and not is_affected(comparable.extra_dependencies.freeze(), changes):
        reused, extra = _unaffected_devices(comparable, candidates.by_source), comparable.extra_dependencies
    kept: dict[tuple[str, ...], Device] = {}
    if previous is not None and previous.resource.policy == resource.policy:
        kept = {device.candidates: device for device in previous.devices}
    built = build_devices(resource, candidates.taken, host, reused, extra, kept)
    dependencies.update(built.extra_dependencies)
    devices = built.devices
    if previous is not None:
        known = {device.id: device for device in previous.devices}
        devices = tuple(known[device.id] if known.get(device.id) == device else device for device in devices)
    scan = ResourceScan(
        resource=resource,
        devices=devices,
        left_out=(*built.left_out, *candidates.left_out),
        unmatched_globs=candidates.unmatched,
        dependencies=dependencies.freeze(),
        candidates_by_source=candidates.by_source,
        extra_dependencies=built.extra_dependencies,
        stalls=(*candidates.stalls, *built.stalls),
        searches=candidates.searches,
        users=CandidateUsers.of(
            candidate.used_paths
            for found in candidates.by_source
            for candidate in found.values()
            if candidate.links or candidate.reads.depends
        ),
        is_plain=len(built.devices) == len(candidates.taken)
        and not any(source.group_by for source in resource.sources),
    )
    return previous if previous is not None and previous == scan else scan


def _unaffected_devices(previous: ResourceScan, examined: CandidatesBySource) -> dict[tuple[str, ...], Device]:
    """Return the devices, by the paths of their candidates, none of whose candidates was examined again."""
    same = {
        path
        for found, known in zip(examined, previous.candidates_by_source, strict=True)
        for path, candidate in found.items()
        if known.get(path) is candidate
    }
    # Build devices with faults again: a fault may concern another device with the same ID.
    return {
        device.candidates: device
        for device in previous.devices
        if same.issuperset(device.candidates) and not device.faults
    }


def build_inventory(
    config: Config,
    scans: Mapping[str, ResourceScan],
    previous: Inventory | None = None,
    ledger: Ledger | None = None,
    now: float = 0.0,
) -> tuple[Inventory, Ledger]:
    """Return the inventory of a configuration, built from the scans of its resources, and the ledger for the next one.

    A resource without a scan is left out; scans of other resources are ignored. ``ledger`` is what earlier inventories
    assigned; without it, no device has been assigned, and no pod uses any. ``now`` is in monotonic seconds.
    """
    ordered = {name: scans[name] for name in config.resources if name in scans}
    resolution = resolve_conflicts(config.resources, ordered, ledger or Ledger(NO_USAGE), now)
    histories = _update_histories(config, resolution, now)
    inventory = _build_named_inventory(config, ordered, resolution, previous, histories, now)
    return inventory, replace(resolution.ledger, names=histories)


def _update_histories(config: Config, resolution: Resolution, now: float) -> Mapping[str, NameHistory]:
    """Return the histories of the names of all templated resources after a scan."""
    known, histories = resolution.ledger.names, {}
    for name, devices in resolution.devices.items():
        if config.resources[name].name_template is not None:
            names = [device.resource for device in devices]
            history = known.get(name)
            histories[name] = history.after_scan(names, now) if history else NameHistory.start(names, now)
    return histories


def _build_named_inventory(  # noqa: PLR0913, PLR0917 - what the inventory is made of
    config: Config,
    scans: Mapping[str, ResourceScan],
    resolution: Resolution,
    previous: Inventory | None,
    histories: Mapping[str, NameHistory],
    now: float,
) -> Inventory:
    """Assign the devices to resource names, including the names that templates render."""
    resources: dict[str, Resource] = {}
    devices: dict[str, tuple[Device, ...]] = {}
    left_out = list(resolution.left_out)
    plain = {
        name: resource
        for resource in config.resources.values()
        if resource.name_template is None
        for name in (resource.name, *resource.aliases)
    }
    for name in scans:
        resource = config.resources[name]
        if resource.name_template is None:
            resources[name] = resource
            listed = previous.devices.get(name) if previous is not None else None
            devices[name] = arrange_devices(resource, resolution.devices[name], listed)
            continue
        grouped = group_by_resource_name(
            resource,
            resolution.devices[name],
            {**plain, **resources},
            histories.get(name) or NameHistory({}),
            now,
        )
        for instance, group in grouped.devices.items():
            known = previous.resources.get(instance) if previous is not None else None
            resources[instance] = instantiate_resource(resource, instance, known)
            listed = previous.devices.get(instance) if previous is not None else None
            devices[instance] = arrange_devices(resource, group, listed)
        lost = [device for device in resolution.devices[name] if device.id in grouped.lost] if grouped.lost else []
        left_out += (
            outcome for device in lost for outcome in leave_out(device, grouped.lost[device.id], is_misnamed=True)
        )
    return Inventory(
        devices=devices,
        left_out=tuple(left_out),
        conflicts=resolution.conflicts,
        withheld=resolution.withheld,
        warnings=resolution.warnings,
        directories=frozenset().union(*(scan.dependencies for scan in scans.values())),
        unmatched_globs=tuple(note for scan in scans.values() for note in scan.unmatched_globs),
        stalls=tuple(stall for scan in scans.values() for stall in scan.stalls),
        resources=resources,
        scans=scans,
    )


def arrange_devices(
    resource: Resource, devices: tuple[Device, ...], previous: tuple[Device, ...] | None
) -> tuple[Device, ...]:
    """Return the devices of a resource in the order of their keys; the identical ``previous`` if they are the same.

    Only the devices that ``previous`` does not have are sorted.
    """
    if previous is not None and len(devices) == len(previous) and all(map(is_, devices, previous)):
        return previous
    if len(resource.sources) == 1:
        # The devices of one source are already sorted.
        return devices
    if previous is None:
        return sort_devices(devices)
    current, known = set(map(id, devices)), set(map(id, previous))
    if current == known:
        return previous
    arranged = [device for device in previous if id(device) in current]
    added = [device for device in devices if id(device) not in known]
    if len(added) > len(arranged):
        return sort_devices(devices)
    for device in added:
        insort(arranged, device, key=device_order)
    return tuple(arranged)
