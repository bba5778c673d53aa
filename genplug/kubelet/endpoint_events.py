"""The events on which the state machine of an endpoint acts (:mod:`genplug.kubelet.endpoint_state`). Frozen values."""

from msgspec import Struct

from genplug.kubelet.plugin_dir import SocketIdentity


class Served(Struct, frozen=True):
    """The endpoint's server responds on its new socket."""


class ServeFailed(Struct, frozen=True):
    """The endpoint cannot bind its socket, or its server does not respond."""

    error: str


class KubeletSeen(Struct, frozen=True):
    """The directory was listed; ``socket`` is kubelet.sock, None if it does not exist."""

    socket: SocketIdentity | None


class OwnSocketLost(Struct, frozen=True):
    """The path of the endpoint's socket does not exist or names another file."""


class Registered(Struct, frozen=True):
    """The kubelet answered Register with OK, which does not prove that it can reach the endpoint (§2.1)."""


class RegisterFailed(Struct, frozen=True):
    """Register failed; ``error`` is the message of the kubelet or of the transport.

    ``is_system_limit`` states that the agent had no descriptor, memory or thread for the call.
    """

    error: str
    is_system_limit: bool = False


class StreamOpened(Struct, frozen=True):
    """The kubelet opened ListAndWatch."""


class StreamClosed(Struct, frozen=True):
    """A ListAndWatch stream ended, from either side."""


class Retired(Struct, frozen=True):
    """The old server has stopped completely."""


class OptionsChanged(Struct, frozen=True):
    """The plugin options differ from those that the kubelet read; it reads them only when it connects."""


class TimePassed(Struct, frozen=True):
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
