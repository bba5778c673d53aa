"""What an endpoint tells its owner: frozen values, handed to one callback, for log and metrics."""

from collections.abc import Callable

from attrs import frozen

from genplug.kubelet.endpoint_state import Generation


@frozen
class PhaseChanged:
    """An endpoint came to another phase."""

    resource: str
    before: Generation
    after: Generation


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
