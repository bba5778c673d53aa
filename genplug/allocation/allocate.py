"""Computes the container edits of an Allocate request for one container, or an error with the reason.

Every device node and mount source is checked again here, because the container runtime would create an empty directory
for a missing source and hand out whatever is at the path of a former node (docs/internals/kubelet-contract.md §5.4 and
§9.2). No state is kept, so equal requests get equal responses (§5.1).
"""

import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from msgspec.structs import replace

from genplug.allocation.container_edits import ContainerEdits, MountEdit, NodeEdit
from genplug.allocation.errors import AllocationError, failed_precondition, unknown_device_error
from genplug.allocation.offer import ResourceOffer
from genplug.hardware.host import printable
from genplug.hardware.inventory import KIND_NAMES, Device, DeviceNode, PathInfo, sort_devices
from genplug.hardware.rendered_values import with_resource
from genplug.spec.container_rules import (
    annotation_error,
    cdi_name_error,
    collect_environment,
    environment_error,
    mount_target_error,
    node_target_error,
    normalize_container_path,
    path_error,
    variable_error,
)
from genplug.spec.container_text import ContainerText, VariableSpec, duplicate_name_error, render_variables
from genplug.spec.model import MountSpec, Resource
from genplug.spec.names import SLICE
from genplug.spec.policy import Policy
from genplug.spec.template import LayeredValues, RenderError, Values, combine_values, list_members, merge_values


class PathLookup(Protocol):
    """The part of a :class:`~genplug.hardware.host.Host` that an allocation uses."""

    def stat(self, path: str) -> PathInfo | None:
        """Return what is at a path, with all symlinks resolved, or None if it does not exist."""
        ...

    def has_node(self, info: PathInfo) -> bool:
        """Return whether a device node with these numbers is at a resolved path; False requires a :meth:`stat`."""
        ...

    @property
    def missing_reason(self) -> Callable[[str], str]:
        """A function that returns why a path is missing."""
        ...


def allocate_edits(
    offer: ResourceOffer, ids: Sequence[str], host: PathLookup, *, is_complete: bool = False
) -> ContainerEdits:
    """Return the edits for a container with these devices; order and repeats of ``ids`` do not matter.

    The edits have what exists now: an optional node that has disappeared since the last scan is left out, and so is a
    device of a pool of tokens. With ``is_complete``, everything that the last scan found must still exist.

    Raises:
        AllocationError: an ID is unknown, a device is unhealthy or has changed, or two edits need one container path.
    """
    if not ids:
        return ContainerEdits()
    _check_share(offer, ids)
    devices = _granted_devices(offer, ids)
    try:
        return _edits_of(offer, ids, devices, host, is_complete=is_complete)
    except AllocationError:
        remaining = () if is_complete or offer.resource.tokens is None else _usable_devices(offer, devices, host)
        if not remaining or remaining == devices:
            raise
    return _edits_of(offer, ids, remaining, host, is_complete=is_complete)


def _edits_of(
    offer: ResourceOffer, ids: Sequence[str], devices: Sequence[Device], host: PathLookup, *, is_complete: bool
) -> ContainerEdits:
    allocate = offer.resource.allocate
    values = _values_of(offer, ids, devices)
    edits = ContainerEdits(
        env=collect_environment(item for spec in allocate.env for item in _render_variable(spec, values, offer)),
        mounts=_mounts(offer.resource, devices, host),
        nodes=_nodes(devices, host, is_complete=is_complete),
        annotations=tuple((name, _render(text, values, offer)) for name, text in allocate.annotations),
        cdi_devices=_cdi_devices(offer, merge_values(values)),
        supplemental_groups=_supplemental_groups(offer.resource),
    )
    _check_values(edits, offer.resource)
    return edits


def _check_values(edits: ContainerEdits, resource: Resource) -> None:
    """Check what was rendered for a container; the values of a single device were checked when it was found."""
    if error := duplicate_name_error(name for name, _ in edits.env):
        raise _cannot_allocate(resource.name, error)
    for name, value in edits.env:
        if error := variable_error(name, value, resource.policy):
            raise _cannot_allocate(resource.name, f"the environment variable {name} {error}")
    if error := environment_error(edits.env):
        raise _cannot_allocate(resource.name, f"the environment {error}")
    for key, value in edits.annotations:
        if error := annotation_error(key, value, resource.policy):
            raise _cannot_allocate(resource.name, f"the annotation {key} {error}")
    for node in edits.nodes:
        if error := node_target_error(node.container_path, node.host_path):
            raise _cannot_allocate(resource.name, f"the container path {node.container_path} {error}")


def _usable_devices(offer: ResourceOffer, devices: Sequence[Device], host: PathLookup) -> tuple[Device, ...]:
    """Return the devices of a pool whose nodes and mount sources exist now."""
    usable = []
    for device in devices:
        try:
            _nodes((device,), host, is_complete=False)
            _mounts(offer.resource, (device,), host)
        except AllocationError:
            continue
        usable.append(device)
    return tuple(usable)


