"""Builds the offer of a resource from its devices: each device once, several times (replicas, slices), or as tokens.

Pure: devices with their health and a resource in, grants out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import attrgetter
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from genplug.allocation.preferred import parse_position
from genplug.allocation.results import ListedDevice, PluginOptions
from genplug.hardware.device_ids import replica_id, slice_id, token_ids
from genplug.hardware.inventory import Device
from genplug.health.verdict import DeviceHealth
from genplug.spec.limits import MAX_GRANTS, MAX_LIST_BYTES
from genplug.spec.model import Preference, Resource
from genplug.spec.replacement import Replacement, find_replacements, list_replaced
from genplug.spec.template import RenderError, Template, distinct_values

ValueT = TypeVar("ValueT")
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
_get_id, _get_slices = attrgetter("id"), attrgetter("device.slices")
DEFAULT_POSITION = Template.parse("${index}")
"""The position of a device for the policy ``contiguous``, unless ``by`` is set."""


class Grant(Struct, frozen=True, gc=False):
    """A unit that the kubelet can allocate to a container.

    ``source`` is the device that it stands for (also for replicas and slices), or all devices of the pool for a token.
    ``reason`` is why it is unhealthy, empty while it is healthy. ``slice`` is the number of the slice, unique on the
    node if the device has an ``index``.
    """

    id: str
    source: DeviceHealth | tuple[DeviceHealth, ...]
    healthy: bool
    reason: str = ""
    slice: int | None = None

    @property
    def devices(self) -> tuple[DeviceHealth, ...]:
        """The devices that it stands for."""
        return self.source if isinstance(self.source, tuple) else (self.source,)


class ResourceOffer(Struct, frozen=True):
    """The offer of a resource: its grants in natural order, which are the device list for the kubelet.

    ``devices`` are the devices that the grants stand for, and ``grants`` has the same grants as ``entries``, by ID.
    """

    resource: Resource
    grants: Mapping[str, Grant] = {}
    entries: tuple[Grant, ...] = ()
    devices: tuple[DeviceHealth, ...] = ()
    healthy: int = 0
    """The number of healthy grants."""
    healthy_devices: int = 0
    """The number of healthy devices without their replicas, slices and tokens."""
    max_bytes: int = 0
    """The maximum size of the device list."""
    numa: Mapping[tuple[int, ...], int] = {}
    """The number of devices on each combination of NUMA nodes; empty for a pool."""
    groups: Mapping[str, tuple[str, ...]] = {}
    """The groups of each grant for preferred allocation, the outermost first; the innermost is its device."""
    positions: Mapping[str, float] = {}
    """The position of each grant for the policy ``contiguous``; a grant without a number has no position."""
    omitted: int = 0
    """The number of devices (of tokens, for a pool) that are not listed because of a limit."""
    omission: str = ""
    """Why devices are not listed, empty if all are."""

    @property
    def has_topology(self) -> bool:
        """Whether the list has the NUMA nodes of devices.

        If a device had none, the kubelet could not combine it with those that have NUMA nodes (kubelet-contract.md §4).
        """
        return bool(self.numa) and () not in self.numa

    @property
    def listed(self) -> tuple[ListedDevice, ...]:
        """The device list for the kubelet."""
        return tuple(list_grants(self, self.entries))

    def mark_unhealthy(self, reasons: Mapping[str, str]) -> "ResourceOffer":
        """Return the offer with some grants unhealthy, each with an additional reason."""
        if not reasons:
            return self
        grants, healthy = dict(self.grants), self.healthy
        for grant_id, reason in reasons.items():
            grant = grants[grant_id]
            healthy -= grant.healthy
            grants[grant_id] = replace(grant, healthy=False, reason="; ".join(filter(None, (grant.reason, reason))))
        return replace(self, grants=grants, entries=tuple(grants.values()), healthy=healthy)

    @property
    def options(self) -> PluginOptions:
        """The plugin options of the endpoint."""
        preference = self.resource.preference
        has_preference = preference.policy is not Preference.NONE
        if not preference.is_explicit:
            # Without an explicit preferredAllocation, enable the call only if devices span several NUMA nodes.
            has_preference = self.has_topology and len(self.numa) > 1
        return PluginOptions(self.resource.distinct or has_preference, self.resource.pre_start is not None)


class OfferChange(Struct, frozen=True):
    """The difference between an offer and the previous offer of the resource, or None before the first offer.

    ``before`` and ``after`` have, by ID, the grants of each that are not identical objects of the other.
    """

    previous: ResourceOffer | None
    current: ResourceOffer
    before: Mapping[str, Grant]
    after: Mapping[str, Grant]
    is_list_changed: bool
    """Whether the kubelet has to receive another device list."""


def compare_offers(previous: ResourceOffer | None, current: ResourceOffer) -> OfferChange:
    """Return the difference between two offers of a resource."""
    if previous is None:
        return OfferChange(None, current, {}, current.grants, is_list_changed=True)
    replaced = find_replacements(previous.entries, current.entries)
    old, new = list_replaced(previous.entries, current.entries, replaced)
    if previous.has_topology == current.has_topology:
        is_list_changed = list(list_grants(previous, old)) != list(list_grants(current, new))
    else:
        is_list_changed = previous.listed != current.listed
    return OfferChange(
        previous, current, {grant.id: grant for grant in old}, {grant.id: grant for grant in new}, is_list_changed
    )


def list_grants(offer: ResourceOffer, grants: Iterable[Grant]) -> Iterator[ListedDevice]:
    """Yield the entries of the device list for some grants of an offer."""
    has_topology = offer.has_topology
    for grant in grants:
        yield ListedDevice(grant.id, grant.healthy, grant.devices[0].device.numa if has_topology else ())


def count_grants(resource: Resource, devices: Sequence[DeviceHealth]) -> int:
    """Return the number of entries in the device lists of a resource and its aliases, without any limit."""
    names = 1 + len(resource.aliases)
    if resource.tokens is not None:
        return names * resource.tokens if devices else 0
    return names * _count_entries(resource, devices)


def share_grants(counts: Mapping[str, int], limit: int = MAX_GRANTS) -> dict[str, int]:
    """Return how many of its grants each resource can list: none lists fewer than it has while another lists more."""
    shares: dict[str, int] = {}
    # The resources with the fewest grants first: the others share the rest.
    for number, (name, count) in enumerate(sorted(counts.items(), key=lambda item: (item[1], item[0]))):
        shares[name] = min(count, limit // (len(counts) - number))
        limit -= shares[name]
    return shares


def build_offer(
    resource: Resource,
    devices: Sequence[DeviceHealth],
    max_grants: int = MAX_GRANTS,
    previous: ResourceOffer | None = None,
) -> ResourceOffer:
    """Return the offer of a resource, given its devices in natural order.

    A device whose grants do not fit into the list, or exceed ``max_grants``, is omitted, and so are all later devices.
    The grants of devices that are the identical objects in ``previous``, an offer that this function has returned, are
    taken from there; if nothing differs, so is the offer.
    """
    is_same = previous is not None and previous.resource is resource and previous.devices is devices
    if previous is not None and is_same and not previous.omitted and len(previous.entries) <= max_grants:
        # Most resources do not change together with another.
        return previous
    if resource.tokens is not None:
        offer = _build_pool_offer(resource, tuple(devices), max_grants)
        return previous if previous is not None and previous == offer else offer
    if previous is None or (previous.resource is not resource and previous.resource != resource):
        previous = ResourceOffer(resource)
    listed, omission = tuple(devices), ""
    replaced = find_replacements(previous.devices, listed)
    max_bytes = _count_list_bytes(previous, listed, replaced)
    if _count_entries(resource, listed) > max_grants or max_bytes > MAX_LIST_BYTES:
        fitting, cause = _find_fitting(resource, listed, max_grants)
        omission = f"{len(devices) - fitting} of {len(devices)} devices are not listed: {cause}"
        listed = listed[:fitting]
        replaced = find_replacements(previous.devices, listed)
        max_bytes = _count_list_bytes(previous, listed, replaced)
    offer = _replace_devices(previous, listed, replaced, max_bytes) if replaced else previous
    if offer.omission == omission:
        return offer
    return replace(offer, omitted=len(devices) - len(listed), omission=omission)


def _count_list_bytes(
    previous: ResourceOffer, devices: tuple[DeviceHealth, ...], replaced: Sequence[Replacement]
) -> int:
    """Return the maximum size of the list of other devices than those of an offer."""
    old, new = list_replaced(previous.devices, devices, replaced)
    return previous.max_bytes + _count_bytes(previous.resource, new) - _count_bytes(previous.resource, old)


def _replace_devices(
    previous: ResourceOffer, devices: tuple[DeviceHealth, ...], replaced: Sequence[Replacement], max_bytes: int
) -> ResourceOffer:
    """Return an offer with other devices; ``max_bytes`` is the maximum size of their list."""
    resource, grants = previous.resource, list(previous.entries)
    removed: list[Grant] = []
    added: list[Grant] = []
    positions = _list_positions(resource, previous.devices)
    # From the end, so that the grants before a range are where they are in the previous offer.
    for start, old_stop, new_stop in reversed(replaced):
        first, last = positions[start], positions[old_stop]
        new = _build_grants(resource, devices[start:new_stop])
        removed += grants[first:last]
        added += new
        grants[first:last] = new
    entries = tuple(grants)
    old_devices, new_devices = list_replaced(previous.devices, devices, replaced)
    numa = Counter(previous.numa)
    numa.subtract(health.device.numa for health in old_devices)
    numa.update(health.device.numa for health in new_devices)
    healthy_devices = _count_healthy_devices(new_devices) - _count_healthy_devices(old_devices)
    offer = ResourceOffer(
        resource,
        dict(zip(map(_get_id, entries), entries, strict=True)),
        entries,
        devices,
        healthy=previous.healthy + _count_healthy(added) - _count_healthy(removed),
        healthy_devices=previous.healthy_devices + healthy_devices,
        max_bytes=max_bytes,
        numa={nodes: count for nodes, count in numa.items() if count},
        omitted=previous.omitted,
        omission=previous.omission,
    )
    if not offer.options.get_preferred_allocation_available:
        return offer
    if not previous.options.get_preferred_allocation_available:
        return replace(offer, groups=_groups(resource, entries), positions=_positions(resource, entries))
    ids = [grant.id for grant in removed]
    return replace(
        offer,
        groups=_replace_items(previous.groups, ids, _groups(resource, added)),
        positions=_replace_items(previous.positions, ids, _positions(resource, added)),
    )


def _list_positions(resource: Resource, devices: Sequence[DeviceHealth]) -> Sequence[int]:
    """Return the position of the first grant of each device among all grants, and at the end their number."""
    if resource.slices is not None:
        return list(accumulate(map(_get_slices, devices), initial=0))
    return range(0, resource.replicas * len(devices) + 1, resource.replicas)


def _replace_items(
    items: Mapping[str, ValueT], removed: Iterable[str], added: Mapping[str, ValueT]
) -> dict[str, ValueT]:
    """Return a mapping without some keys, and with others."""
    replaced = dict(items)
    for key in removed:
        replaced.pop(key, None)
    return {**replaced, **added}


def _count_healthy(grants: Iterable[Grant]) -> int:
    return sum(grant.healthy for grant in grants)


def _count_healthy_devices(devices: Iterable[DeviceHealth]) -> int:
    return sum(health.verdict.healthy for health in devices)


def _groups(resource: Resource, grants: Sequence[Grant]) -> dict[str, tuple[str, ...]]:
    """Return the groups of each grant; a token has none, because it stands for all devices."""
    groups: dict[str, tuple[str, ...]] = {}
    for grant in grants:
        if len(grant.devices) == 1:
            device = grant.devices[0].device
            groups[grant.id] = (find_group(resource.preference.by, device), device.id)
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


@lru_cache(maxsize=1024)
def _join_nodes(nodes: tuple[int, ...]) -> str:
    return ",".join(map(str, nodes))


def find_group(by: Template | None, device: Device) -> str:
    """Return the group of a device for preferred allocation: what ``by`` renders to, or its NUMA nodes."""
    if by is None:
        return _join_nodes(device.numa)
    try:
        return by.render(distinct_values(device.attributes))
    except RenderError:
        # Devices without the attribute form one group.
        return ""


def _find_fitting(resource: Resource, devices: Sequence[DeviceHealth], max_grants: int) -> tuple[int, str]:
    """Return how many devices of a list that exceeds a limit fit, and which limit it exceeds."""
    number = size = 0
    for fitting, health in enumerate(devices):
        number += _count_entries(resource, (health,))
        size += _count_bytes(resource, (health,))
        if number > max_grants:
            return fitting, _TOO_MANY
        if size > MAX_LIST_BYTES:
            return fitting, _TOO_LARGE
    return len(devices), ""


def _count_entries(resource: Resource, devices: Sequence[DeviceHealth]) -> int:
    """Return the number of grants of devices."""
    if resource.slices is None:
        return resource.replicas * len(devices)
    slices: int = sum(map(_get_slices, devices))
    return slices


def _count_bytes(resource: Resource, devices: Iterable[DeviceHealth]) -> int:
    """Return the maximum size of the entries of devices in the list."""
    if resource.slices is not None:
        return sum(health.device.slices * _max_entry_bytes(health.device) for health in devices)
    return resource.replicas * sum(_max_entry_bytes(health.device) for health in devices)


def _max_entry_bytes(device: Device) -> int:
    """Return the maximum size of the entry of a grant in the list (protobuf, ``Device`` of v1beta1)."""
    return _ENTRY_BYTES + len(device.id.encode()) + _SUFFIX_BYTES + _count_topology_bytes(device.numa)


@lru_cache(maxsize=1024)
def _count_topology_bytes(numa: tuple[int, ...]) -> int:
    # A NUMA node is a message with a tag and a number in groups of seven bits.
    return 4 + sum(3 + (node.bit_length() + 6) // 7 for node in numa) if numa else 0


def _build_grants(resource: Resource, devices: Sequence[DeviceHealth]) -> list[Grant]:
    """Return the grants of devices."""
    if resource.slices is not None:
        return [
            Grant(slice_id(health.device.id, number), health, health.verdict.healthy, health.verdict.reason, index)
            for health in devices
            for number, index in enumerate(_list_slices(health.device))
        ]
    if resource.replicas == 1:
        return [Grant(health.device.id, health, health.verdict.healthy, health.verdict.reason) for health in devices]
    return [
        Grant(replica_id(health.device.id, number), health, health.verdict.healthy, health.verdict.reason)
        for health in devices
        for number in range(resource.replicas)
    ]


def _list_slices(device: Device) -> range:
    """Return the numbers of the slices of a device, which are unique on the node if the device has an index."""
    first = _index(device) * device.slices
    return range(first, first + device.slices)


def _index(device: Device) -> int:
    """Return the index of a device, or 0 if it has none or several."""
    index = distinct_values(device.attributes).get("index", ())
    return int(index[0]) if len(index) == 1 else 0


def _build_pool_offer(resource: Resource, pool: tuple[DeviceHealth, ...], max_grants: int) -> ResourceOffer:
    """Return the offer of a pool of tokens."""
    if not pool:
        return ResourceOffer(resource)
    total = resource.tokens or 0
    tokens = min(total, max_grants)
    omitted = total - tokens
    healthy_devices = _count_healthy_devices(pool)
    reason = "" if healthy_devices else _unhealthy_pool_reason(pool)
    entries = tuple([Grant(token, pool, bool(healthy_devices), reason) for token in token_ids(resource.name, tokens)])
    return ResourceOffer(
        resource,
        {grant.id: grant for grant in entries},
        entries,
        pool,
        healthy=len(entries) if healthy_devices else 0,
        healthy_devices=healthy_devices if entries else 0,
        omitted=omitted,
        omission=f"{omitted} of {total} tokens are not listed: {_TOO_MANY}" if omitted else "",
    )


def _unhealthy_pool_reason(pool: Sequence[DeviceHealth]) -> str:
    reasons = list(dict.fromkeys(health.verdict.reason for health in pool))
    more = f"; and {len(reasons) - _MAX_REASONS} more reasons" if len(reasons) > _MAX_REASONS else ""
    return f"no device of the pool is healthy: {'; '.join(reasons[:_MAX_REASONS])}{more}"
