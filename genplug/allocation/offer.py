"""Builds the offer of a resource from its devices: each device once, several times (replicas, slices), or as tokens.

Pure: devices with their health and a resource in, grants out.
"""

from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, frozen

from genplug.allocation.results import ListedDevice, PluginOptions
from genplug.hardware.device_ids import replica_id, slice_id, token_ids
from genplug.hardware.inventory import Device
from genplug.health.verdict import DeviceHealth
from genplug.spec.model import Preference, Resource
from genplug.spec.template import MissingAttributeError, Template

_MAX_REASONS = 3


@frozen
class Grant:
    """One unit that the kubelet can give to a container.

    ``devices`` is the one device it stands for (replicas included), or every device of the pool for a token.
    ``reason`` says why it is not healthy, empty while it is. ``slice`` is its number where the device is listed in
    slices: counted through over the node where the device has a number of its own.
    """

    id: str
    devices: tuple[DeviceHealth, ...]
    healthy: bool
    reason: str = ""
    slice: int | None = None


@frozen
class ResourceOffer:
    """What one resource offers: its grants by ID, in natural order, and the list made of them."""

    resource: Resource
    grants: Mapping[str, Grant]
    listed: tuple[ListedDevice, ...]
    groups: Mapping[str, tuple[str, ...]] = {}
    """For the choice among grants: in which groups each is, the outermost first; the innermost is its device."""

    def mark_unhealthy(self, reasons: Mapping[str, str]) -> "ResourceOffer":
        """Return the offer with some of its grants unhealthy, each for a reason more."""
        if not reasons:
            return self
        grants = {
            one.id: evolve(one, healthy=False, reason="; ".join(filter(None, (one.reason, reasons[one.id]))))
            if one.id in reasons
            else one
            for one in self.grants.values()
        }
        listed = tuple(evolve(one, healthy=False) if one.id in reasons else one for one in self.listed)
        return evolve(self, grants=grants, listed=listed)

    @property
    def options(self) -> PluginOptions:
        """What the kubelet is told of the resource's endpoint."""
        preference = self.resource.preference
        is_wanted = preference.policy is not Preference.NONE
        if not preference.is_explicit:
            # What nobody asked for is worth the kubelet's question only where there is something to choose.
            is_wanted = len({listed.numa for listed in self.listed}) > 1
        return PluginOptions(self.resource.distinct or is_wanted, self.resource.pre_start is not None)


def build_offer(resource: Resource, judged: Sequence[DeviceHealth]) -> ResourceOffer:
    """Return what a resource offers, given its judged devices in natural order."""
    grants = tuple(_tokens(resource, judged) if resource.tokens is not None else _devices(resource, judged))
    # Where one device has no NUMA node the kubelet would find no place for it beside those that have (contract 4).
    has_topology = resource.tokens is None and all(one.device.numa for one in judged)
    offer = ResourceOffer(
        resource=resource,
        grants={grant.id: grant for grant in grants},
        listed=tuple(
            ListedDevice(grant.id, grant.healthy, grant.devices[0].device.numa if has_topology else ())
            for grant in grants
        ),
    )
    return (
        evolve(offer, groups=_groups(resource, grants)) if offer.options.get_preferred_allocation_available else offer
    )


def _groups(resource: Resource, grants: Sequence[Grant]) -> dict[str, tuple[str, ...]]:
    """Say in which groups each grant is; a token is in none: it gives every device, wherever."""
    groups: dict[str, tuple[str, ...]] = {}
    for grant in grants:
        if len(grant.devices) == 1:
            device = grant.devices[0].device
            groups[grant.id] = (_group(resource.preference.by, device), device.id)
    return groups


def _group(by: Template | None, device: Device) -> str:
    if by is None:
        return ",".join(map(str, device.numa))
    try:
        return by.render(device.attributes)
    except MissingAttributeError:
        # Devices that cannot be told apart stand together.
        return ""


def _devices(resource: Resource, judged: Sequence[DeviceHealth]) -> Iterator[Grant]:
    for one in judged:
        device, verdict = one.device, one.verdict
        if resource.slices is not None:
            first = _index(device) * device.slices
            for number in range(device.slices):
                yield Grant(slice_id(device.id, number), (one,), verdict.healthy, verdict.reason, slice=first + number)
        elif resource.replicas == 1:
            yield Grant(device.id, (one,), verdict.healthy, verdict.reason)
        else:
            for number in range(resource.replicas):
                yield Grant(replica_id(device.id, number), (one,), verdict.healthy, verdict.reason)


def _index(device: Device) -> int:
    """Return a device's own number, 0 where it has none or several."""
    index = device.attributes.get("index", ())
    return int(index[0]) if len(index) == 1 else 0


def _tokens(resource: Resource, judged: Sequence[DeviceHealth]) -> Iterator[Grant]:
    pool = tuple(judged)
    if not pool or resource.tokens is None:
        return
    healthy = any(one.verdict.healthy for one in pool)
    reason = "" if healthy else _missing_devices_reason(pool)
    for token in token_ids(resource.name, resource.tokens):
        yield Grant(token, pool, healthy, reason)


def _missing_devices_reason(pool: Sequence[DeviceHealth]) -> str:
    reasons = list(dict.fromkeys(one.verdict.reason for one in pool))
    more = f"; and {len(reasons) - _MAX_REASONS} more reasons" if len(reasons) > _MAX_REASONS else ""
    return f"no device of the pool is healthy: {'; '.join(reasons[:_MAX_REASONS])}{more}"
