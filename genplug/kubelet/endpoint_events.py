"""The events on which the state machine of an endpoint acts (:mod:`genplug.kubelet.endpoint_state`). Frozen values."""

from attrs import frozen

from genplug.kubelet.plugin_dir import SocketIdentity


@frozen
class Served:
    """The endpoint's server responds on its new socket."""


@frozen
class ServeFailed:
    """The endpoint cannot bind its socket, or its server does not respond."""

    error: str


@frozen
class KubeletSeen:
    """The directory was listed; ``socket`` is kubelet.sock, None if it does not exist."""

    socket: SocketIdentity | None


@frozen
class OwnSocketLost:
    """The path of the endpoint's socket does not exist or names another file."""


@frozen
class Registered:
    """The kubelet answered Register with OK, which does not prove that it can reach the endpoint (§2.1)."""


@frozen
class RegisterFailed:
    """Register failed; ``error`` is the message of the kubelet or of the transport.

    ``is_system_limit`` states that the agent had no descriptor, memory or thread for the call.
    """

    error: str
    is_system_limit: bool = False


@frozen
class StreamOpened:
    """The kubelet opened ListAndWatch."""


@frozen
class StreamClosed:
    """A ListAndWatch stream ended, from either side."""


@frozen
class Retired:
    """The old server has stopped completely."""


@frozen
class OptionsChanged:
    """The plugin options differ from those that the kubelet read; it reads them only when it connects."""


@frozen
class TimePassed:
    """The time in ``due`` has come without another event."""


Event = (
    Served
    | ServeFailed
    | KubeletSeen
    | OwnSocketLost
    | Registered
    | RegisterFailed
    | StreamOpened
    | StreamClosed
    | Retired
    | OptionsChanged
    | TimePassed
)
