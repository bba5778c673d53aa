"""Discovery: a configuration and a node in, an :class:`Inventory` out; nothing is remembered between two calls.

Each resource is scanned on its own; then the resources are compared, since one device node may belong to one device
of one resource only (config-language: From paths to devices). :func:`rescan` scans only what a change can have touched.
"""

from collections.abc import Mapping

from attrs import evolve

from genplug.hardware.candidates import find_candidates
from genplug.hardware.conflicts import Resolution, resolve_conflicts
from genplug.hardware.dependencies import Changes, ChangeSet, Dependencies, is_affected
from genplug.hardware.devices import build_devices
from genplug.hardware.host import Host
from genplug.hardware.inventory import CandidateOutcome, CandidatesBySource, Device, Inventory, ResourceScan
from genplug.hardware.resource_naming import group_by_resource_name, instantiate_resource
from genplug.spec.model import Config, Resource
from genplug.spec.natural_sort import natural_sort_key


def discover(config: Config, host: Host, previous: Inventory | None = None) -> Inventory:
    """Find every device of every resource.

    What is as in ``previous`` comes back as the very same objects, so that those who compare are quick; the result
    does not depend on it otherwise.
    """
    return rescan(config, host, previous, None)


def rescan(config: Config, host: Host, previous: Inventory | None, changes: Changes | None) -> Inventory:
    """Find the devices again after some names changed in some directories (as ``Inventory.directories`` names them).

    Resources that those changes cannot concern are taken over from ``previous``; the result is that of
    :func:`discover`. None means that anything may have changed.

    Raises:
        HangError: see :func:`scan_resource`.
    """
    cached = host.cached()
    previous_scans = previous.scans if previous is not None else {}
    scans = dict(previous_scans)
    for name, its_changes in select_scans(config, previous_scans, changes).items():
        scans[name] = scan_resource(config.resources[name], cached, previous_scans.get(name), its_changes)
    return build_inventory(config, scans, previous)


def select_scans(
    config: Config, scans: Mapping[str, ResourceScan], changes: Changes | None
) -> Mapping[str, Changes | None]:
    """Return the resources to scan after changes, each with the changes to which its scan can be limited.

    None means that the scan must assume that anything has changed.
    """
    selected: dict[str, Changes | None] = {}
    change_set = ChangeSet.of(changes) if changes is not None else None
    for name, resource in config.resources.items():
        scan = scans.get(name)
        if scan is None or scan.resource != resource or changes is None or change_set is None:
            selected[name] = None
        elif changes and _is_touched(scan, changes, change_set):
            selected[name] = changes
    return selected


def _is_touched(scan: ResourceScan, changes: Changes, change_set: ChangeSet) -> bool:
    if is_affected(scan.dependencies, changes):
        return True
    return any(change_set.affects(one.depends) for one in scan.candidates if one.depends)


def scan_resource(
    resource: Resource, host: Host, previous: ResourceScan | None = None, changes: Changes | None = None
) -> ResourceScan:
    """Return what a resource finds on a host; with ``changes`` only what they can have touched is examined again.

    What is as in ``previous`` comes back as the very same objects.

    Raises:
        HangError: a directory in which a glob may match cannot be listed, because a file operation hangs.
    """
    dependencies = Dependencies()
    has_same_sources = previous is not None and previous.resource.sources == resource.sources
    examined = previous.candidates_by_source if previous is not None and has_same_sources else None
    change_set = ChangeSet.of(changes) if changes is not None and examined is not None else None
    candidates = find_candidates(resource, host, dependencies, examined, change_set)
    reused: dict[tuple[str, ...], Device] = {}
    extra = None
    if previous is not None and changes and not is_affected(previous.extra_dependencies.freeze(), changes):
        reused, extra = _untouched(previous, candidates.by_source), previous.extra_dependencies
    kept: dict[tuple[str, ...], Device] = {}
    if previous is not None and previous.resource.policy == resource.policy:
        kept = {device.candidates: device for device in previous.devices}
    built = build_devices(resource, candidates.taken, host, reused, extra, kept)
    dependencies.update(built.extra_dependencies)
    known = {device.id: device for device in previous.devices} if previous is not None else {}
    scan = ResourceScan(
        resource=resource,
        devices=tuple(known[one.id] if known.get(one.id) == one else one for one in built.devices),
        outcomes=(*built.outcomes, *candidates.left_out),
        unmatched_globs=candidates.unmatched,
        dependencies=dependencies.freeze(),
        candidates_by_source=candidates.by_source,
        extra_dependencies=built.extra_dependencies,
        stalls=(*candidates.stalls, *built.stalls),
    )
    return previous if previous is not None and previous == scan else scan


def _untouched(before: ResourceScan, examined: CandidatesBySource) -> dict[tuple[str, ...], Device]:
    """Return the devices, by their candidates, of which no candidate has been looked at again."""
    same = {
        path
        for found, known in zip(examined, before.candidates_by_source, strict=True)
        for path, one in found.items()
        if known.get(path) is one
    }
    # A device that had to tell of another with its ID is put together anew.
    return {one.candidates: one for one in before.devices if same.issuperset(one.candidates) and not one.faults}


def build_inventory(config: Config, scans: Mapping[str, ResourceScan], previous: Inventory | None = None) -> Inventory:
    """Return the inventory of a configuration, made of the scans of its resources.

    A resource without a scan is left out; scans of other resources do not count.
    """
    ordered = {name: scans[name] for name in config.resources if name in scans}
    return _under_names(config, ordered, resolve_conflicts(ordered), previous)


def _under_names(
    config: Config, scans: Mapping[str, ResourceScan], claims: Resolution, previous: Inventory | None
) -> Inventory:
    """Put the devices under the names of their resources, those included that devices make."""
    resources: dict[str, Resource] = {}
    devices: dict[str, tuple[Device, ...]] = {}
    considered = claims.outcomes
    written = {
        name: one for one in config.resources.values() if one.name_template is None for name in (one.name, *one.aliases)
    }
    for name in scans:
        resource = config.resources[name]
        under = group_by_resource_name(
            resource, claims.devices[name], {**written, **resources} if name not in written else {}
        )
        for made, ones in under.devices.items():
            known = previous.resources.get(made) if previous is not None else None
            resources[made] = instantiate_resource(resource, made, known)
            devices[made] = _in_order(resource, ones)
        if under.lost:
            considered = tuple(_nameless(one, under.lost) for one in considered)
    return Inventory(
        devices=devices,
        outcomes=considered,
        conflicts=claims.conflicts,
        directories=frozenset().union(*(scan.dependencies for scan in scans.values())),
        unmatched_globs=tuple(note for scan in scans.values() for note in scan.unmatched_globs),
        stalls=tuple(stall for scan in scans.values() for stall in scan.stalls),
        resources=resources,
        scans=scans,
    )


def _nameless(considered: CandidateOutcome, lost: Mapping[str, str]) -> CandidateOutcome:
    if considered.device is None or considered.device not in lost:
        return considered
    return evolve(considered, device=None, reason=lost[considered.device], is_misnamed=True)


def _in_order(resource: Resource, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    # Within a source they are in order already.
    if len(resource.sources) == 1:
        return devices
    return tuple(sorted(devices, key=lambda device: (natural_sort_key(device.key), device.id)))
