"""What a kubelet's device manager knows: devices by health, endpoints, who holds which device. No sockets, no loop.

The rules and texts are those of contract 2.3 to 2.6, 4 and 5, of Kubernetes 1.32 where versions differ in nothing but
wording.
"""

from collections.abc import Iterable

from attrs import define, field, frozen

from genplug.testing.kubelet.records import Allocation, Devices, ListedDevice, NodeStatus

STOP_GRACE_SECONDS = 300.0
"""Seconds for which a stopped endpoint's resource stays on the node (contract 2.4)."""


class DeviceManagerError(Exception):
    """Devices that cannot be given; the text is the kubelet's own."""


@frozen
class Request:
    """So many devices of a resource for a container; ``ids`` narrows the choice, None leaves it to the kubelet."""

    pod: str
    container: str
    resource: str
    count: int
    ids: frozenset[str] | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What the kubelet remembers an allocation under."""
        return (self.pod, self.container, self.resource)


@define
class _Resource:
    """A resource: the last list, and which IDs count as healthy and as unhealthy (one ID listed twice can be both)."""

    devices: Devices = field(factory=Devices)
    healthy: set[str] = field(factory=set)
    unhealthy: set[str] = field(factory=set)


class DeviceManager:
    """Lists, endpoints and allocations of one run of the kubelet."""

    def __init__(self, *, cannot: str = "cannot") -> None:
        """``cannot`` is a word of the text for unknown resources, ``can't`` until 1.24."""
        self._cannot = cannot
        self._known: dict[str, _Resource] = {}
        self._stopped_at: dict[str, float | None] = {}
        self._dropped: set[str] = set()
        self._in_use: dict[str, set[str]] = {}
        self.allocations: dict[tuple[str, str, str], Allocation] = {}

    def restore(self, resources: Iterable[str], allocations: Iterable[Allocation], now: float) -> None:
        """Take over what a checkpoint says: resources come back without devices, their endpoints stopped."""
        for resource in resources:
            self._known[resource] = _Resource()
            self._stopped_at[resource] = now
        self.allocations = {(one.pod, one.container, one.resource): one for one in allocations}
        self._count_use()

    def connect(self, resource: str) -> None:
        """Note that an endpoint serves a resource; it takes the place of an earlier one."""
        self._stopped_at[resource] = None

    def disconnect(self, resource: str, now: float) -> None:
        """Note that the endpoint stopped: no device of it is healthy any more."""
        if resource not in self._stopped_at:
            return
        known = self._known.setdefault(resource, _Resource())
        devices = {one: ListedDevice(healthy=False, numa=device.numa) for one, device in known.devices.items()}
        self._known[resource] = _Resource(Devices(devices), set(), known.unhealthy | known.healthy)
        self._stopped_at[resource] = now

    def set_list(self, resource: str, listed: Iterable[tuple[str, ListedDevice]]) -> Devices:
        """Replace a resource's whole list; an ID listed twice is one device in both counts (contract 4)."""
        known = _Resource()
        by_id: dict[str, ListedDevice] = {}
        for device_id, device in listed:
            by_id[device_id] = device
            (known.healthy if device.healthy else known.unhealthy).add(device_id)
        known.devices = Devices(by_id)
        self._known[resource] = known
        self._dropped.discard(resource)
        return known.devices

    def devices(self, resource: str) -> Devices:
        """Return the devices with the health that counts now; empty for an unknown resource."""
        return self._known.get(resource, _Resource()).devices

    @property
    def resources(self) -> tuple[str, ...]:
        """The resources that the kubelet knows."""
        return tuple(self._known)

    def healthy_ids(self, resource: str) -> frozenset[str]:
        """Return the IDs that may be handed out, in use or not."""
        known = self._known.get(resource)
        return frozenset(known.healthy) if known else frozenset()

    def is_served(self, resource: str) -> bool:
        """Say whether an endpoint serves the resource and has not stopped."""
        return resource in self._stopped_at and self._stopped_at[resource] is None

    def node_status(self, now: float) -> NodeStatus:
        """Count as a sync of the node's status does, and forget what stopped more than five minutes ago."""
        for resource in list(self._known):
            stopped_at = self._stopped_at.get(resource, 0.0)
            if stopped_at is not None and now - stopped_at >= STOP_GRACE_SECONDS:
                del self._known[resource]
                self._stopped_at.pop(resource, None)
                self._dropped.add(resource)
        gone = dict.fromkeys(self._dropped, 0)
        capacity = {name: len(known.healthy) + len(known.unhealthy) for name, known in self._known.items()}
        allocatable = {name: len(known.healthy) for name, known in self._known.items()}
        return NodeStatus(gone | capacity, gone | allocatable)

    def list_available(self, request: Request) -> list[str]:
        """Return the devices to choose from; none if the container holds its own.

        Raises:
            DeviceManagerError: the request cannot be met.
        """
        resource, count = request.resource, request.count
        held = self.allocations.get(request.key)
        if held is not None and len(held.ids) != count:
            raise DeviceManagerError(
                f'pod "{request.pod}" container "{request.container}" changed request for resource "{resource}" '
                f"from {len(held.ids)} to {count}"
            )
        if resource not in self._known:
            raise DeviceManagerError(f"{self._cannot} allocate unregistered device {resource}")
        healthy = self._known[resource].healthy
        if not healthy:
            raise DeviceManagerError(f"no healthy devices present; cannot allocate unhealthy devices {resource}")
        if held is not None:
            if not healthy.issuperset(held.ids):
                raise DeviceManagerError(
                    f"previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
                )
            return []
        available = sorted(healthy - self._in_use.get(resource, set()))
        if request.ids is not None:
            available = [one for one in available if one in request.ids]
        if len(available) < count:
            raise DeviceManagerError(
                f"requested number of devices unavailable for {resource}. "
                f"Requested: {count}, Available: {len(available)}"
            )
        return available

    def mark_in_use(self, resource: str, ids: Iterable[str]) -> None:
        """Mark devices as in use while the plugin is asked for them."""
        self._in_use.setdefault(resource, set()).update(ids)

    def add_allocation(self, allocation: Allocation) -> None:
        """Keep an allocation until its pod is removed."""
        self.allocations[(allocation.pod, allocation.container, allocation.resource)] = allocation
        self.mark_in_use(allocation.resource, allocation.ids)

    def release(self, pod: str | None = None) -> None:
        """Free what no remembered allocation holds; with a pod, forget that pod's allocations first."""
        self.allocations = {key: one for key, one in self.allocations.items() if one.pod != pod}
        self._count_use()

    def numa_nodes(self, resource: str, device_id: str) -> tuple[int, ...]:
        """Return the NUMA nodes of a device."""
        device = self.devices(resource).get(device_id)
        return device.numa if device else ()

    def _count_use(self) -> None:
        self._in_use = {}
        for one in self.allocations.values():
            self.mark_in_use(one.resource, one.ids)
