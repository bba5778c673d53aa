"""Resolves competing claims on hardware, and states the reasons in the texts of outcomes and conflicts. Pure.

:mod:`genplug.hardware.identities` decides which device has a thing.
"""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from genplug.hardware.contenders import ContenderIndex
from genplug.hardware.devices import same_node_reason
from genplug.hardware.host import printable
from genplug.hardware.identities import Denial, Loss, assign_things, find_scope
from genplug.hardware.inventory import CandidateOutcome, Device, DeviceConflict, ResourceScan, leave_out
from genplug.hardware.ledger import Contender, Ledger, Owner, is_id
from genplug.hardware.unknown_claims import deny_unknown_claims, find_unknown_claims
from genplug.spec.diagnostic import Diagnostic, WarningCode
from genplug.spec.limits import MAX_IDS_PER_HOUR
from genplug.spec.location import SourceLocation
from genplug.spec.model import Resource


class Resolution(Struct, frozen=True):
    """The devices of all resources after each thing has one owner, and the ledger for the next scan."""

    devices: Mapping[str, tuple[Device, ...]]
    left_out: tuple[CandidateOutcome, ...]
    conflicts: tuple[DeviceConflict, ...]
    ledger: Ledger
    withheld: Mapping[tuple[str, str], str]
    """The devices that are not offered until the kubelet has reported, with the reason."""
    warnings: tuple[Diagnostic, ...] = ()
    """IDs that are made of one of several links."""


def resolve_conflicts(
    resources: Mapping[str, Resource], scans: Mapping[str, ResourceScan], ledger: Ledger, now: float
) -> Resolution:
    """Give each thing to one device, unless all claimants may overlap; ``now`` is in monotonic seconds.

    ``resources`` are those of the configuration in their order. A resource without a scan has no devices.
    """
    known = ledger.assigned.index if ledger.assigned is not None else ContenderIndex()
    index, change = known.update(scans)
    unscanned: Mapping[Owner, Denial] = {}
    if claims := find_unknown_claims(resources, scans):
        positions = {name: position for position, name in enumerate(resources)}
        unscanned = deny_unknown_claims(index.contenders, claims, positions, ledger)
    scope = find_scope(ledger, index, change, unscanned)
    ledger, denials = assign_things(ledger, scope, now)
    denials = {**denials, **unscanned}
    if not denials:
        left_out = tuple(outcome for scan in scans.values() for outcome in scan.left_out)
        return Resolution({name: scan.devices for name, scan in scans.items()}, left_out, (), ledger, {})
    unheld = ledger.assigned.unheld if ledger.assigned is not None else ()
    denied = index.sort(contender for contender in unheld if contender.owner in denials)
    affected = {contender.resource.configured_name for contender in denied}
    conflicts = [
        _build_conflict(denial, first, contender)
        for contender in denied
        if (denial := denials[contender.owner]).loss is Loss.CLAIMED and (first := denial.device) is not None
    ]
    reasons = {contender.owner: _outcome_reason(denials[contender.owner]) for contender in denied}
    return Resolution(
        devices={
            name: tuple(device for device in scan.devices if Owner(device.resource, device.id) not in denials)
            if name in affected
            else scan.devices
            for name, scan in scans.items()
        },
        left_out=tuple(
            outcome
            for name, scan in scans.items()
            for outcome in _list_left_out(scan, reasons if name in affected else {})
        ),
        conflicts=tuple(conflicts),
        ledger=ledger,
        warnings=tuple(_warn_about_links(denied, denials)),
        withheld={
            (owner.resource, owner.id): reasons[owner]
            for owner, denial in denials.items()
            if denial.loss not in {Loss.SAME, Loss.CLAIMED, Loss.UNSTABLE}
        },
    )


