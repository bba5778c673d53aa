"""Builds devices from candidates: groups, keys, IDs, device nodes, companions, and the faults of a device."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from genplug.hardware.cdi_files import CdiDevices, read_cdi_devices
from genplug.hardware.cdi_references import cdi_faults
from genplug.hardware.denied_nodes import denied_device_error
from genplug.hardware.dependencies import Dependencies
from genplug.hardware.device_ids import device_id, verbatim_error
from genplug.hardware.device_nodes import candidate_nodes, candidate_target_faults, resolve_collisions, specified_nodes
from genplug.hardware.host import Host, printable
from genplug.hardware.hung_paths import HangError
from genplug.hardware.inventory import (
    KIND_NAMES,
    PATH_SEPARATOR,
    Candidate,
    CandidateOutcome,
    Device,
    Identity,
    ScanStall,
)
from genplug.hardware.rendered_values import find_plain_references, has_plain_values, rendered_value_faults
from genplug.hardware.required_attributes import is_slice_named, needed_at_allocate
from genplug.hardware.resource_naming import resource_name
from genplug.spec.limits import MAX_NODES_PER_DEVICE
from genplug.spec.model import AllocateSpec, Resource, Source
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.numbers import parse_natural
from genplug.spec.template import RenderError, Values, distinct_values, merge_values

MAX_SLICES = 1000
"""The maximum number of slices of a device, equal to the maximum of ``replicas``."""


class LeftOut(Struct, frozen=True):
    """The reason why a candidate or a group is left out. ``is_misnamed``: its resource name would be invalid."""

    reason: str
    is_misnamed: bool = False


class _Group(Struct, frozen=True):
    key: str
    is_node_name: bool
    candidates: tuple[Candidate, ...]


class BuiltDevices(Struct, frozen=True):
    """The devices of a resource in claim order, and the outcome of every candidate that is part of none of them.

    ``extra_dependencies`` are the dependencies of the devices that are not candidates.
    """

    devices: tuple[Device, ...]
    left_out: tuple[CandidateOutcome, ...]
    extra_dependencies: Dependencies
    stalls: tuple[ScanStall, ...] = ()


def build_devices(  # noqa: PLR0913, PLR0917 - the last three come from an earlier scan
    resource: Resource,
    candidates: Sequence[Candidate],
    host: Host,
    unchanged: Mapping[tuple[str, ...], Device] | None = None,
    extra_dependencies: Dependencies | None = None,
    previous: Mapping[tuple[str, ...], Device] | None = None,
) -> BuiltDevices:
    """Build the devices of a resource.

    ``unchanged`` are the devices, by the paths of their candidates, that need not be built again;
    ``extra_dependencies`` are their dependencies that are not candidates. ``previous`` are all devices of the previous
    scan: a device is kept from there if a file operation on its device nodes hangs.
    """
    devices: dict[str, Device] = {}
    left_out: list[CandidateOutcome] = []
    stalls: list[ScanStall] = []
    extra = extra_dependencies or Dependencies()
    builder = _DeviceBuilder.of(resource, host, extra, has_candidates=bool(candidates))
    for number, source in enumerate(resource.sources):
        own = [candidate for candidate in candidates if candidate.source == number]
        groups, ungrouped = _group_candidates(source, own)
        left_out += (_outcome_left_out(resource, source, candidate, why) for candidate, why in ungrouped)
        for group in sorted(groups, key=lambda group: natural_sort_key(group.key)):
            paths = tuple([candidate.path for candidate in group.candidates])
            try:
                device = unchanged[paths] if unchanged and paths in unchanged else builder.build(source, group, paths)
            except HangError as error:
                kept = (previous or {}).get(paths)
                names = PATH_SEPARATOR.join(map(printable, paths))
                stalls.append(ScanStall.of(resource.name, names, error, is_known=kept is not None))
                device = kept or LeftOut(f"its device nodes cannot be examined: {error}")
            if isinstance(device, LeftOut):
                left_out += (_outcome_left_out(resource, source, candidate, device) for candidate in group.candidates)
                continue
            first = devices.setdefault(device.id, device)
            if first is device:
                continue
            if set(device.identities) <= set(first.identities):
                duplicate = LeftOut(same_node_reason(first))
                left_out += (
                    _outcome_left_out(resource, source, candidate, duplicate) for candidate in group.candidates
                )
                continue
            same = f"has the same ID '{device.id}'"
            fault = f"{', '.join(paths)} ({device.location}) {same}; write an 'id' template that differs between them"
            devices[device.id] = replace(first, faults=(*first.faults, fault))
            duplicate = LeftOut(f"{', '.join(first.candidates)} {same}")
            left_out += (_outcome_left_out(resource, source, candidate, duplicate) for candidate in group.candidates)
    host.end_access()
    return BuiltDevices(tuple(devices.values()), tuple(left_out), builder.extra_dependencies, tuple(stalls))


def build_device(resource: Resource, candidate: Candidate, host: Host, extra: Dependencies) -> Device | None:
    """Return the device that a candidate is on its own, None if it is left out.

    The dependencies of the device that are not candidates are added to ``extra``.

    Raises:
        HangError: a file operation hangs.
    """
    source = resource.sources[candidate.source]
    groups, _ = _group_candidates(source, (candidate,))
    if not groups:
        return None
    builder = _DeviceBuilder.of(resource, host, extra, has_candidates=True)
    device = builder.build(source, groups[0], (candidate.path,))
    return device if isinstance(device, Device) else None


def device_key(source: Source, candidate: Candidate) -> str | None:
    """Return the key of the device that a candidate is on its own, None if it does not have one."""
    groups, _ = _group_candidates(source, (candidate,))
    return groups[0].key if groups else None


def same_node_reason(device: Device) -> str:
    """Return why another path to the same hardware as a device is left out."""
    return f"the same node as {', '.join(map(printable, device.candidates))}"


def _group_candidates(
    source: Source, candidates: Iterable[Candidate]
) -> tuple[list[_Group], list[tuple[Candidate, LeftOut]]]:
    """Group candidates by their key; return those without a key with the reason."""
    groups: dict[str, dict[object, Candidate]] = {}
    left_out: list[tuple[Candidate, LeftOut]] = []
    for candidate in candidates:
        try:
            key = source.group_by.render(distinct_values(candidate.attributes)) if source.group_by else candidate.path
        except RenderError as error:
            reason = f"groupBy {error.describe('the candidate')}{_format_refusals((candidate,))}"
            left_out.append((candidate, LeftOut(reason)))
            continue
        members = groups.setdefault(key, {})
        first = members.setdefault(candidate.info.identity if candidate.info is not None else candidate.path, candidate)
        if first is not candidate:
            left_out.append((candidate, LeftOut(f"the same node as {first.path}")))
    keyed: list[_Group] = []
    for key, members in groups.items():
        grouped = tuple(members.values())
        if len(grouped) > 1:
            grouped = tuple(sorted(grouped, key=lambda member: natural_sort_key(member.path)))
        if source.id is None:
            is_node_name = source.group_by is None and not source.nodes and key.startswith("/dev/")
            name = key.removeprefix("/dev/") if source.group_by is None else key
            keyed.append(_Group(name, is_node_name and grouped[0].is_node, grouped))
            continue
        try:
            identity = source.id.render(distinct_values(merge_values(member.attributes for member in grouped)))
        except RenderError as error:
            reason = f"id {error.describe('the candidate')}{_format_refusals(grouped)}"
            left_out += ((member, LeftOut(reason)) for member in grouped)
        else:
            keyed.append(_Group(identity, is_node_name=False, candidates=grouped))
    return keyed, left_out


class _DeviceBuilder(Struct, frozen=True):
    """Builds devices from groups and collects their dependencies that are not candidates."""

    resource: Resource
    host: Host
    needed: Mapping[tuple[str, ...], str]
    extra_dependencies: Dependencies
    cdi_devices: CdiDevices | None = None
    """The CDI devices of the node; None if the resource does not refer to any."""
    plain_references: frozenset[str] | None = None
    """See :func:`~genplug.hardware.rendered_values.find_plain_references`."""

    @classmethod
    def of(cls, resource: Resource, host: Host, extra: Dependencies, *, has_candidates: bool) -> "_DeviceBuilder":
        """Return the builder for a resource; dependencies are added to ``extra``."""
        cdi_devices = read_cdi_devices(host, extra) if resource.allocate.cdi_devices and has_candidates else None
        return cls(resource, host, needed_at_allocate(resource), extra, cdi_devices, find_plain_references(resource))

    def build(self, source: Source, group: _Group, paths: tuple[str, ...]) -> Device | LeftOut:
        """Return the device of a group, or the reason why the group is left out."""
        resource = self.resource
        attributes = group.candidates[0].attributes
        if len(group.candidates) > 1:
            attributes = merge_values(candidate.attributes for candidate in group.candidates)
        distinct = distinct_values(attributes)
        name, reason = resource_name(resource, distinct)
        if reason:
            return LeftOut(reason, is_misnamed=True)
        if len(group.candidates) > MAX_NODES_PER_DEVICE:
            reason = f"it groups {len(group.candidates)} paths, at most {MAX_NODES_PER_DEVICE} are allowed in a device"
            return LeftOut(reason)
        if source.nodes:
            nodes, faults = specified_nodes(
                source.nodes, attributes, self.host, self.extra_dependencies, resource.policy
            )
        else:
            nodes = candidate_nodes(group.candidates)
            faults = candidate_target_faults(nodes)
            if len(nodes) < len(group.candidates):
                faults = [*_empty_allocation_faults(resource, group), *faults]
        companions, missing = (
            specified_nodes(source.companions, attributes, self.host, self.extra_dependencies, resource.policy)
            if source.companions
            else ([], [])
        )
        own, extra_nodes, collisions = resolve_collisions(nodes, companions)
        faults += [*(f"companion {fault}" for fault in missing), *collisions]
        if source.nodes and not own and not faults:
            faults = ["none of its device nodes exists"]
        slices, fault = _slices(resource, distinct)
        faults += [fault] if fault else []
        if self.plain_references is None or not has_plain_values(attributes, self.plain_references):
            faults += self._find_allocate_faults(group, name, attributes, slices)
        id_ = device_id(name, group.key, is_node_name=group.is_node_name and not resource.overlap)
        if source.is_id_verbatim:
            fault = verbatim_error(group.key)
            id_, faults = (id_, [*faults, f"its ID '{group.key}' {fault}"]) if fault else (group.key, faults)
        identities: list[Identity] = []
        is_via_link = False
        for member in group.candidates:
            if (info := member.info) is not None:
                identities.append(info.identity)
                is_via_link = is_via_link or info.resolved != member.path
        device = Device(
            id=id_,
            key=group.key,
            resource=name,
            location=source.location,
            candidates=paths,
            nodes=own,
            companions=extra_nodes,
            attributes=attributes,
            numa=tuple(int(node) for node in distinct.get("numaNode", ())) if resource.has_topology else (),
            slices=slices,
            faults=tuple(dict.fromkeys(faults)) if faults else (),
            identities=tuple(identities),
            is_via_link=is_via_link,
        )
        denied = denied_device_error(device, resource.policy, self.host)
        return LeftOut(denied) if denied else device

    def _find_allocate_faults(self, group: _Group, name: str, attributes: Values, slices: int) -> list[str]:
        """Return why a container must not get what ``allocate`` gives it with a device of the resource ``name``."""
        resource = self.resource
        faults = [
            f"{part} refers to '{names[0]}', which the device does not have{_format_refusals(group.candidates, names)}"
            for names, part in self.needed.items()
            if not any(name_ in attributes for name_ in names)
        ]
        faults = faults or rendered_value_faults(resource, name, attributes)
        if self.cdi_devices is not None and not faults:
            faults = cdi_faults(resource, name, attributes, slices, self.cdi_devices)
        errors = ((gid, resource.policy.group_error(gid)) for gid in resource.allocate.supplemental_groups)
        return [*faults, *(f"the group {gid} is {error}" for gid, error in errors if error)]


def _format_refusals(candidates: Iterable[Candidate], names: Collection[str] | None = None) -> str:
    """Return why attributes could not be read, as the end of a reason; empty if no policy refused a read."""
    refusals = (
        refusal
        for candidate in candidates
        for name, refusal in candidate.reads.refusals.items()
        if names is None or name in names
    )
    return "".join(f"; {refusal}" for refusal in dict.fromkeys(refusals))


def _empty_allocation_faults(resource: Resource, group: _Group) -> list[str]:
    """Return a fault for each candidate that would give a container nothing."""
    if resource.allocate != AllocateSpec():
        return []
    return [
        f"{candidate.path} is {KIND_NAMES[candidate.info.kind]}, not a device node, and 'allocate' is empty: a "
        "container would get nothing"
        for candidate in group.candidates
        if candidate.info is not None and not candidate.is_node
    ]


def _slices(resource: Resource, attributes: Values) -> tuple[int, str]:
    """Return the number of slices of a device, and a fault if it is invalid."""
    if resource.slices is None:
        return 1, ""
    try:
        text = resource.slices.render(attributes)
    except RenderError as error:
        return 1, f"slices {error.describe('the device')}"
    number = parse_natural(text)
    if number is None or not 1 <= number <= MAX_SLICES:
        return 1, f"slices renders to '{text}', expected a number from 1 to {MAX_SLICES}"
    if len(attributes.get("index", ())) != 1 and is_slice_named(resource):
        return 1, "${slice} requires an 'index', and the device has none or several"
    return number, ""


def _outcome_left_out(resource: Resource, source: Source, candidate: Candidate, why: LeftOut) -> CandidateOutcome:
    path = printable(candidate.path)
    return CandidateOutcome(path, resource.name, source.location, None, why.reason, why.is_misnamed)
