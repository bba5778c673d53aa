"""The status of an endpoint and the events that it reports, as frozen values: for the log, metrics and status."""

from collections.abc import Callable
from enum import StrEnum

from attrs import frozen


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


@frozen
class EndpointStatus:
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


@frozen
class PhaseChanged:
    """An endpoint entered another phase, or another generation."""

    resource: str
    previous: EndpointStatus
    current: EndpointStatus


@frozen
class ListSent:
    """A list went out on a stream: how many devices, how many of them healthy."""

    resource: str
    devices: int
    healthy: int


@frozen
class Allocated:
    """An Allocate was answered in ``seconds``; ``refusal`` is the text it was refused with, empty for a success."""

    resource: str
    ids: tuple[str, ...]
    seconds: float
    refusal: str = ""


@frozen
class PreStarted:
    """What runs before a container starts ran in ``seconds``; ``refusal`` says what failed, empty for a success."""

    resource: str
    ids: tuple[str, ...]
    seconds: float
    refusal: str = ""


@frozen
class CallFailed:
    """A call hit a mistake of ours: ``error`` is for the log, the kubelet got a status or a harmless answer."""

    resource: str
    method: str
    error: Exception


Report = PhaseChanged | ListSent | Allocated | PreStarted | CallFailed
Reporter = Callable[[Report], None]
