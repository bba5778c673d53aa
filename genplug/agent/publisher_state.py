"""The state of the publisher of ResourceSlices. Frozen values."""

from collections.abc import Mapping
from enum import StrEnum
from math import inf

from msgspec import Struct

from genplug.allocation.slice_plan import Answered, Write
from genplug.allocation.slices import ActualSlice, SliceScope, WantedPool

Seconds = float
UNSUPPORTED_KUBELET = (
    "the kubelet does not support drivers of Dynamic Resource Allocation: upgrade Kubernetes to 1.34 or later"
)
"""The error of a kubelet that has no handler for drivers."""


class Phase(StrEnum):
    """The state of the publisher, for the log and the status."""

    IDLE = "idle"
    WAIT_KUBELET = "waiting for the kubelet"
    LIST = "reading slices"
    SYNC = "writing slices"
    WATCH = "published"
    BACKOFF = "waiting to retry"
    UNSUPPORTED = "not supported by the cluster"
    DRAIN = "deleting slices"


class Registration(StrEnum):
    """The registration of the driver with the kubelet."""

    WAITING = "waiting"
    REGISTERED = "registered"
    UNSUPPORTED = "unsupported"


class Refusal(Struct, frozen=True):
    """The API server refused a write of a pool: nothing is written for this pool until ``until``.

    ``pool`` has the devices if these are invalid: other devices are written at once. Refusals for other reasons have
    no pool.
    ``failures`` counts the consecutive refusals of the pool.
    """

    pool: WantedPool | None
    reason: str
    until: Seconds
    failures: int = 1


class PublisherState(Struct, frozen=True):
    """The state of the publisher. Times are monotonic seconds.

    ``pools`` are the wanted pools, None if no resource is served by Dynamic Resource Allocation. ``actual`` has the
    slices of the API server by name, None if they have to be listed. ``is_watching`` states that changes of them arrive
    since ``watch_since``. ``keeps_taints`` states that the API server has not dropped taints yet. ``was_away`` states
    that it could not be reached or ended a watch since that was found: it may keep taints after an upgrade.
    ``away_at`` is the time of the last request that did not reach it, or that it answered with an error of its own.
    ``refusals`` has the pools that the API server refuses, by name. ``writes`` has the times of the last writes of each
    slice. ``in_flight`` is
    the write that was sent and is not answered yet. Nothing is sent before ``retry_at``, and ``error`` is the reason.
    ``changed_at`` is the time of the last change of the wanted pools, or of the registration if that was later.
    ``published`` has the pools that were published last, without those that were refused, and ``may_have_slices``
    states that the API server may have slices of the driver.
    """

    phase: Phase = Phase.IDLE
    pools: tuple[WantedPool, ...] | None = None
    registration: Registration = Registration.WAITING
    scope: SliceScope | None = None
    actual: Mapping[str, ActualSlice] | None = None
    resource_version: str = ""
    is_watching: bool = False
    watch_since: Seconds = 0.0
    keeps_taints: bool = True
    was_away: bool = False
    away_at: Seconds = -inf
    answers: Mapping[str, Answered] = {}
    refusals: Mapping[str, Refusal] = {}
    writes: Mapping[str, tuple[Seconds, ...]] = {}
    in_flight: Write | None = None
    failures: int = 0
    retry_at: Seconds = -inf
    is_unsupported: bool = False
    error: str = ""
    changed_at: Seconds = 0.0
    published: tuple[WantedPool, ...] | None = None
    may_have_slices: bool = False

    @property
    def is_synced(self) -> bool:
        """Whether the API server has had the wanted slices once, those of refused pools excepted."""
        return self.published is not None
