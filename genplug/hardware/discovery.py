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
    """
    remembering = host.cached()
    touch = ChangeSet.of(changes) if changes is not None else None
    known = previous.scans if previous is not None else {}
    scans = {}
    for name, resource in config.resources.items():
        before = known.get(name)
        if before is None or before.resource != resource or changes is None or touch is None:
            scans[name] = _scanned(resource, remembering, before)
        elif changes and _is_touched(before, changes, touch):
            scans[name] = _scanned(resource, remembering, before, changes, touch)
        else:
            scans[name] = before
    claims = resolve_conflicts(scans)
    return _under_names(config, scans, claims, previous)


def _is_touched(scan: ResourceScan, changes: Changes, touch: ChangeSet) -> bool:
    if is_affected(scan.dependencies, changes):
        return True
    return any(touch.affects(one.depends) for one in scan.candidates if one.depends)


def _scanned(
    resource: Resource,
    host: Host,
    before: ResourceScan | None,
    changes: Changes | None = None,
    touch: ChangeSet | None = None,
) -> ResourceScan:
    """Scan a resource; with changes only what they can have touched since the scan ``before``."""
    dependencies = Dependencies()
    examined = before.candidates_by_source if before is not None else None
    candidates = find_candidates(resource, host, dependencies, examined, touch)
    reused: dict[tuple[str, ...], Device] = {}
    beside = None
    if before is not None and changes is not None and not is_affected(before.extra_dependencies.freeze(), changes):
        reused, beside = _untouched(before, candidates.by_source), before.extra_dependencies
    made = build_devices(resource, candidates.taken, host, reused, beside)
    dependencies.update(made.extra_dependencies)
    known = {device.id: device for device in before.devices} if before is not None else {}
    scan = ResourceScan(
        resource=resource,
        devices=tuple(known[one.id] if known.get(one.id) == one else one for one in made.devices),
        outcomes=(*made.outcomes, *candidates.left_out),
        unmatched_globs=candidates.unmatched,
        dependencies=dependencies.freeze(),
        candidates_by_source=candidates.by_source,
        extra_dependencies=made.extra_dependencies,
    )
    return before if before is not None and before == scan else scan


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
    for name, resource in config.resources.items():
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
