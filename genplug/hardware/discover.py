"""Discovery: a configuration and a node in, an :class:`Inventory` out; nothing is remembered between two calls.

Each resource is scanned on its own; then the resources are compared, since one device node may belong to one device
of one resource only (config-language: From paths to devices). :func:`rescan` scans only what a change can have touched.
"""

from genplug.config.model import Config, Resource
from genplug.config.natural import natural_key
from genplug.hardware.candidates import find_candidates
from genplug.hardware.claims import settled
from genplug.hardware.devices import make_devices
from genplug.hardware.host import Host
from genplug.hardware.interests import Changes, Interests, is_concerned
from genplug.hardware.inventory import Device, Inventory, ResourceScan


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
    known = previous.scans if previous is not None else {}
    scans = {}
    for name, resource in config.resources.items():
        before = known.get(name)
        is_untouched = before is not None and changes is not None and not is_concerned(before.interests, changes)
        if before is not None and is_untouched and before.resource == resource:
            scans[name] = before
        else:
            scans[name] = _scanned(resource, remembering, before)
    claims = settled(scans)
    return Inventory(
        devices={name: _in_order(config.resources[name], devices) for name, devices in claims.devices.items()},
        considered=claims.considered,
        clashes=claims.clashes,
        folders=frozenset().union(*(scan.interests for scan in scans.values())),
        unmatched=tuple(note for scan in scans.values() for note in scan.unmatched),
        scans=scans,
    )


def _scanned(resource: Resource, host: Host, before: ResourceScan | None) -> ResourceScan:
    interests = Interests()
    candidates = find_candidates(resource, host, interests)
    devices, considered = make_devices(resource, candidates.taken, host, interests)
    known = {device.id: device for device in before.devices} if before is not None else {}
    scan = ResourceScan(
        resource=resource,
        devices=tuple(known[one.id] if known.get(one.id) == one else one for one in devices),
        considered=(*considered, *candidates.left_out),
        unmatched=candidates.unmatched,
        interests=interests.frozen(),
    )
    return before if before is not None and scan == before else scan


def _in_order(resource: Resource, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    # Within a source they are in order already.
    if len(resource.sources) == 1:
        return devices
    return tuple(sorted(devices, key=lambda device: (natural_key(device.key), device.id)))
