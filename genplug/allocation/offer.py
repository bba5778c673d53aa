"""Builds the offer of a resource from its devices: each device once, several times (replicas, slices), or as tokens.

Pure: devices with their health and a resource in, grants out.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from genplug.allocation.preferred import parse_position
from genplug.allocation.results import ListedDevice, PluginOptions
from genplug.hardware.device_ids import replica_id, slice_id, token_ids
from genplug.hardware.inventory import Device
from genplug.health.verdict import DeviceHealth
from genplug.spec.limits import MAX_GRANTS, MAX_LIST_BYTES
from genplug.spec.model import Preference, Resource
from genplug.spec.template import RenderError, Template, distinct_values

_MAX_REASONS = 3
_TOO_MANY = (
    f"the lists of all resources would have more than {MAX_GRANTS} entries, the maximum; reduce 'replicas', 'slices' "
    "or 'tokens'"
)
_TOO_LARGE = (
    f"the list would be larger than {MAX_LIST_BYTES >> 20} MiB, the maximum of the kubelet; reduce 'replicas' or "
    "'slices'"
)
_ENTRY_BYTES = 17
"""Bytes of an entry of the list without the ID and the NUMA nodes: tags, lengths, and ``Unhealthy``."""
_SUFFIX_BYTES = 6
"""Bytes of the suffix of a replica or slice, ``-r9999`` at most."""
DEFAULT_POSITION = Template.parse("${index}")
"""The position of a device for the policy ``contiguous``, unless ``by`` is set."""


class Grant(Struct, frozen=True):
    """A unit that the kubelet can allocate to a container.

    ``devices`` is the device that it stands for (also for replicas and slices), or all devices of the pool for a token.
    ``reason`` is why it is unhealthy, empty while it is healthy. ``slice`` is the number of the slice, unique on the
    node if the device has an ``index``.
    """

    id: str
    devices: tuple[DeviceHealth, ...]
    healthy: bool
    reason: str = ""
    slice: int | None = None


class ResourceOffer(Struct, frozen=True):
    """The offer of a resource: its grants by ID, in natural order, the device list and the options for the kubelet."""

    resource: Resource
    grants: Mapping[str, Grant]
    listed: tuple[ListedDevice, ...]
    options: PluginOptions
    groups: Mapping[str, tuple[str, ...]] = {}
    """The groups of each grant for preferred allocation, the outermost first; the innermost is its device."""
    positions: Mapping[str, float] = {}
    """The position of each grant for the policy ``contiguous``; a grant without a number has no position."""
    omitted: int = 0
    """The number of devices (of tokens, for a pool) that are not listed because of a limit."""
    omission: str = ""
    """Why devices are not listed, empty if all are."""

    @property
    def healthy_devices(self) -> int:
        """The number of healthy devices without their replicas, slices and tokens."""
        grants = tuple(self.grants.values())
        # Each token stands for all devices.
        counted = grants[:1] if self.resource.tokens is not None else grants
        healths = (health for grant in counted for health in grant.devices)
        return len({health.device.id for health in healths if health.verdict.healthy})

    def mark_unhealthy(self, reasons: Mapping[str, str]) -> "ResourceOffer":
        """Return the offer with some grants unhealthy, each with an additional reason."""
        if not reasons:
            return self
        grants = {
            grant.id: replace(grant, healthy=False, reason="; ".join(filter(None, (grant.reason, reasons[grant.id]))))
            if grant.id in reasons
            else grant
            for grant in self.grants.values()
        }
        listed = tuple(replace(device, healthy=False) if device.id in reasons else device for device in self.listed)
        return replace(self, grants=grants, listed=listed)


def count_grants(resource: Resource, devices: Sequence[DeviceHealth]) -> int:
    """Return the number of entries in the device lists of a resource and its aliases, without any limit."""
    names = 1 + len(resource.aliases)
    if resource.tokens is not None:
        return names * resource.tokens if devices else 0
    if resource.slices is not None:
        return names * sum(health.device.slices for health in devices)
    return names * resource.replicas * len(devices)


def share_grants(counts: Mapping[str, int], limit: int = MAX_GRANTS) -> dict[str, int]:
    """Return how many of its grants each resource can list: none lists fewer than it has while another lists more."""
    shares: dict[str, int] = {}
    # The resources with the fewest grants first: the others share the rest.
    for number, (name, count) in enumerate(sorted(counts.items(), key=lambda item: (item[1], item[0]))):
        shares[name] = min(count, limit // (len(counts) - number))
        limit -= shares[name]
    return shares


def build_offer(resource: Resource, devices: Sequence[DeviceHealth], max_grants: int = MAX_GRANTS) -> ResourceOffer:
    """Return the offer of a resource, given its devices in natural order.

    A device whose grants do not fit into the list, or exceed ``max_grants``, is omitted, and so are all later devices.
    """
    grants, omitted, omission = _limit_grants(resource, devices, max_grants)
    # If a device has no NUMA node, the kubelet could not combine it with those that have one (kubelet-contract.md §4).
    has_topology = resource.tokens is None and all(health.device.numa for health in devices)
    listed = tuple(
        ListedDevice(grant.id, grant.healthy, grant.devices[0].device.numa if has_topology else ()) for grant in grants
    )
    offer = ResourceOffer(
        resource=resource,
        grants={grant.id: grant for grant in grants},
        listed=listed,
        options=_options(resource, listed),
        omitted=omitted,
        omission=omission,
    )
    if not offer.options.get_preferred_allocation_available:
        return offer
    return replace(offer, groups=_groups(resource, grants), positions=_positions(resource, grants))


def _options(resource: Resource, listed: Sequence[ListedDevice]) -> PluginOptions:
    preference = resource.preference
    has_preference = preference.policy is not Preference.NONE
    if not preference.is_explicit:
        # Without an explicit preferredAllocation, enable the call only if devices span several NUMA nodes.
        has_preference = len({device.numa for device in listed}) > 1
    return PluginOptions(resource.distinct or has_preference, resource.pre_start is not None)


def _groups(resource: Resource, grants: Sequence[Grant]) -> dict[str, tuple[str, ...]]:
    """Return the groups of each grant; a token has none, because it stands for all devices."""
    groups: dict[str, tuple[str, ...]] = {}
    for grant in grants:
        if len(grant.devices) == 1:
            device = grant.devices[0].device
            groups[grant.id] = (_group(resource.preference.by, device), device.id)
    return groups


def _positions(resource: Resource, grants: Sequence[Grant]) -> dict[str, float]:
    """Return the positions of grants, if the policy of the resource needs them."""
    if resource.preference.policy is not Preference.CONTIGUOUS:
        return {}
    found = {grant.id: _position(resource.preference.by, grant) for grant in grants if len(grant.devices) == 1}
    return {grant_id: position for grant_id, position in found.items() if position is not None}


def _position(by: Template | None, grant: Grant) -> float | None:
    if by is None and grant.slice is not None:
        return grant.slice
    attributes = distinct_values(grant.devices[0].device.attributes)
    try:
        return parse_position((by or DEFAULT_POSITION).render(attributes))
    except RenderError:
        return None


def _group(by: Template | None, device: Device) -> str:
    if by is None:
        return ",".join(map(str, device.numa))
    try:
        return by.render(distinct_values(device.attributes))
    except RenderError:
        # Devices without the attribute form one group.
        return ""


def _limit_grants(
    resource: Resource, devices: Sequence[DeviceHealth], max_grants: int
) -> tuple[tuple[Grant, ...], int, str]:
    """Return the grants that are listed, the number of omitted devices or tokens, and why they are omitted."""
    if resource.tokens is not None:
        tokens = min(resource.tokens, max_grants)
        omitted = resource.tokens - tokens if devices else 0
        reason = f"{omitted} of {resource.tokens} tokens are not listed: {_TOO_MANY}" if omitted else ""
        return tuple(_token_grants(resource, devices, tokens)), omitted, reason
    grants: list[Grant] = []
    size = 0
    for number, health in enumerate(devices):
        count = health.device.slices if resource.slices is not None else resource.replicas
        size += count * _max_entry_bytes(health.device)
        if len(grants) + count > max_grants or size > MAX_LIST_BYTES:
            omitted = len(devices) - number
            cause = _TOO_MANY if len(grants) + count > max_grants else _TOO_LARGE
            return tuple(grants), omitted, f"{omitted} of {len(devices)} devices are not listed: {cause}"
        grants += _device_grants(resource, health)
    return tuple(grants), 0, ""


def _max_entry_bytes(device: Device) -> int:
    """Return the maximum size of the entry of a grant in the list (protobuf, ``Device`` of v1beta1)."""
    # A NUMA node is a message with a tag and a number in groups of seven bits.
    topology = 4 + sum(3 + (node.bit_length() + 6) // 7 for node in device.numa) if device.numa else 0
    return _ENTRY_BYTES + len(device.id.encode()) + _SUFFIX_BYTES + topology


def _device_grants(resource: Resource, health: DeviceHealth) -> Iterator[Grant]:
    device, verdict = health.device, health.verdict
    if resource.slices is not None:
        first = _index(device) * device.slices
        for number in range(device.slices):
            yield Grant(slice_id(device.id, number), (health,), verdict.healthy, verdict.reason, slice=first + number)
    elif resource.replicas == 1:
        yield Grant(device.id, (health,), verdict.healthy, verdict.reason)
    else:
        for number in range(resource.replicas):
            yield Grant(replica_id(device.id, number), (health,), verdict.healthy, verdict.reason)


def _index(device: Device) -> int:
    """Return the index of a device, or 0 if it has none or several."""
    index = distinct_values(device.attributes).get("index", ())
    return int(index[0]) if len(index) == 1 else 0


def _token_grants(resource: Resource, devices: Sequence[DeviceHealth], tokens: int) -> Iterator[Grant]:
    pool = tuple(devices)
    if not pool:
        return
    healthy = any(health.verdict.healthy for health in pool)
    reason = "" if healthy else _unhealthy_pool_reason(pool)
    for token in token_ids(resource.name, tokens):
        yield Grant(token, pool, healthy, reason)


def _unhealthy_pool_reason(pool: Sequence[DeviceHealth]) -> str:
    reasons = list(dict.fromkeys(health.verdict.reason for health in pool))
    more = f"; and {len(reasons) - _MAX_REASONS} more reasons" if len(reasons) > _MAX_REASONS else ""
    return f"no device of the pool is healthy: {'; '.join(reasons[:_MAX_REASONS])}{more}"
