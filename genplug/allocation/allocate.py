"""The answer to Allocate for one container: device IDs in, container edits out, or a refusal with the reason.

Everything is looked at again now: a runtime would create an empty directory in place of a missing mount source, and
hand out whatever stands where a node once was (contract 5.4, 9.2). Nothing is remembered, so the same question has
the same answer (contract 5.1).
"""

import posixpath
from collections.abc import Iterator, Sequence
from itertools import product

from genplug.allocation.container_edits import ContainerEdits, MountEdit, NodeEdit
from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.allocation.offer import ResourceOffer
from genplug.hardware.candidate_attributes import merge_values
from genplug.hardware.host import Host
from genplug.hardware.inventory import KIND_NAMES, Device, DeviceNode, PathInfo
from genplug.spec.model import MountSpec, Resource
from genplug.spec.names import SLICE, cdi_device_error
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.policy import Policy
from genplug.spec.template import MissingAttributeError, Template, Values


def allocate_edits(offer: ResourceOffer, ids: Sequence[str], host: Host) -> ContainerEdits:
    """Return what a container with these devices gets; the order of ``ids`` and repeats do not matter.

    Raises:
        Refusal: an ID is unknown, a device is not healthy or no longer what it was, or two things want one location.
    """
    if not ids:
        return ContainerEdits()
    _check_share(offer, ids)
    devices = _granted(offer, ids)
    allocate = offer.resource.allocate
    attributes = _attributes(offer, ids, devices)
    return ContainerEdits(
        env=tuple((name, _rendered(template, attributes, offer)) for name, template in allocate.env),
        mounts=_mounts(allocate.mounts, devices, offer.resource.policy, host),
        nodes=_nodes(devices, host),
        annotations=tuple((name, _rendered(template, attributes, offer)) for name, template in allocate.annotations),
        cdi_devices=_cdi_devices(offer, attributes),
    )


def _check_share(offer: ResourceOffer, ids: Sequence[str]) -> None:
    """Refuse what ``share`` does not let one container have."""
    resource, asked = offer.resource, dict.fromkeys(ids)
    most = resource.max_per_container
    if most is not None and len(asked) > most:
        raise _too_many(resource, f"it asks for {len(asked)}, and share.maxPerContainer is {most}")
    if not resource.distinct or resource.tokens is not None:
        return
    given: dict[str, str] = {}
    for one in asked:
        for judged in offer.grants[one].devices if one in offer.grants else ():
            if (first := given.setdefault(judged.device.id, one)) != one:
                where = ", ".join(judged.device.candidates)
                raise _too_many(
                    resource, f"{first} and {one} are the same device ({where}), and share.distinct is true"
                )


def _too_many(resource: Resource, reason: str) -> AllocationError:
    advice = "let the container ask for fewer, or change the resource in the configuration"
    message = f"{resource.name} cannot be given to a container: {reason} ({resource.location}); {advice}"
    return AllocationError(AllocationErrorCode.FAILED_PRECONDITION, message)


def _granted(offer: ResourceOffer, ids: Sequence[str]) -> tuple[Device, ...]:
    """Return the devices behind the IDs in natural order, each once."""
    devices: dict[str, Device] = {}
    name = offer.resource.name
    for one in dict.fromkeys(ids):
        grant = offer.grants.get(one)
        if grant is None:
            raise AllocationError(
                AllocationErrorCode.NOT_FOUND,
                f"{name} has no device {one!r} on this node: it left the hardware or the configuration",
            )
        if not grant.healthy:
            raise _failed_precondition(f"{name} device {one}", grant.reason)
        devices.update((judged.device.id, judged.device) for judged in grant.devices if judged.verdict.healthy)
    if len(devices) == 1:
        return tuple(devices.values())
    return tuple(sorted(devices.values(), key=lambda device: (natural_sort_key(device.key), device.id)))


def _attributes(offer: ResourceOffer, ids: Sequence[str], devices: Sequence[Device]) -> Values:
    """Return the attributes that templates speak of, of all devices together."""
    allocate = offer.resource.allocate
    named = (*(template for _, template in (*allocate.env, *allocate.annotations)), *allocate.cdi_devices)
    slices = sorted({number for one in ids if (number := offer.grants[one].slice) is not None})
    sliced: Values = {SLICE: tuple(map(str, slices))} if slices else {}
    if len(devices) == 1:
        return {**devices[0].attributes, **sliced} if sliced else devices[0].attributes
    names = frozenset[str]().union(*(template.names for template in named))
    parts = [{name: device.attributes[name] for name in names & device.attributes.keys()} for device in devices]
    return {**merge_values(parts), **sliced}


