"""Why a pod waits, as values: the cause, the state of each resource on each node, and the pods that hold devices."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from genplug.kubectl.obstacles import (
    Amounts,
    Obstacle,
)
from genplug.kubectl.reasons import DeviceFailure


class Cause(StrEnum):
    """The cause for which a pod waits, or its state if it does not wait."""

    UNKNOWN_RESOURCE = "unknownResource"
    NO_DEVICES = "noDevices"
    TOO_MANY = "tooMany"
    CORDONED = "cordoned"
    NOT_READY = "notReady"
    TAINT = "taint"
    NODE_SELECTOR = "nodeSelector"
    NODE_AFFINITY = "nodeAffinity"
    UNHEALTHY = "unhealthy"
    IN_USE = "inUse"
    SHORTAGE = "shortage"
    NO_COMMON_NODE = "noCommonNode"
    VOLUME = "volume"
    GATED = "schedulingGates"
    NO_SCHEDULER = "noScheduler"
    QUOTA = "quota"
    INVALID_REQUEST = "invalidRequest"
    NOT_CREATED = "notCreated"
    CONTAINER = "container"
    REFUSED = "refused"
    NOT_WAITING = "notWaiting"
    NOT_FOUND = "notFound"


@dataclass(frozen=True, slots=True)
class PodUse:
    """A pod that holds resources of a node, or for which the scheduler has reserved them (``is_nominated``)."""

    namespace: str
    name: str
    node: str
    priority: int
    created: str
    deleted: str
    requests: Amounts
    is_nominated: bool = False

    @property
    def full_name(self) -> str:
        """Namespace and name."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Holder:
    """A pod that holds devices of a resource."""

    use: PodUse
    count: int
    is_preemptible: bool
    """Whether the scheduler may end the pod in favor of the pod that waits."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node that has a resource, and why the pod cannot have the devices there."""

    name: str
    capacity: int
    healthy: int
    in_use: int
    requested: int
    holders: tuple[Holder, ...] = ()
    exclusions: tuple[Obstacle, ...] = ()
    shortages: tuple[Obstacle, ...] = ()
    failures: tuple[DeviceFailure, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def free(self) -> int:
        """The number of healthy devices that no pod holds."""
        return max(self.healthy - self.in_use, 0)

    @property
    def has_enough(self) -> bool:
        """Whether the free devices suffice for the pod."""
        return self.free >= self.requested

    @property
    def is_possible(self) -> bool:
        """Whether the resource and all that is evaluated permit the pod."""
        return self.has_enough and not self.exclusions and not self.shortages


@dataclass(frozen=True, slots=True)
class ResourceState:
    """A resource that the pod requests; ``cause`` is absent if the resource does not prevent scheduling."""

    name: str
    requested: int
    nodes: tuple[NodeState, ...]
    containers: tuple[tuple[str, int], ...] = ()
    """The containers that request the resource, with their counts."""
    cause: Cause | None = None
    summary: str = ""
    details: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Analysis:
    """Why a pod or the pods of a workload wait."""

    kind: str
    namespace: str
    name: str
    cause: Cause | None
    """None if no cause was found."""
    summary: str
    details: tuple[str, ...] = ()
    resources: tuple[ResourceState, ...] = ()
    actions: tuple[str, ...] = ()
    scheduler_message: str = ""
    not_evaluated: tuple[str, ...] = ()
    """Rules of the pod that were not evaluated."""
    requests: Mapping[str, int] = field(default_factory=dict)
    """The extended resources that the pod requests."""
