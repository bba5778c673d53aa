"""The state of a kubelet's device manager: devices by health, endpoints, and allocations. No sockets, no event loop.

Source of the rules and messages: docs/internals/kubelet-contract.md §2.3 to §2.6, §4 and §5. If only the wording of a
message differs between versions of Kubernetes, it is that of 1.32.
"""

from collections.abc import Iterable

from msgspec import Struct, field

from genplug.testing.kubelet.records import Allocation, Devices, ListedDevice, NodeStatus

STOP_GRACE_SECONDS = 300.0
"""Time for which the resource of a stopped endpoint remains on the node (§2.4)."""


class DeviceManagerError(Exception):
    """Devices cannot be allocated; the message is the kubelet's."""


class Request(Struct, frozen=True):
    """A request of a container for devices of a resource. ``ids`` limits the choice; None allows all devices."""

    pod: str
    container: str
    resource: str
    count: int
    ids: frozenset[str] | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """The key of the allocation: pod, container and resource."""
        return (self.pod, self.container, self.resource)


class _Resource(Struct):
    """The last list of a resource, and the IDs that count as healthy and as unhealthy.

    An ID that is listed twice can count as both.
    """

    devices: Devices = field(default_factory=Devices)
    healthy: set[str] = field(default_factory=set)
    unhealthy: set[str] = field(default_factory=set)


class DeviceManager:
    """The lists, endpoints and allocations of one run of the kubelet."""

    def __init__(self, *, cannot: str = "cannot") -> None:
        """``cannot`` is a word in the message for unknown resources; kubelets up to 1.24 write ``can't``."""
        self._cannot = cannot
        self._resources: dict[str, _Resource] = {}
        self._stopped_at: dict[str, float | None] = {}
        self._dropped: set[str] = set()
        self._in_use: dict[str, set[str]] = {}
        self.allocations: dict[tuple[str, str, str], Allocation] = {}

    def __repr__(self) -> str:
        summaries = [f"{resource}: {self.summarize(resource)}" for resource in self._resources]
        return f"<DeviceManager {'; '.join(summaries) or 'without resources'}>"

    def restore(self, resources: Iterable[str], allocations: Iterable[Allocation], now: float) -> None:
        """Load the content of a checkpoint: the resources have no devices, and their endpoints are stopped."""
        for resource in resources:
            self._resources[resource] = _Resource()
            self._stopped_at[resource] = now
        self.allocations = {
            (allocation.pod, allocation.container, allocation.resource): allocation for allocation in allocations
        }
        self._update_in_use()

    def connect(self, resource: str) -> None:
        """Add an endpoint that serves a resource; it replaces an earlier endpoint."""
        self._stopped_at[resource] = None

    def disconnect(self, resource: str, now: float) -> None:
        """Stop the endpoint of a resource: all its devices become unhealthy."""
        if resource not in self._stopped_at:
            return
        known = self._resources.setdefault(resource, _Resource())
        devices = {
            device_id: ListedDevice(healthy=False, numa=device.numa) for device_id, device in known.devices.items()
        }
        self._resources[resource] = _Resource(Devices(devices), set(), known.unhealthy | known.healthy)
        self._stopped_at[resource] = now

    def set_list(self, resource: str, listed: Iterable[tuple[str, ListedDevice]]) -> Devices:
        """Replace the list of a resource; an ID that is listed twice is one device and counts twice (§4)."""
        known = _Resource()
        by_id: dict[str, ListedDevice] = {}
        for device_id, device in listed:
            by_id[device_id] = device
            (known.healthy if device.healthy else known.unhealthy).add(device_id)
        known.devices = Devices(by_id)
        self._resources[resource] = known
        return known.devices

    def devices(self, resource: str) -> Devices:
        """Return the devices of a resource with their present health; empty for an unknown resource."""
        return self._resources.get(resource, _Resource()).devices

    @property
    def resources(self) -> tuple[str, ...]:
        """The resources that the kubelet knows."""
        return tuple(self._resources)

    def healthy_ids(self, resource: str) -> frozenset[str]:
        """Return the IDs of the devices that can be allocated, whether they are in use or not."""
        known = self._resources.get(resource)
        return frozenset(known.healthy) if known else frozenset()

    def is_served(self, resource: str) -> bool:
        """Return whether a resource has an endpoint that has not stopped."""
        return resource in self._stopped_at and self._stopped_at[resource] is None

    def summarize(self, resource: str) -> str:
        """Return the state of a resource as text, for example ``2 healthy, 0 unhealthy, 1 in use, stopped``."""
        known = self._resources.get(resource, _Resource())
        in_use = len(self._in_use.get(resource, ()))
        counts = f"{len(known.healthy)} healthy, {len(known.unhealthy)} unhealthy, {in_use} in use"
        return counts if self.is_served(resource) else f"{counts}, stopped"

    def node_status(self, now: float) -> NodeStatus:
        """Return the node status as of a sync, which removes resources that stopped more than five minutes ago."""
        for resource in list(self._resources):
            stopped_at = self._stopped_at.get(resource, 0.0)
            if stopped_at is not None and now - stopped_at >= STOP_GRACE_SECONDS:
                del self._resources[resource]
                self._stopped_at.pop(resource, None)
                self._dropped.add(resource)
        dropped = dict.fromkeys(self._dropped, 0)
        capacity = {name: len(known.healthy) + len(known.unhealthy) for name, known in self._resources.items()}
        allocatable = {name: len(known.healthy) for name, known in self._resources.items()}
        return NodeStatus(dropped | capacity, dropped | allocatable)

    def list_available(self, request: Request) -> list[str]:
        """Return the IDs of the devices to choose from; empty if the container already has its devices.

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
        if resource not in self._resources:
            raise DeviceManagerError(f"{self._cannot} allocate unregistered device {resource}")
        healthy = self._resources[resource].healthy
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
            available = [device_id for device_id in available if device_id in request.ids]
        if len(available) < count:
            raise DeviceManagerError(
                f"requested number of devices unavailable for {resource}. "
                f"Requested: {count}, Available: {len(available)}"
            )
        return available

    def mark_in_use(self, resource: str, ids: Iterable[str]) -> None:
        """Mark devices as in use while the plugin handles Allocate."""
        self._in_use.setdefault(resource, set()).update(ids)

    def add_allocation(self, allocation: Allocation) -> None:
        """Add an allocation, which exists until its pod is removed."""
        self.allocations[(allocation.pod, allocation.container, allocation.resource)] = allocation
        self.mark_in_use(allocation.resource, allocation.ids)

    def release(self, pod: str | None = None) -> None:
        """Free the devices without an allocation; with a pod, remove the allocations of the pod first."""
        self.allocations = {key: allocation for key, allocation in self.allocations.items() if allocation.pod != pod}
        self._update_in_use()

    def numa_nodes(self, resource: str, device_id: str) -> tuple[int, ...]:
        """Return the NUMA nodes of a device."""
        device = self.devices(resource).get(device_id)
        return device.numa if device else ()

    def _update_in_use(self) -> None:
        self._in_use = {}
        for allocation in self.allocations.values():
            self.mark_in_use(allocation.resource, allocation.ids)
