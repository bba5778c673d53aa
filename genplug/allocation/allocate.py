"""The answer to Allocate for one container: device IDs in, container edits out, or a refusal with the reason.

Everything is looked at again now: a runtime would create an empty directory in place of a missing mount source, and
hand out whatever stands where a node once was (contract 5.4, 9.2). Nothing is remembered, so the same question has
the same answer (contract 5.1).
"""

import posixpath
from collections.abc import Iterator, Sequence
from itertools import product

from genplug.allocation.container_edits import ContainerEdits, MountEdit, NodeEdit
from genplug.allocation.errors import Refusal, RefusalCode
from genplug.allocation.offer import ResourceOffer
from genplug.hardware.candidate_attributes import merged
from genplug.hardware.host import Host
from genplug.hardware.inventory import KIND_NAMES, Device, DeviceNode, Look
from genplug.spec.model import MountSpec, Resource
from genplug.spec.names import SLICE, cdi_device_fault
from genplug.spec.natural_sort import natural_key
from genplug.spec.policy import Policy
from genplug.spec.template import MissingAttributeError, Template, Values


def answered(offer: ResourceOffer, ids: Sequence[str], host: Host) -> ContainerEdits:
    """Return what a container with these devices gets; the order of ``ids`` and repeats do not matter.

    Raises:
        Refusal: an ID is unknown, a device is not healthy or no longer what it was, or two things want one place.
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
    most = resource.most_per_container
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


def _too_many(resource: Resource, reason: str) -> Refusal:
    advice = "let the container ask for fewer, or change the resource in the configuration"
    message = f"{resource.name} cannot be given to a container: {reason} ({resource.place}); {advice}"
    return Refusal(RefusalCode.FAILED_PRECONDITION, message)


def _granted(offer: ResourceOffer, ids: Sequence[str]) -> tuple[Device, ...]:
    """Return the devices behind the IDs in natural order, each once."""
    devices: dict[str, Device] = {}
    name = offer.resource.name
    for one in dict.fromkeys(ids):
        grant = offer.grants.get(one)
        if grant is None:
            raise Refusal(
                RefusalCode.NOT_FOUND,
                f"{name} has no device {one!r} on this node: it left the hardware or the configuration",
            )
        if not grant.healthy:
            raise _not_now(f"{name} device {one}", grant.reason)
        devices.update((judged.device.id, judged.device) for judged in grant.devices if judged.verdict.healthy)
    if len(devices) == 1:
        return tuple(devices.values())
    return tuple(sorted(devices.values(), key=lambda device: (natural_key(device.key), device.id)))


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
    return {**merged(parts), **sliced}


def _nodes(devices: Sequence[Device], host: Host) -> tuple[NodeEdit, ...]:
    edits: dict[str, NodeEdit] = {}
    looks: dict[str, tuple[Device, Look]] = {}
    everything = (
        *((device, node) for device in devices for node in device.nodes),
        *((device, node) for device in devices for node in device.companions),
    )
    for device, node in everything:
        look = _looked_again(device, node, host)
        place = node.container_path
        first = edits.get(place)
        if first is None:
            edits[place] = NodeEdit(look.resolved, place, node.permissions)
            looks[place] = (device, look)
        elif looks[place][1].numbers != look.numbers:
            raise _not_now(
                f"{device.resource} devices {looks[place][0].id} and {device.id}",
                f"{first.host_path} and {look.resolved} both want to be {place} in the container; "
                "give each a path of its own with 'as'",
            )
        else:
            both = "".join(letter for letter in "rwm" if letter in first.permissions + node.permissions)
            edits[place] = NodeEdit(first.host_path, place, both)
    return tuple(edits.values())


def _looked_again(device: Device, node: DeviceNode, host: Host) -> Look:
    look = host.look(node.path)
    if look is None:
        reason = f"{node.path} {host.absence(node.path) or 'does not exist'}"
    elif not look.is_device:
        reason = f"{node.path} is {KIND_NAMES[look.kind]} now, not a device node"
    elif look.numbers != node.look.numbers:
        reason = f"{node.path} is {_named(look)} now and was {_named(node.look)} when it was found"
    else:
        return look
    raise _not_now(f"{device.resource} device {device.id}", reason)


def _mounts(specs: Sequence[MountSpec], devices: Sequence[Device], policy: Policy, host: Host) -> tuple[MountEdit, ...]:
    """Return the mounts, each spec once for each device and value that it speaks of."""
    edits: dict[str, MountEdit] = {}
    for spec in specs:
        for device in devices:
            for source, place in _mount_paths(spec, device):
                look = _mount_source(source, spec, device, policy, host)
                if look is None:
                    continue
                edit = MountEdit(look.resolved, place, spec.read_only)
                if (first := edits.setdefault(place, edit)) != edit:
                    raise _not_now(
                        f"{device.resource} device {device.id}",
                        f"{first.host_path} and {edit.host_path} are both to be mounted at {place}, or differently",
                    )
    return tuple(edits.values())


def _mount_source(source: str, spec: MountSpec, device: Device, policy: Policy, host: Host) -> Look | None:
    """Return what is to be mounted, which the policy allows under its own path too; None if it need not be there."""
    what = f"{device.resource} device {device.id}"
    if fault := policy.mount_fault(source, read_only=spec.read_only):
        raise _not_now(what, f"the mount of {source} is {fault}")
    look = host.look(source)
    if look is None:
        if spec.optional:
            return None
        raise _not_now(what, f"the mount source {source} {host.absence(source) or 'does not exist'}")
    if fault := policy.mount_fault(look.resolved, read_only=spec.read_only):
        raise _not_now(what, f"the mount of {source}, which leads to {look.resolved}, is {fault}")
    return look


def _mount_paths(spec: MountSpec, device: Device) -> Iterator[tuple[str, str]]:
    names = sorted((spec.host_path.names | spec.container_path.names) & device.attributes.keys())
    for values in product(*(device.attributes[name] for name in names)):
        chosen: Values = {**device.attributes, **{name: (text,) for name, text in zip(names, values, strict=True)}}
        try:
            paths = (spec.host_path.render(chosen), spec.container_path.render(chosen))
        except MissingAttributeError as error:
            reason = f"a mount needs '{error.name}', which it does not have"
            raise _not_now(f"{device.resource} device {device.id}", reason) from None
        for path in paths:
            if not path.startswith("/"):
                raise _not_now(f"{device.resource} device {device.id}", f"a mount's path '{path}' is not absolute")
        yield posixpath.normpath(paths[0]), posixpath.normpath(paths[1])


def _cdi_devices(offer: ResourceOffer, attributes: Values) -> tuple[str, ...]:
    """Return the names of CDI devices, each spec once for each value that it speaks of."""
    names: dict[str, None] = {}
    for template in offer.resource.allocate.cdi_devices:
        try:
            rendered = template.render_each(attributes)
        except MissingAttributeError as error:
            reason = f"'{template.text}' needs '{error.name}', which no device of the container has"
            raise _not_now(offer.resource.name, reason) from None
        for name in rendered:
            if fault := cdi_device_fault(name) or offer.resource.policy.cdi_fault(name):
                raise _not_now(offer.resource.name, f"the CDI device '{name}' is none to hand out: {fault}")
            names[name] = None
    return tuple(names)


def _rendered(template: Template, attributes: Values, offer: ResourceOffer) -> str:
    try:
        return template.render(attributes)
    except MissingAttributeError as error:
        reason = f"'{template.text}' needs '{error.name}', which no device of the container has"
        raise _not_now(offer.resource.name, reason) from None


def _named(look: Look) -> str:
    return f"{look.kind} {look.major}:{look.minor}"


def _not_now(what: str, reason: str) -> Refusal:
    return Refusal(RefusalCode.FAILED_PRECONDITION, f"{what} cannot be given to a container: {reason}")
