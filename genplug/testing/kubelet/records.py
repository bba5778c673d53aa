"""What a test sees of a kubelet stand-in: frozen records. Times are the monotonic clock's, in seconds."""

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache

from attrs import field, frozen

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import HEALTHY


@frozen
class ListedDevice:
    """One device as the kubelet has it; ``numa`` are the NUMA nodes of its topology, empty for none."""

    healthy: bool
    numa: tuple[int, ...] = ()


@frozen
class Devices(Mapping[str, ListedDevice]):
    """The devices of a resource by ID, in the order of the plugin's last list."""

    by_id: Mapping[str, ListedDevice] = field(factory=dict)

    def __getitem__(self, device_id: str) -> ListedDevice:
        return self.by_id[device_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_id)

    def __len__(self) -> int:
        return len(self.by_id)

    @property
    def ids(self) -> frozenset[str]:
        """All IDs."""
        return frozenset(self.by_id)

    @property
    def healthy(self) -> frozenset[str]:
        """The IDs that may be handed out."""
        return frozenset(one for one, device in self.by_id.items() if device.healthy)

    @property
    def unhealthy(self) -> frozenset[str]:
        """The IDs that are listed and must not be used."""
        return self.ids - self.healthy


def parse_list(raw: bytes) -> list[tuple[str, ListedDevice]]:
    """Read a ``ListAndWatchResponse``: IDs in its order, more than once where it has them more than once."""
    return [
        (device.ID, _listed_device(device.health == HEALTHY, tuple(node.ID for node in device.topology.nodes)))
        for device in pb.ListAndWatchResponse.FromString(raw).devices
    ]


@frozen
class RegisterAttempt:
    """A call of Register as it arrived, before any check (contract 2.1 step 1)."""

    resource: str
    endpoint: str
    version: str
    time: float = field(factory=time.monotonic)


@frozen
class Registration:
    """A call of Register that was answered with OK. ``options`` are those the kubelet goes by.

    ``start`` says which start of the kubelet it was made to, counted from 1.
    """

    resource: str
    endpoint: str
    pre_start_required: bool
    get_preferred_allocation_available: bool
    start: int
    time: float = field(factory=time.monotonic)


@frozen
class ListMessage:
    """A list that arrived from ``endpoint``; ``raw`` are its bytes, ``time`` was taken before they were read."""

    resource: str
    endpoint: str
    time: float
    raw: bytes = field(repr=False)
    devices: Devices


@frozen
class NodeStatus:
    """What the kubelet would write to the Node object for extended resources (contract 2.6)."""

    capacity: Mapping[str, int]
    allocatable: Mapping[str, int]


@frozen
class Allocation:
    """Devices that a container holds; ``response`` is the plugin's answer, which container restarts use again.

    ``numa`` has the NUMA nodes of each ID at that time.
    """

    pod: str
    container: str
    resource: str
    ids: tuple[str, ...]
    numa: tuple[tuple[int, ...], ...]
    response: pb.ContainerAllocateResponse = field(repr=False, hash=False)


class AdmissionError(Exception):
    """A pod that the kubelet turned away, or a container that it could not start.

    ``reason`` is the pod's ``status.reason`` (or the container's waiting reason), ``message`` its ``status.message``
    and this error's text, ``cause`` the part of it that came from the device manager or the plugin (contract 5.3).
    """

    def __init__(self, reason: str, message: str, cause: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.cause = cause


@lru_cache(maxsize=256)
def _listed_device(healthy: bool, numa: tuple[int, ...]) -> ListedDevice:  # noqa: FBT001 - a cache's key has no names
    return ListedDevice(healthy, numa)