def _nodes(devices: Sequence[Device], host: Host) -> tuple[NodeEdit, ...]:
    edits: dict[str, NodeEdit] = {}
    looks: dict[str, tuple[Device, PathInfo]] = {}
    everything = (
        *((device, node) for device in devices for node in device.nodes),
        *((device, node) for device in devices for node in device.companions),
    )
    for device, node in everything:
        look = _recheck_node(device, node, host)
        container_path = node.container_path
        first = edits.get(container_path)
        if first is None:
            edits[container_path] = NodeEdit(look.resolved, container_path, node.permissions)
            looks[container_path] = (device, look)
        elif looks[container_path][1].numbers != look.numbers:
            raise _failed_precondition(
                f"{device.resource} devices {looks[container_path][0].id} and {device.id}",
                f"{first.host_path} and {look.resolved} both want to be {container_path} in the container; "
                "give each a path of its own with 'as'",
            )
        else:
            both = "".join(letter for letter in "rwm" if letter in first.permissions + node.permissions)
            edits[container_path] = NodeEdit(first.host_path, container_path, both)
    return tuple(edits.values())


def _recheck_node(device: Device, node: DeviceNode, host: Host) -> PathInfo:
    look = host.stat(node.path)
    if look is None:
        reason = f"{node.path} {host.missing_reason(node.path) or 'does not exist'}"
    elif not look.is_device:
        reason = f"{node.path} is {KIND_NAMES[look.kind]} now, not a device node"
    elif look.numbers != node.info.numbers:
        reason = f"{node.path} is {_named(look)} now and was {_named(node.info)} when it was found"
    else:
        return look
    raise _failed_precondition(f"{device.resource} device {device.id}", reason)


def _mounts(specs: Sequence[MountSpec], devices: Sequence[Device], policy: Policy, host: Host) -> tuple[MountEdit, ...]:
    """Return the mounts, each spec once for each device and value that it speaks of."""
    edits: dict[str, MountEdit] = {}
    for spec in specs:
        for device in devices:
            for source, container_path in _mount_paths(spec, device):
                look = _mount_source(source, spec, device, policy, host)
                if look is None:
                    continue
                edit = MountEdit(look.resolved, container_path, spec.read_only)
                if (first := edits.setdefault(container_path, edit)) != edit:
                    raise _failed_precondition(
                        f"{device.resource} device {device.id}",
                        f"{first.host_path} and {edit.host_path} are both mounted at {container_path}, or with "
                        "different options; give each a path of its own",
                    )
    return tuple(edits.values())


def _mount_source(source: str, spec: MountSpec, device: Device, policy: Policy, host: Host) -> PathInfo | None:
    """Return what is to be mounted, which the policy allows under its own path too; None if it need not be there."""
    what = f"{device.resource} device {device.id}"
    if fault := policy.mount_error(source, read_only=spec.read_only):
        raise _failed_precondition(what, f"the mount of {source} is {fault}")
    look = host.stat(source)
    if look is None:
        if spec.optional:
            return None
        raise _failed_precondition(what, f"the mount source {source} {host.missing_reason(source) or 'does not exist'}")
    if fault := policy.mount_error(look.resolved, read_only=spec.read_only):
        raise _failed_precondition(what, f"the mount of {source}, which leads to {look.resolved}, is {fault}")
    return look


def _mount_paths(spec: MountSpec, device: Device) -> Iterator[tuple[str, str]]:
    names = sorted((spec.host_path.names | spec.container_path.names) & device.attributes.keys())
    for values in product(*(device.attributes[name] for name in names)):
        chosen: Values = {**device.attributes, **{name: (text,) for name, text in zip(names, values, strict=True)}}
        try:
            paths = (spec.host_path.render(chosen), spec.container_path.render(chosen))
        except MissingAttributeError as error:
            reason = f"a mount needs '{error.name}', which it does not have"
            raise _failed_precondition(f"{device.resource} device {device.id}", reason) from None
        for path in paths:
            if not path.startswith("/"):
                raise _failed_precondition(
                    f"{device.resource} device {device.id}", f"a mount's path '{path}' is not absolute"
                )
        yield posixpath.normpath(paths[0]), posixpath.normpath(paths[1])


def _cdi_devices(offer: ResourceOffer, attributes: Values) -> tuple[str, ...]:
    """Return the names of CDI devices, each spec once for each value that it speaks of."""
    names: dict[str, None] = {}
    for template in offer.resource.allocate.cdi_devices:
        try:
            rendered = template.render_each(attributes)
        except MissingAttributeError as error:
            reason = f"'{template.text}' needs '{error.name}', which no device of the container has"
            raise _failed_precondition(offer.resource.name, reason) from None
        for name in rendered:
            if fault := cdi_device_error(name) or offer.resource.policy.cdi_error(name):
                raise _failed_precondition(offer.resource.name, f"the CDI device '{name}' is none to hand out: {fault}")
            names[name] = None
    return tuple(names)


def _rendered(template: Template, attributes: Values, offer: ResourceOffer) -> str:
    try:
        return template.render(attributes)
    except MissingAttributeError as error:
        reason = f"'{template.text}' needs '{error.name}', which no device of the container has"
        raise _failed_precondition(offer.resource.name, reason) from None


def _named(look: PathInfo) -> str:
    return f"{look.kind} {look.major}:{look.minor}"


def _failed_precondition(what: str, reason: str) -> AllocationError:
    return AllocationError(AllocationErrorCode.FAILED_PRECONDITION, f"{what} cannot be given to a container: {reason}")
