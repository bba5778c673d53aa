"""From candidates to schedulable devices: groups, keys, IDs, nodes, companions, and the faults found on the way."""

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, frozen

from genplug.hardware.candidate_attributes import merge_values
from genplug.hardware.denied_nodes import denial_reason
from genplug.hardware.dependencies import Dependencies
from genplug.hardware.device_ids import device_id, verbatim_error
from genplug.hardware.device_nodes import own_nodes, specified_nodes, without_collisions
from genplug.hardware.host import Host, printable
from genplug.hardware.hung_paths import HangError
from genplug.hardware.inventory import KIND_NAMES, Candidate, CandidateOutcome, Device, ScanStall
from genplug.hardware.required_attributes import is_slice_named, needed_at_allocate
from genplug.hardware.resource_naming import resource_name
from genplug.spec.model import AllocateSpec, Resource, Source
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.template import MissingAttributeError, Values

MAX_SLICES = 1000
"""Slices of one device: as many as the schema allows replicas."""


class InvalidResourceName(str):
    """Why a device is left out: the name that its resource would have."""

    __slots__ = ()


@frozen
class _Group:
    key: str
    is_node_name: bool
    candidates: tuple[Candidate, ...]


@frozen
class BuiltDevices:
    """The devices of a resource in the order in which they claim nodes, and what became of every candidate.

    ``beside`` is what may change them beside their candidates.
    """

    devices: tuple[Device, ...]
    outcomes: tuple[CandidateOutcome, ...]
    extra_dependencies: Dependencies
    stalls: tuple[ScanStall, ...] = ()


def build_devices(  # noqa: PLR0913, PLR0917 - the last three are what an earlier scan found
    resource: Resource,
    candidates: Sequence[Candidate],
    host: Host,
    known: Mapping[tuple[str, ...], Device] | None = None,
    beside: Dependencies | None = None,
    previous: Mapping[tuple[str, ...], Device] | None = None,
) -> BuiltDevices:
    """Make a resource's devices.

    ``known`` are devices, by their candidates, that are as they were; ``beside`` is what they depend on. ``previous``
    are all devices of the previous scan: one of them is kept if a file operation on its device nodes hangs.
    """
    devices: dict[str, Device] = {}
    considered: list[CandidateOutcome] = []
    stalls: list[ScanStall] = []
    maker = _DeviceBuilder(resource, host, needed_at_allocate(resource), beside or Dependencies())
    for number, source in enumerate(resource.sources):
        own = [candidate for candidate in candidates if candidate.source == number]
        groups, ungrouped = _grouped(source, own)
        considered += (_left_out(resource, source, candidate, reason) for candidate, reason in ungrouped)
        for group in sorted(groups, key=lambda group: natural_sort_key(group.key)):
            paths = tuple([candidate.path for candidate in group.candidates])
            try:
                device = known[paths] if known and paths in known else maker.device(source, group, paths)
            except HangError as error:
                stalls.append(ScanStall(resource.name, ", ".join(map(printable, paths)), str(error)))
                device = (previous or {}).get(paths) or f"its device nodes cannot be examined: {error}"
            if isinstance(device, str):
                considered += (_left_out(resource, source, candidate, device) for candidate in group.candidates)
                continue
            first = devices.setdefault(device.id, device)
            if first is device:
                considered += (_taken(device, candidate) for candidate in group.candidates)
                continue
            same = f"has the same ID '{device.id}'"
            fault = (
                f"{', '.join(paths)} ({device.location}) {same}; give each an id of its own, with a "
                "template that tells "
                "them apart"
            )
            devices[device.id] = evolve(first, faults=(*first.faults, fault))
            reason = f"{', '.join(first.candidates)} {same}"
            considered += (_left_out(resource, source, candidate, reason) for candidate in group.candidates)
    return BuiltDevices(tuple(devices.values()), tuple(considered), maker.beside, tuple(stalls))


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
        together = tuple(
            sorted(members, key=lambda member: natural_sort_key(member.path)) if len(members) > 1 else members
        )
        if source.id is None:
            is_node_name = source.group_by is None and not source.nodes and key.startswith("/dev/")
            name = key.removeprefix("/dev/") if source.group_by is None else key
            keyed.append(_Group(name, is_node_name and together[0].is_node, together))
            continue
        try:
            identity = source.id.render(merge_values([member.attributes for member in together]))
        except MissingAttributeError as error:
            reason = f"its id needs '{error.name}', which it does not have"
            left_out += ((member, reason) for member in together)
        else:
            keyed.append(_Group(identity, is_node_name=False, candidates=together))
    return keyed, left_out


