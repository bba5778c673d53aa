"""The results of an allocation, as values that the kubelet package serves; knows nothing of the node or of health."""

from msgspec import Struct


class ListedDevice(Struct, frozen=True, gc=False):
    """One device in the list that the kubelet receives (v1beta1 ``Device``); ``numa`` is empty without topology."""

    id: str
    healthy: bool
    numa: tuple[int, ...] = ()


class PluginOptions(Struct, frozen=True):
    """The options of a plugin (v1beta1 ``DevicePluginOptions``), which the kubelet reads once, when it connects."""

    get_preferred_allocation_available: bool = False
    pre_start_required: bool = False


class ProgramRun(Struct, frozen=True):
    """A program to run for a device before a container starts.

    ``arguments`` begin with the path of the program, ``timeout`` is in seconds.
    """

    resource: str
    device: str
    arguments: tuple[str, ...]
    timeout: float


class ClaimReference(Struct, frozen=True):
    """A ResourceClaim, as the kubelet names it in its calls. Another claim of that name has another ``uid``.

    The ``uid`` is empty for a claim that is known from the pod-resources API only, which does not have it.
    """

    namespace: str
    name: str
    uid: str

    def is_same(self, other: "ClaimReference") -> bool:
        """Return whether another reference is to this claim; without a UID, the names decide."""
        if self.uid and other.uid:
            return self.uid == other.uid
        return (self.namespace, self.name) == (other.namespace, other.name)

    def __str__(self) -> str:
        """Return for example ``default/my-claim``."""
        return f"{self.namespace}/{self.name}"


class ClaimDevice(Struct, frozen=True):
    """A device of a prepared claim: the requests that it is for, and the names of its CDI devices."""

    requests: tuple[str, ...]
    pool: str
    device: str
    cdi_devices: tuple[str, ...] = ()