def _check_share(offer: ResourceOffer, ids: Sequence[str]) -> None:
    """Check the limits of ``share`` for one container."""
    resource, requested = offer.resource, dict.fromkeys(ids)
    limit = resource.max_per_container
    if limit is not None and len(requested) > limit:
        raise _limit_error(resource, f"it requests {len(requested)}, and share.maxPerContainer is {limit}")
    if not resource.distinct or resource.tokens is not None:
        return
    ids_by_device: dict[str, str] = {}
    for grant_id in requested:
        for health in offer.grants[grant_id].devices if grant_id in offer.grants else ():
            if (first := ids_by_device.setdefault(health.device.id, grant_id)) != grant_id:
                paths = ", ".join(health.device.candidates)
                raise _limit_error(
                    resource, f"{first} and {grant_id} are the same device ({paths}), and share.distinct is true"
                )


def _limit_error(resource: Resource, reason: str) -> AllocationError:
    hint = "request fewer in the container, or change the resource in the configuration"
    message = f"{resource.name} cannot be allocated to a container: {reason} ({resource.location}); {hint}"
    return failed_precondition(message)


def _granted_devices(offer: ResourceOffer, ids: Sequence[str]) -> tuple[Device, ...]:
    """Return the devices of the grants with these IDs, in natural order, each once."""
    devices: dict[str, Device] = {}
    name = offer.resource.name
    for grant_id in dict.fromkeys(ids):
        grant = offer.grants.get(grant_id)
        if grant is None:
            raise unknown_device_error(name, grant_id)
        if not grant.healthy:
            raise _cannot_allocate(f"{name} device {grant_id}", grant.reason)
        devices.update((health.device.id, health.device) for health in grant.devices if health.verdict.healthy)
    return sort_devices(devices.values())


def _values_of(offer: ResourceOffer, ids: Sequence[str], devices: Sequence[Device]) -> tuple[Values, ...]:
    """Return the attributes of each device, with the name of the resource and the numbers of its slices.

    The numbers of the slices are at the first member of a device.
    """
    slices: dict[str, list[int]] = {}
    for grant_id in dict.fromkeys(ids):
        grant = offer.grants[grant_id]
        if grant.slice is not None:
            slices.setdefault(grant.devices[0].device.id, []).append(grant.slice)
    found: list[Values] = []
    for device in devices:
        first, *others = list_members(with_resource(device.attributes, offer.resource.name))
        numbers = tuple(map(str, sorted(slices.get(device.id, ()))))
        found.append(merge_values((LayeredValues(first, {SLICE: numbers}) if numbers else first, *others)))
    return tuple(found)


def _nodes(devices: Sequence[Device], host: PathLookup, *, is_complete: bool) -> tuple[NodeEdit, ...]:
    edits: dict[str, NodeEdit] = {}
    infos: dict[str, tuple[Device, PathInfo]] = {}
    present = [
        (device, *found) for device in devices for found in _present_nodes(device, host, is_complete=is_complete)
    ]
    # Nodes before companions, as in the list of a single device.
    for device, node, info in sorted(present, key=lambda found: found[1] in found[0].companions):
        container_path = node.container_path
        first = edits.get(container_path)
        if first is None:
            access = node.access
            edits[container_path] = NodeEdit(
                info.resolved,
                container_path,
                node.permissions,
                access.owner,
                access.group,
                access.mode,
                info.numbers,
            )
            infos[container_path] = (device, info)
        elif infos[container_path][1].numbers != info.numbers:
            raise _cannot_allocate(
                f"{device.resource} devices {infos[container_path][0].id} and {device.id}",
                f"{first.host_path} and {info.resolved} both map to {container_path} in the container; "
                "set different container paths with 'as'",
            )
        else:
            both = "".join(letter for letter in "rwm" if letter in first.permissions + node.permissions)
            edits[container_path] = replace(first, permissions=both)
    return tuple(edits.values())


def _present_nodes(device: Device, host: PathLookup, *, is_complete: bool) -> list[tuple[DeviceNode, PathInfo]]:
    """Return the nodes and companions of a device that exist now; at least one node must, and all that are required."""
    present: list[tuple[DeviceNode, PathInfo]] = []
    missing: AllocationError | None = None
    for node in (*device.nodes, *device.companions):
        try:
            present.append((node, _recheck_node(device, node, host)))
        except AllocationError as error:
            if is_complete or not node.is_optional:
                raise
            missing = missing or error
    if missing is not None and device.nodes and not any(node in device.nodes for node, _ in present):
        raise missing
    return present


