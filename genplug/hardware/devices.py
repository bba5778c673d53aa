"""From candidates to schedulable devices: groups, keys, IDs, nodes, companions, and the faults found on the way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import evolve, frozen

from genplug.config.model import Resource, Source
from genplug.config.natural import natural_key
from genplug.config.template import MissingAttributeError, Template
from genplug.hardware.attributes import merged
from genplug.hardware.candidates import Candidate
from genplug.hardware.host import Host, readable
from genplug.hardware.ids import device_id
from genplug.hardware.interests import Interests
from genplug.hardware.inventory import Considered, Device
from genplug.hardware.nodes import own_nodes, specified_nodes, without_collisions
from genplug.hardware.protected import refusal


@frozen
class _Group:
    key: str
    is_node_name: bool
    candidates: tuple[Candidate, ...]


def make_devices(
    resource: Resource, candidates: Sequence[Candidate], host: Host, interests: Interests
) -> tuple[tuple[Device, ...], tuple[Considered, ...]]:
    """Make a resource's devices, in the order in which they claim nodes, and say what became of every candidate.

    ``interests`` get what may change the result.
    """
    devices: dict[str, Device] = {}
    considered: list[Considered] = []
    needed = _needed_at_allocate(resource)
    for number, source in enumerate(resource.sources):
        own = [candidate for candidate in candidates if candidate.source == number]
        groups, ungrouped = _grouped(source, own)
        considered += (_left_out(resource, source, candidate, reason) for candidate, reason in ungrouped)
        for group in sorted(groups, key=lambda group: natural_key(group.key)):
            device = _device(resource, source, group, needed, host, interests)
            if refused := refusal(device, resource.policy):
                considered += (_left_out(resource, source, candidate, refused) for candidate in group.candidates)
                continue
            first = devices.setdefault(device.id, device)
            if first is device:
                considered += (_taken(device, candidate) for candidate in group.candidates)
                continue
            same = f"has the same ID '{device.id}'"
            paths = ", ".join(device.candidates)
            fault = (
                f"{paths} ({device.place}) {same}; give each an id of its own, with a template that tells them apart"
            )
            devices[device.id] = evolve(first, faults=(*first.faults, fault))
            reason = f"{', '.join(first.candidates)} {same}"
            considered += (_left_out(resource, source, candidate, reason) for candidate in group.candidates)
    return tuple(devices.values()), tuple(considered)


def _grouped(source: Source, candidates: Iterable[Candidate]) -> tuple[list[_Group], list[tuple[Candidate, str]]]:
    """Put candidates with one key together; those without a key come back with the reason."""
    groups: dict[str, list[Candidate]] = {}
    left_out: list[tuple[Candidate, str]] = []
    for candidate in candidates:
        try:
            key = source.group_by.render(candidate.attributes) if source.group_by else candidate.path
        except MissingAttributeError as error:
            left_out.append((candidate, f"groupBy needs '{error.name}', which it does not have"))
            continue
        groups.setdefault(key, []).append(candidate)
    keyed: list[_Group] = []
    for key, members in groups.items():
        together = tuple(sorted(members, key=lambda member: natural_key(member.path)) if len(members) > 1 else members)
        if source.id is None:
            is_node_name = source.group_by is None and not source.nodes and key.startswith("/dev/")
            name = key.removeprefix("/dev/") if source.group_by is None else key
            keyed.append(_Group(name, is_node_name and together[0].look.is_device, together))
            continue
        try:
            identity = source.id.render(merged([member.attributes for member in together]))
        except MissingAttributeError as error:
            reason = f"its id needs '{error.name}', which it does not have"
            left_out += ((member, reason) for member in together)
        else:
            keyed.append(_Group(identity, is_node_name=False, candidates=together))
    return keyed, left_out


def _device(  # noqa: PLR0913, PLR0917 - what a device is made of
    resource: Resource, source: Source, group: _Group, needed: Mapping[str, str], host: Host, interests: Interests
) -> Device:
    attributes = merged([candidate.attributes for candidate in group.candidates])
    if source.nodes:
        nodes, faults = specified_nodes(source.nodes, attributes, host, interests)
    else:
        nodes, faults = own_nodes(group.candidates)
    companions, missing = specified_nodes(source.companions, attributes, host, interests)
    own, beside, collisions = without_collisions(nodes, companions)
    if missing or collisions:
        faults += [*(f"companion {fault}" for fault in missing), *collisions]
    if not own and not faults:
        faults = ["none of its device nodes exists"]
    if not needed.keys() <= attributes.keys():
        lacking = [name for name in needed if name not in attributes]
        faults += [f"{needed[name]} needs '{name}', which this device does not have" for name in lacking]
    return Device(
        id=device_id(resource.name, group.key, is_node_name=group.is_node_name and not resource.overlap),
        key=group.key,
        resource=resource.name,
        place=source.place,
        candidates=tuple([candidate.path for candidate in group.candidates]),
        nodes=own,
        companions=beside,
        attributes=attributes,
        faults=tuple(dict.fromkeys(faults)) if faults else (),
    )


def _needed_at_allocate(resource: Resource) -> dict[str, str]:
    """Return each attribute that Allocate cannot do without, and the first place that needs it."""
    needed: dict[str, str] = {}
    for place, template in _allocate_templates(resource):
        for reference in template.references:
            if not reference.has_default:
                needed.setdefault(reference.name, place)
    return needed


def _allocate_templates(resource: Resource) -> Iterator[tuple[str, Template]]:
    for name, template in resource.allocate.env:
        yield f"allocate.env {name}", template
    for mount in resource.allocate.mounts:
        yield f"a mount ({mount.place})", mount.host_path
        yield f"a mount ({mount.place})", mount.container_path
    for name, template in resource.allocate.annotations:
        yield f"allocate.annotations {name}", template


def _taken(device: Device, candidate: Candidate) -> Considered:
    return Considered(candidate.path, device.resource, device.place, device.id, candidate.found_by)


def _left_out(resource: Resource, source: Source, candidate: Candidate, reason: str) -> Considered:
    return Considered(readable(candidate.path), resource.name, source.place, None, reason)