def _warn_about_links(denied: Iterable[Contender], denials: Mapping[Owner, Denial]) -> Iterator[Diagnostic]:
    """Yield a warning for each source whose IDs are made of one of several links to a device."""
    seen: set[SourceLocation] = set()
    for contender in denied:
        first, second = denials[contender.owner].device, contender.device
        if first is None or set(first.identities) != set(second.identities):
            continue
        has_path_id = any(
            source.location == first.location and source.id is None and source.group_by is None
            for source in contender.resource.sources
        )
        if not (has_path_id and first.is_via_link and second.is_via_link) or first.location in seen:
            continue
        seen.add(first.location)
        yield Diagnostic(
            WarningCode.UNSTABLE_ID,
            first.location,
            f"{printable(first.candidates[0])} and {printable(second.candidates[0])} are links to the same device, and "
            "the ID is made of the first of them that exists",
            f"resources.{contender.resource.configured_name}",
            hint="select one link to each device with a narrower glob, or write an 'id' of an attribute of the device",
        )


def _list_left_out(scan: ResourceScan, reasons: Mapping[Owner, str]) -> Iterator[CandidateOutcome]:
    """Yield the outcomes of the paths that are part of no device; ``reasons`` are those of the denied devices."""
    for device in scan.devices if reasons else ():
        if (reason := reasons.get(Owner(device.resource, device.id))) is not None:
            yield from leave_out(device, reason)
    yield from scan.left_out


def _outcome_reason(denial: Denial) -> str:
    other = f"device {denial.other.id} of {denial.other.resource}"
    match denial:
        case Denial(Loss.SAME, device=Device() as first):
            return same_node_reason(first)
        case Denial(Loss.CLAIMED, thing=str()):
            return f"has the same ID as {other}"
        case Denial(Loss.CLAIMED, device=Device(location=location)):
            return f"claimed by resource {denial.other.resource} at {location}"
        case Denial(Loss.HELD):
            return f"withheld: it is the hardware of {other}, which a pod may still use"
        case Denial(Loss.MOVED):
            return f"withheld: its ID is that of the hardware of {other}, and a pod may still use it"
        case Denial(Loss.UNSCANNED):
            return f"withheld: {denial.other.resource}, which may claim it first, has not been scanned"
        case Denial(Loss.UNSTABLE):
            return (
                f"its hardware has had {MAX_IDS_PER_HOUR} IDs within an hour; write an 'id' template of a value that "
                "does not change"
            )
        case _:
            return (
                f"withheld: it is the same hardware as {other}, and the kubelet has not reported which of them pods use"
            )


def _build_conflict(denial: Denial, first: Device, second: Contender) -> DeviceConflict:
    device, location = second.device, first.location
    why = "the first gets it"
    if denial.is_in_use:
        why = f"a pod uses it as {denial.other.id} of {denial.other.resource}"
    elif not denial.is_earlier:
        why = f"{denial.other.resource} has it already"
    left_out = f"device {device.id} of {device.resource} is left out"
    if is_id(denial.thing):
        return DeviceConflict(
            ", ".join(device.candidates),
            device.location,
            f"the ID '{device.id}' is that of a device of {denial.other.resource} at {location} and of a device of "
            f"{device.resource} at {device.location}, and an ID is unique on the node: {why}, {left_out}. Write an "
            "'id' template that differs, or unset 'verbatimId' in one of them",
            second.resource.configured_name,
        )
    path, numbers = _describe_thing(denial, device)
    return DeviceConflict(
        path,
        device.location,
        f"{path}{numbers} is claimed by {denial.other.resource} at {location} and by {device.resource} at "
        f"{device.location}: {why}, {left_out}. Exclude it from one resource, or set share: {{overlap: true}} in both",
        second.resource.configured_name,
    )


def _describe_thing(denial: Denial, device: Device) -> tuple[str, str]:
    """Return the path of a thing of a device, and the numbers of a device node in parentheses."""
    for node in device.nodes:
        if denial.thing == node.info.numbers:
            return node.path, f" ({node.info.describe_numbers()})"
    return ", ".join(device.candidates), ""
