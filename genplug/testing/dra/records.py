"""Claims that a test passes to the stand-in, and the records that the stand-in returns. Frozen values."""

import time

from msgspec import Struct, field


class PodClaim(Struct, frozen=True):
    """A ResourceClaim that a pod uses. ``drivers`` are those whose devices are allocated to it."""

    name: str
    uid: str
    namespace: str = "default"
    drivers: tuple[str, ...] = ("genplug.io",)


class DraRegistration(Struct, frozen=True):
    """A registration that succeeded, and of which the kubelet has notified the driver.

    ``start`` is the number of the start of the kubelet, from 1. ``time`` is in monotonic seconds.
    """

    driver: str
    endpoint: str
    service: str
    start: int
    time: float = field(default_factory=time.monotonic)


class RefusedRegistration(Struct, frozen=True):
    """A registration that failed, and whether the kubelet sent ``error`` to the driver."""

    socket: str
    error: str
    is_sent: bool
    time: float = field(default_factory=time.monotonic)


class PreparedDevice(Struct, frozen=True):
    """A device of a prepared claim, as the driver answered."""

    requests: tuple[str, ...]
    pool: str
    device: str
    cdi_devices: tuple[str, ...]


class DraError(Exception):
    """The kubelet cannot prepare or unprepare the claims of a pod; the message is that of the event of the pod."""