def _recheck_node(device: Device, node: DeviceNode, host: PathLookup) -> PathInfo:
    if node.info.resolved == node.path and host.has_node(node.info):
        return node.info
    info = host.stat(node.path)
    if info is None:
        reason = f"{node.path} {host.missing_reason(node.path) or 'does not exist'}"
    elif not info.is_device:
        reason = f"{node.path} is now {KIND_NAMES[info.kind]}, not a device node"
    elif info.numbers != node.info.numbers:
        reason = (
            f"{node.path} is now {info.describe_numbers()} and was {node.info.describe_numbers()} when it was found"
        )
    else:
        return info
    raise _cannot_allocate(f"{device.resource} device {device.id}", reason)


def _mounts(resource: Resource, devices: Sequence[Device], host: PathLookup) -> tuple[MountEdit, ...]:
    """Return the mounts: each spec once for each device and combination of attribute values."""
    edits: dict[str, MountEdit] = {}
    for spec in resource.allocate.mounts:
        for device in devices:
            for source, container_path in _mount_paths(spec, device, resource):
                info = _check_mount_source(source, spec, device, resource.policy, host)
                if info is None:
                    continue
                edit = MountEdit(info.resolved, container_path, spec.read_only)
                if (first := edits.setdefault(container_path, edit)) != edit:
                    raise _cannot_allocate(
                        f"{device.resource} device {device.id}",
                        f"{first.host_path} and {edit.host_path} are both mounted at {container_path}, or with "
                        "different options; set different container paths",
                    )
    return tuple(edits.values())


def _check_mount_source(
    source: str, spec: MountSpec, device: Device, policy: Policy, host: PathLookup
) -> PathInfo | None:
    """Return the mount source, whose resolved path the policy allows, too; None if it is optional and missing."""
    what = f"{device.resource} device {device.id}"
    if error := policy.mount_error(source, read_only=spec.read_only):
        raise _cannot_allocate(what, f"the mount of {source} is {error}")
    info = host.stat(source)
    if info is None:
        if spec.optional:
            return None
        raise _cannot_allocate(what, f"the mount source {source} {host.missing_reason(source) or 'does not exist'}")
    if error := policy.mount_error(info.resolved, read_only=spec.read_only):
        raise _cannot_allocate(what, f"the mount of {source}, which leads to {info.resolved}, is {error}")
    return info


def _mount_paths(spec: MountSpec, device: Device, resource: Resource) -> Iterator[tuple[str, str]]:
    try:
        for selected in combine_values(
            (spec.host_path, spec.container_path), with_resource(device.attributes, resource.name)
        ):
            paths = (spec.host_path.render(selected), spec.container_path.render(selected))
            if violation := path_error(paths[0]):
                raise _cannot_allocate(
                    f"{device.resource} device {device.id}", f"the mount source '{printable(paths[0])}' {violation}"
                )
            if violation := mount_target_error(paths[1], resource.policy):
                raise _cannot_allocate(
                    f"{device.resource} device {device.id}", f"a mount at '{printable(paths[1])}' {violation}"
                )
            yield posixpath.normpath(paths[0]), normalize_container_path(paths[1])
    except RenderError as error:
        reason = f"a mount {error.describe('the device')}"
        raise _cannot_allocate(f"{device.resource} device {device.id}", reason) from None


def _cdi_devices(offer: ResourceOffer, attributes: Values) -> tuple[str, ...]:
    """Return the CDI device names: each template once for each combination of attribute values."""
    names: dict[str, None] = {}
    for template in offer.resource.allocate.cdi_devices:
        try:
            rendered = template.render_each(attributes)
        except RenderError as error:
            reason = f"'{template.text}' {error.describe('a device of the container')}"
            raise _cannot_allocate(offer.resource.name, reason) from None
        for name in rendered:
            if violation := cdi_name_error(name, offer.resource.policy):
                raise _cannot_allocate(offer.resource.name, f"the CDI device '{printable(name)}' {violation}")
            names[name] = None
    return tuple(names)


def _supplemental_groups(resource: Resource) -> tuple[int, ...]:
    for group in resource.allocate.supplemental_groups:
        if error := resource.policy.group_error(group):
            raise _cannot_allocate(resource.name, f"the group {group} is {error}")
    return resource.allocate.supplemental_groups


def _render(text: ContainerText, values: Sequence[Values], offer: ResourceOffer) -> str:
    try:
        return text.render(values)
    except RenderError as error:
        reason = f"'{text.template.text}' {error.describe('a device of the container')}"
        raise _cannot_allocate(offer.resource.name, reason) from None


def _render_variable(spec: VariableSpec, values: Sequence[Values], offer: ResourceOffer) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(render_variables((spec,), values))
    except RenderError as error:
        reason = f"'{spec.value.template.text}' {error.describe('a device of the container')}"
        raise _cannot_allocate(offer.resource.name, reason) from None


def _cannot_allocate(what: str, reason: str) -> AllocationError:
    return failed_precondition(f"{what} cannot be allocated to a container: {reason}")
