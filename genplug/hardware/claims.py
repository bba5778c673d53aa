"""Who has which device node: the first claim, in the configuration's order, counts; later ones are left out. Pure."""

from collections.abc import Iterator, Mapping

from attrs import evolve, frozen

from genplug.hardware.inventory import Clash, Considered, Device, DeviceNode, Kind, ResourceScan


@frozen
class Settled:
    """The scans of all resources after each node has its one owner."""

    devices: Mapping[str, tuple[Device, ...]]
    considered: tuple[Considered, ...]
    clashes: tuple[Clash, ...]


@frozen
class _Claim:
    device: Device
    may_overlap: bool


def settled(scans: Mapping[str, ResourceScan]) -> Settled:
    """Give each device node to one device of one resource, unless all who want it allow an overlap."""
    claims: dict[tuple[Kind, int, int], _Claim] = {}
    devices: dict[str, tuple[Device, ...]] = {}
    considered: list[Considered] = []
    clashes: list[Clash] = []
    for name, scan in scans.items():
        lost: dict[str, _Claim] = {}
        for device in scan.devices:
            taken = list(_taken(device, claims, may_overlap=scan.resource.overlap))
            if taken:
                lost[device.id] = taken[0][1]
                clashes += (_clash(node, claim.device, device) for node, claim in taken)
                continue
            claim = _Claim(device, scan.resource.overlap)
            for node in device.nodes:
                claims.setdefault(node.look.numbers, claim)
        devices[name] = tuple(device for device in scan.devices if device.id not in lost)
        considered += (_after(one, lost) for one in scan.considered) if lost else scan.considered
    return Settled(devices, tuple(considered), tuple(clashes))


def _taken(
    device: Device, claims: Mapping[tuple[Kind, int, int], _Claim], *, may_overlap: bool
) -> Iterator[tuple[DeviceNode, _Claim]]:
    for node in device.nodes:
        claim = claims.get(node.look.numbers)
        if claim is not None and not (may_overlap and claim.may_overlap):
            yield node, claim


def _clash(node: DeviceNode, first: Device, second: Device) -> Clash:
    return Clash(
        node.path,
        second.place,
        f"{node.path} ({node.look.kind} {node.look.major}:{node.look.minor}) is claimed by {first.resource} "
        f"at {first.place} and by {second.resource} at {second.place}: the first keeps it, device {second.id} of "
        f"{second.resource} is left out. Exclude it from one, or say share: {{overlap: true}} in both",
    )


def _after(considered: Considered, lost: Mapping[str, _Claim]) -> Considered:
    if considered.device is None or considered.device not in lost:
        return considered
    owner = lost[considered.device].device
    return evolve(considered, device=None, reason=f"claimed by resource {owner.resource} at {owner.place}")
