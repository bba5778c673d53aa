"""The records of a kubelet stand-in, as frozen values. Times are monotonic seconds."""

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache

from msgspec import Struct, field

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import HEALTHY
from genplug.struct_values import hide_in_repr


class ListedDevice(Struct, frozen=True):
    """A device as the kubelet knows it; ``numa`` are the NUMA nodes of its topology, empty without topology."""

    healthy: bool
    numa: tuple[int, ...] = ()


class Devices(Mapping[str, ListedDevice]):
    """The devices of a resource by ID, in the order of the last list of the plugin."""

    def __init__(self, by_id: Mapping[str, ListedDevice] | None = None) -> None:
        self.by_id: Mapping[str, ListedDevice] = by_id or {}

    def __repr__(self) -> str:
        return f"Devices(by_id={self.by_id!r})"

    def __eq__(self, other: object) -> bool:
        return self.by_id == other.by_id if isinstance(other, Devices) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, device_id: str) -> ListedDevice:
        return self.by_id[device_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_id)

    def __len__(self) -> int:
        return len(self.by_id)

    @property
    def ids(self) -> frozenset[str]:
        """The IDs of all devices."""
        return frozenset(self.by_id)

    @property
    def healthy(self) -> frozenset[str]:
        """The IDs of the devices that can be allocated."""
        return frozenset(device_id for device_id, device in self.by_id.items() if device.healthy)

    @property
    def unhealthy(self) -> frozenset[str]:
        """The IDs of the devices that are listed and cannot be allocated."""
        return self.ids - self.healthy


def parse_list(raw: bytes) -> list[tuple[str, ListedDevice]]:
    """Return the devices in a ``ListAndWatchResponse``, in its order and with its duplicates."""
    return [
        (device.ID, _listed_device(device.health == HEALTHY, tuple(node.ID for node in device.topology.nodes)))
        for device in pb.ListAndWatchResponse.FromString(raw).devices
    ]


class RegisterAttempt(Struct, frozen=True):
    """A call of Register as it arrived, before all checks (docs/internals/kubelet-contract.md §2.1, step 1)."""

    resource: str
    endpoint: str
    version: str
    time: float = field(default_factory=time.monotonic)


class Registration(Struct, frozen=True):
    """A call of Register that was answered with OK, with the options that the kubelet uses.

    ``start`` is the number of the start of the kubelet that received the call, from 1.
    """

    resource: str
    endpoint: str
    pre_start_required: bool
    get_preferred_allocation_available: bool
    start: int
    time: float = field(default_factory=time.monotonic)


@hide_in_repr("raw")
class ListMessage(Struct, frozen=True):
    """A list from the socket ``endpoint``; ``raw`` are its bytes, ``time`` is from before they were parsed."""

    resource: str
    endpoint: str
    time: float
    raw: bytes
    devices: Devices


class NodeStatus(Struct, frozen=True):
    """The extended resources in the status of the Node object, as the kubelet would write them (§2.6)."""

    capacity: Mapping[str, int]
    allocatable: Mapping[str, int]


@hide_in_repr("response")
class Allocation(Struct, frozen=True):
    """The devices of a container; ``response`` is the plugin's response, which a restart of the container uses too.

    ``numa`` contains the NUMA nodes of each ID at the time of the allocation.
    """

    pod: str
    container: str
    resource: str
    ids: tuple[str, ...]
    numa: tuple[tuple[int, ...], ...]
    response: pb.ContainerAllocateResponse


class AdmissionError(Exception):
    """The kubelet rejected a pod, or cannot start a container.

    ``reason`` is the pod's ``status.reason`` or the waiting reason of the container. ``message`` is the pod's
    ``status.message``, ``cause`` the part of it that is from the device manager or from the plugin (§5.3).
    """

    def __init__(self, reason: str, message: str, cause: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.cause = cause


@lru_cache(maxsize=256)
def _listed_device(healthy: bool, numa: tuple[int, ...]) -> ListedDevice:  # noqa: FBT001 - lru_cache is faster with positional arguments
    return ListedDevice(healthy, numa)
