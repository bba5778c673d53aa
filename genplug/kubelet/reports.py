"""The status and the reports of an endpoint, as frozen values, for the log, the metrics and ``/statusz``."""

from collections.abc import Callable
from enum import StrEnum
from typing import Literal

from msgspec import Struct

from genplug.allocation.errors import ClaimErrorCode
from genplug.allocation.results import ClaimReference


class Phase(StrEnum):
    """The phase of a generation of an endpoint."""

    SERVE = "serve"
    """The endpoint binds a new socket and checks that the server responds on it."""
    WAIT = "wait"
    """The endpoint serves. The kubelet does not exist, or the next registration is not due."""
    REGISTER = "register"
    """The registration is in progress."""
    PENDING = "pending"
    """The endpoint is registered. The kubelet has not opened ListAndWatch."""
    LIVE = "live"
    """The kubelet has an open stream, or had one until a moment ago."""
    RETIRE = "retire"
    """The endpoint stops its server."""
    PAUSE = "pause"
    """The server has stopped. The endpoint waits until the kubelet has processed that, or until the kubelet exists."""


class EndpointStatus(Struct, frozen=True):
    """The status of an endpoint.

    ``generation`` counts the sockets that the endpoint has used, and ``failures`` the consecutive failed attempts to
    serve or to register. ``is_registered`` means that the kubelet has an open stream; ``reason`` states why not.
    """

    phase: Phase
    generation: int
    streams: int
    is_registered: bool
    reason: str
    failures: int
    has_kubelet: bool
    """Whether ``kubelet.sock`` exists."""

    def __str__(self) -> str:
        """Return for example ``generation 2, wait, 0 streams, 1 failure: waiting for kubelet.sock to appear``."""
        parts = [f"generation {self.generation}", self.phase.value, _count(self.streams, "stream")]
        if self.is_registered:
            parts.append("registered")
        if self.failures:
            parts.append(_count(self.failures, "failure"))
        return ", ".join(parts) + (f": {self.reason}" if self.reason else "")


class DeviceUse(Struct, frozen=True):
    """The devices (IDs) of a resource that a container uses, as the kubelet reports it."""

    resource: str
    namespace: str
    pod: str
    container: str
    ids: tuple[str, ...]


class ClaimedResource(Struct, frozen=True):
    """A device of a ResourceClaim: its driver, its pool, and its name in the pool."""

    driver: str
    pool: str
    device: str


class ClaimUse(Struct, frozen=True):
    """A ResourceClaim that a container uses, as the kubelet reports it. A claim has the namespace of its pods."""

    namespace: str
    claim: str
    pod: str
    container: str
    devices: tuple[ClaimedResource, ...] = ()


class PodUses(Struct, frozen=True):
    """The devices and claims that the containers of a node use."""

    devices: tuple[DeviceUse, ...]
    claims: tuple[ClaimUse, ...]


class PhaseChanged(Struct, frozen=True):
    """An endpoint entered another phase or another generation, or an attempt to serve failed."""

    resource: str
    previous: EndpointStatus
    current: EndpointStatus


class ListSent(Struct, frozen=True):
    """A device list was sent on a stream, with the number of devices and of healthy devices."""

    resource: str
    devices: int
    healthy: int


Method = Literal["Allocate", "PreStartContainer"]
"""The methods of DevicePlugin whose answers are reported."""


class CallAnswered(Struct, frozen=True):
    """A call was answered after ``seconds``; ``error`` is the message of its gRPC status, empty for a success."""

    resource: str
    method: Method
    ids: tuple[str, ...]
    seconds: float
    error: str = ""


class SocketNotRemoved(Struct, frozen=True):
    """The socket of a stopped server is still in the directory; ``error`` is the reason of the system."""

    resource: str
    path: str
    error: str


class InternalErrorCaught(Struct, frozen=True):
    """A defect in genplug raised ``error`` in a call of the kubelet or in an action of the endpoint.

    The kubelet received an error status or an empty response, or the endpoint retries the action.
    """

    resource: str
    operation: str
    error: Exception


class DriverStatus(Struct, frozen=True):
    """The status of the driver of Dynamic Resource Allocation (DRA) at the kubelet.

    ``registrations`` counts the registrations since the start: a kubelet that was restarted registers the driver again.
    ``error`` states why the driver is not registered, empty while it is registered.
    """

    name: str
    is_serving: bool = False
    is_registered: bool = False
    registrations: int = 0
    error: str = ""


class DriverRegistered(Struct, frozen=True):
    """The kubelet has registered the driver, for the first time or again."""

    driver: str


class DriverRefused(Struct, frozen=True):
    """The kubelet has refused to register the driver; the driver tries again after ``retry_seconds``."""

    driver: str
    error: str
    retry_seconds: float


class DriverNotServing(Struct, frozen=True):
    """The driver has no socket, because it was removed or cannot be created; it tries again after ``retry_seconds``."""

    driver: str
    error: str
    retry_seconds: float


ClaimMethod = Literal["NodePrepareResources", "NodeUnprepareResources"]
"""The methods of DRAPlugin."""


class ClaimAnswered(Struct, frozen=True):
    """A claim of a call was answered after ``seconds``, with the names of its ``devices`` if it is prepared.

    ``error`` is the message for the kubelet, empty for a success, and ``code`` its reason, None for a success.
    """

    driver: str
    method: ClaimMethod
    claim: ClaimReference
    seconds: float
    devices: tuple[str, ...] = ()
    code: ClaimErrorCode | None = None
    error: str = ""


class RecordDamaged(Struct, frozen=True):
    """The record of the prepared claim with a UID cannot be read; ``path`` is where it is now.

    The claim is prepared from scratch when the kubelet asks for it.
    """

    driver: str
    uid: str
    path: str
    reason: str


class ClaimCdiUnwritable(Struct, frozen=True):
    """The CDI file of a prepared claim cannot be written; the next attempt is after ``retry_seconds``."""

    driver: str
    error: str
    retry_seconds: float


class ClaimForgotten(Struct, frozen=True):
    """A claim was unprepared, because neither the kubelet nor the API server has known it for a time.

    ``devices`` are the names of its devices, which another claim needs.
    """

    driver: str
    claim: ClaimReference
    devices: tuple[str, ...]


DriverReport = (
    DriverRegistered
    | DriverRefused
    | DriverNotServing
    | ClaimAnswered
    | RecordDamaged
    | ClaimCdiUnwritable
    | ClaimForgotten
    | InternalErrorCaught
)
DriverReporter = Callable[[DriverReport], None]

Report = PhaseChanged | ListSent | CallAnswered | SocketNotRemoved | InternalErrorCaught
Reporter = Callable[[Report], None]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