@frozen
class _DeviceBuilder:
    """Makes devices of groups; ``beside`` collects what else they depend on."""

    resource: Resource
    host: Host
    needed: Mapping[str, str]
    beside: Dependencies

    def device(self, source: Source, group: _Group, paths: tuple[str, ...]) -> Device | str:
        """Return the device of a group, or the reason why it is none."""
        resource = self.resource
        attributes = merge_values([candidate.attributes for candidate in group.candidates])
        name, reason = resource_name(resource, attributes)
        if reason:
            return InvalidResourceName(reason)
        if source.nodes:
            nodes, faults = specified_nodes(source.nodes, attributes, self.host, self.beside)
        else:
            nodes, faults = own_nodes(group.candidates), _gives_nothing(resource, group)
        companions, missing = specified_nodes(source.companions, attributes, self.host, self.beside)
        own, beside, collisions = without_collisions(nodes, companions)
        faults += [*(f"companion {fault}" for fault in missing), *collisions]
        if source.nodes and not own and not faults:
            faults = ["none of its device nodes exists"]
        slices, fault = _slices(resource, attributes)
        faults += [fault] if fault else []
        if not self.needed.keys() <= attributes.keys():
            lacking = [one for one in self.needed if one not in attributes]
            faults += [f"{self.needed[one]} needs '{one}', which this device does not have" for one in lacking]
        id_ = device_id(name, group.key, is_node_name=group.is_node_name and not resource.overlap)
        if source.is_id_verbatim:
            fault = verbatim_error(group.key)
            id_, faults = (id_, [*faults, f"its ID '{group.key}' {fault}"]) if fault else (group.key, faults)
        device = Device(
            id=id_,
            key=group.key,
            resource=name,
            location=source.location,
            candidates=paths,
            nodes=own,
            companions=beside,
            attributes=attributes,
            numa=tuple(int(one) for one in attributes.get("numaNode", ())) if resource.has_topology else (),
            slices=slices,
            faults=tuple(dict.fromkeys(faults)) if faults else (),
        )
        return denial_reason(device, resource.policy) or device


def _gives_nothing(resource: Resource, group: _Group) -> list[str]:
    """Return a fault for each candidate of which a container would get nothing."""
    if resource.allocate != AllocateSpec():
        return []
    return [
        f"{candidate.path} is {KIND_NAMES[candidate.info.kind]}, not a device node, and 'allocate' says nothing: a "
        "container would get nothing of it"
        for candidate in group.candidates
        if candidate.info is not None and not candidate.is_node
    ]


def _slices(resource: Resource, attributes: Values) -> tuple[int, str]:
    """Return in how many slices a device is listed, and what is wrong with that."""
    if resource.slices is None:
        return 1, ""
    try:
        text = resource.slices.render(attributes)
    except MissingAttributeError as error:
        return 1, f"slices needs '{error.name}', which this device does not have"
    if not text.isdecimal() or not 1 <= int(text) <= MAX_SLICES:
        return 1, f"slices is '{text}' for this device, wanted a number from 1 to {MAX_SLICES}"
    if len(attributes.get("index", ())) != 1 and is_slice_named(resource):
        return 1, "${slice} counts by a device's own 'index', and this device has not one of its own"
    return int(text), ""


def _taken(device: Device, candidate: Candidate) -> CandidateOutcome:
    return CandidateOutcome(
        candidate.path, device.resource, device.location, device.id, f"found by '{candidate.found_by}'"
    )


def _left_out(resource: Resource, source: Source, candidate: Candidate, reason: str) -> CandidateOutcome:
    is_misnamed = isinstance(reason, InvalidResourceName)
    return CandidateOutcome(printable(candidate.path), resource.name, source.location, None, reason, is_misnamed)
