"""Who has which device node: the first claim, in the configuration's order, counts; later ones are left out. Pure."""

from collections.abc import Iterator, Mapping

from attrs import evolve, frozen

from genplug.hardware.inventory import CandidateOutcome, Device, DeviceConflict, DeviceNode, ResourceScan


@frozen
class Resolution:
    """The scans of all resources after each node has its one owner."""

    devices: Mapping[str, tuple[Device, ...]]
    outcomes: tuple[CandidateOutcome, ...]
    conflicts: tuple[DeviceConflict, ...]


@frozen
class _Claim:
    device: Device
    may_overlap: bool


def resolve_conflicts(scans: Mapping[str, ResourceScan]) -> Resolution:
    """Give each device node, or path of a device without nodes, to one device, unless all who want it may overlap."""
    claims: dict[object, _Claim] = {}
    devices: dict[str, tuple[Device, ...]] = {}
    considered: list[CandidateOutcome] = []
    conflicts: list[DeviceConflict] = []
    for name, scan in scans.items():
        lost: dict[str, _Claim] = {}
        for device in scan.devices:
            taken = list(_taken(device, claims, may_overlap=scan.resource.overlap))
            if taken:
                lost[device.id] = taken[0][1]
                conflicts += (_conflict(thing, claim.device, device) for thing, claim in taken)
                continue
            claim = _Claim(device, scan.resource.overlap)
            for key, _ in _things(device):
                claims.setdefault(key, claim)
        devices[name] = tuple(device for device in scan.devices if device.id not in lost)
        considered += (_after(one, lost) for one in scan.outcomes) if lost else scan.outcomes
    return Resolution(devices, tuple(considered), tuple(conflicts))


def _things(device: Device) -> Iterator[tuple[object, DeviceNode | str]]:
    """Yield what a device claims, and what makes it the same thing: its nodes, or its paths where it has none."""
    for node in device.nodes:
        yield node.info.numbers, node
    if not device.nodes:
        yield from ((path, path) for path in device.candidates)


def _taken(
    device: Device, claims: Mapping[object, _Claim], *, may_overlap: bool
) -> Iterator[tuple[DeviceNode | str, _Claim]]:
    for key, thing in _things(device):
        claim = claims.get(key)
        if claim is not None and not (may_overlap and claim.may_overlap):
            yield thing, claim


def _conflict(thing: DeviceNode | str, first: Device, second: Device) -> DeviceConflict:
    path = thing if isinstance(thing, str) else thing.path
    numbers = "" if isinstance(thing, str) else f" ({thing.info.kind} {thing.info.major}:{thing.info.minor})"
    return DeviceConflict(
        path,
        second.location,
        f"{path}{numbers} is claimed by {first.resource} "
        f"at {first.location} and by {second.resource} at {second.location}: the first keeps it, device {second.id} of "
        f"{second.resource} is left out. Exclude it from one, or say share: {{overlap: true}} in both",
    )


def _after(considered: CandidateOutcome, lost: Mapping[str, _Claim]) -> CandidateOutcome:
    if considered.device is None or considered.device not in lost:
        return considered
    owner = lost[considered.device].device
    return evolve(considered, device=None, reason=f"claimed by resource {owner.resource} at {owner.location}")
