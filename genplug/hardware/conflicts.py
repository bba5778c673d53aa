"""Resolves conflicting claims on a device node: the first resource in configuration order gets it. Pure."""

from collections.abc import Iterator, Mapping

from attrs import evolve, frozen

from genplug.hardware.inventory import CandidateOutcome, Device, DeviceConflict, DeviceNode, ResourceScan


@frozen
class Resolution:
    """The devices of all resources after each device node has one owner."""

    devices: Mapping[str, tuple[Device, ...]]
    outcomes: tuple[CandidateOutcome, ...]
    conflicts: tuple[DeviceConflict, ...]


@frozen
class _Claim:
    device: Device
    may_overlap: bool


def resolve_conflicts(scans: Mapping[str, ResourceScan]) -> Resolution:
    """Give each device node, or path of a device without nodes, to one device, unless all claimants may overlap."""
    claims: dict[object, _Claim] = {}
    devices: dict[str, tuple[Device, ...]] = {}
    outcomes: list[CandidateOutcome] = []
    conflicts: list[DeviceConflict] = []
    for name, scan in scans.items():
        lost: dict[str, _Claim] = {}
        for device in scan.devices:
            taken = list(_find_claims(device, claims, may_overlap=scan.resource.overlap))
            if taken:
                lost[device.id] = taken[0][1]
                conflicts += (_conflict(thing, claim.device, device) for thing, claim in taken)
                continue
            claim = _Claim(device, scan.resource.overlap)
            for key, _ in _claimed(device):
                claims.setdefault(key, claim)
        devices[name] = tuple(device for device in scan.devices if device.id not in lost)
        outcomes += (_mark_lost(outcome, lost) for outcome in scan.outcomes) if lost else scan.outcomes
    return Resolution(devices, tuple(outcomes), tuple(conflicts))


def _claimed(device: Device) -> Iterator[tuple[object, DeviceNode | str]]:
    """Yield (identity, claimed object) pairs: device numbers for each node, or paths for a device without nodes."""
    for node in device.nodes:
        yield node.info.numbers, node
    if not device.nodes:
        yield from ((path, path) for path in device.candidates)


def _find_claims(
    device: Device, claims: Mapping[object, _Claim], *, may_overlap: bool
) -> Iterator[tuple[DeviceNode | str, _Claim]]:
    for key, thing in _claimed(device):
        claim = claims.get(key)
        if claim is not None and not (may_overlap and claim.may_overlap):
            yield thing, claim


def _conflict(thing: DeviceNode | str, first: Device, second: Device) -> DeviceConflict:
    path = thing if isinstance(thing, str) else thing.path
    numbers = "" if isinstance(thing, str) else f" ({thing.info.describe_numbers()})"
    return DeviceConflict(
        path,
        second.location,
        f"{path}{numbers} is claimed by {first.resource} "
        f"at {first.location} and by {second.resource} at {second.location}: the first gets it, device {second.id} of "
        f"{second.resource} is left out. Exclude it from one resource, or set share: {{overlap: true}} in both",
    )


def _mark_lost(outcome: CandidateOutcome, lost: Mapping[str, _Claim]) -> CandidateOutcome:
    if outcome.device is None or outcome.device not in lost:
        return outcome
    owner = lost[outcome.device].device
    return evolve(outcome, device=None, reason=f"claimed by resource {owner.resource} at {owner.location}")
