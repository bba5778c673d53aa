"""Discovery: a configuration and a node in, an :class:`Inventory` out; nothing is remembered between two calls.

Each resource is scanned on its own; then the resources are compared, since one device node may belong to one device
of one resource only (config-language: From paths to devices). :func:`rescan` scans only what a change can have touched.
"""

from collections.abc import Mapping

from attrs import evolve

from genplug.hardware.candidates import find_candidates
from genplug.hardware.conflicts import Settled, settled
from genplug.hardware.dependencies import Changes, Interests, Touch, is_concerned
from genplug.hardware.devices import make_devices
from genplug.hardware.host import Host
from genplug.hardware.inventory import Considered, Device, Examined, Inventory, ResourceScan
from genplug.hardware.resource_naming import made_resource, named
from genplug.spec.model import Config, Resource
from genplug.spec.natural_sort import natural_key


def discover(config: Config, host: Host, previous: Inventory | None = None) -> Inventory:
    """Find every device of every resource.

    What is as in ``previous`` comes back as the very same objects, so that those who compare are quick; the result
    does not depend on it otherwise.
    """
    return rescan(config, host, previous, None)


def rescan(config: Config, host: Host, previous: Inventory | None, changes: Changes | None) -> Inventory:
    """Find the devices again after some names changed in some folders (as ``Inventory.folders`` names them).

    Resources that those changes cannot concern are taken over from ``previous``; the result is that of
    :func:`discover`. None means that anything may have changed.
    """
    remembering = host.remembering()
    touch = Touch.of(changes) if changes is not None else None
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
    claims = settled(scans)
    return _under_names(config, scans, claims, previous)


def _is_touched(scan: ResourceScan, changes: Changes, touch: Touch) -> bool:
    if is_concerned(scan.interests, changes):
        return True
    return any(touch.concerns(one.depends) for one in scan.candidates if one.depends)


def _scanned(
    resource: Resource,
    host: Host,
    before: ResourceScan | None,
    changes: Changes | None = None,
    touch: Touch | None = None,
) -> ResourceScan:
    """Scan a resource; with changes only what they can have touched since the scan ``before``."""
    interests = Interests()
    examined = before.examined if before is not None else None
    candidates = find_candidates(resource, host, interests, examined, touch)
    reused: dict[tuple[str, ...], Device] = {}
    beside = None
    if before is not None and changes is not None and not is_concerned(before.beside.frozen(), changes):
        reused, beside = _untouched(before, candidates.examined), before.beside
    made = make_devices(resource, candidates.taken, host, reused, beside)
    interests.update(made.beside)
    known = {device.id: device for device in before.devices} if before is not None else {}
    scan = ResourceScan(
        resource=resource,
        devices=tuple(known[one.id] if known.get(one.id) == one else one for one in made.devices),
        considered=(*made.considered, *candidates.left_out),
        unmatched=candidates.unmatched,
        interests=interests.frozen(),
        examined=candidates.examined,
        beside=made.beside,
    )
    return before if before is not None and before == scan else scan


def _untouched(before: ResourceScan, examined: Examined) -> dict[tuple[str, ...], Device]:
    """Return the devices, by their candidates, of which no candidate has been looked at again."""
    same = {
        path
        for found, known in zip(examined, before.examined, strict=True)
        for path, one in found.items()
        if known.get(path) is one
    }
    # A device that had to tell of another with its ID is put together anew.
    return {one.candidates: one for one in before.devices if same.issuperset(one.candidates) and not one.faults}


def _under_names(
    config: Config, scans: Mapping[str, ResourceScan], claims: Settled, previous: Inventory | None
) -> Inventory:
    """Put the devices under the names of their resources, those included that devices make."""
    resources: dict[str, Resource] = {}
    devices: dict[str, tuple[Device, ...]] = {}
    considered = claims.considered
    written = {
        name: one for one in config.resources.values() if one.name_template is None for name in (one.name, *one.aliases)
    }
    for name, resource in config.resources.items():
        under = named(resource, claims.devices[name], {**written, **resources} if name not in written else {})
        for made, ones in under.devices.items():
            known = previous.resources.get(made) if previous is not None else None
            resources[made] = made_resource(resource, made, known)
            devices[made] = _in_order(resource, ones)
        if under.lost:
            considered = tuple(_nameless(one, under.lost) for one in considered)
    return Inventory(
        devices=devices,
        considered=considered,
        clashes=claims.clashes,
        folders=frozenset().union(*(scan.interests for scan in scans.values())),
        unmatched=tuple(note for scan in scans.values() for note in scan.unmatched),
        resources=resources,
        scans=scans,
    )


def _nameless(considered: Considered, lost: Mapping[str, str]) -> Considered:
    if considered.device is None or considered.device not in lost:
        return considered
    return evolve(considered, device=None, reason=lost[considered.device], is_misnamed=True)


def _in_order(resource: Resource, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    # Within a source they are in order already.
    if len(resource.sources) == 1:
        return devices
    return tuple(sorted(devices, key=lambda device: (natural_key(device.key), device.id)))
