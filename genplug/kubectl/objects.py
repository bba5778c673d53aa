"""The parts of Kubernetes objects that the plugin reads, as frozen values.

The output of kubectl is input. A key that is missing or has another type than the API defines counts as empty, so that
an object of another version of Kubernetes, or a broken object, does not end a command.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from genplug.kubectl.client import JSON

POOL_LABEL = "genplug.io/pool"
"""The label with the name of the pool, on each DaemonSet, pod and ConfigMap of the chart."""
CONTAINER = "genplug"
"""The container of the agent in the pods of the chart."""
_CONTAINER_ANNOTATION = "kubectl.kubernetes.io/default-container"
_CONFIG_VOLUME = "config"


@frozen
class Taint:
    """A taint of a node."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        """Return the taint as kubectl writes it, for example ``gpu=yes:NoSchedule``."""
        return f"{self.key}{f'={self.value}' if self.value else ''}:{self.effect}"


@frozen
class Toleration:
    """A toleration of a pod; an empty key or effect matches all."""

    key: str
    operator: str
    value: str
    effect: str


@frozen
class Node:
    """A node."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    is_unschedulable: bool
    is_ready: bool
    unready_reason: str
    """Why the node is not ready; empty if it is ready."""
    capacity: Mapping[str, str]
    """Quantities by resource name: for a device plugin, the number of all devices."""
    allocatable: Mapping[str, str]
    """Quantities by resource name: for a device plugin, the number of healthy devices."""


@frozen
class Scheduling:
    """The requirements of a pod for its node."""

    node_selector: Mapping[str, str]
    affinity_terms: tuple[JSON, ...] | None
    """The node selector terms that are required during scheduling, or None without a required affinity."""
    tolerations: tuple[Toleration, ...]
    node_name: str
    """The node of the pod; empty if the pod is not scheduled."""
    is_host_network: bool


@frozen
class Container:
    """A container of a pod, with its state."""

    name: str
    image: str
    image_id: str
    """The image with the digest that runs; empty before the first start."""
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    is_init: bool
    is_ready: bool
    restarts: int
    waiting_reason: str
    """For example ``CrashLoopBackOff``; empty if the container does not wait."""
    waiting_message: str
    last_reason: str
    """Why the container ended before, for example ``OOMKilled``, ``Error (exit code 1)``; empty if it did not."""


@frozen
class Condition:
    """A condition of a pod, for example ``PodScheduled``."""

    kind: str
    status: str
    reason: str
    message: str
    since: str


@frozen
class Pod:
    """A pod."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner_kind: str
    owner_name: str
    owner_uid: str
    created: str
    """The creation time in RFC 3339."""
    is_deleted: bool
    """Whether the pod is being deleted."""
    phase: str
    reason: str
    message: str
    priority: int
    priority_class: str
    scheduling: Scheduling
    containers: tuple[Container, ...]
    """The init containers first."""
    conditions: tuple[Condition, ...]

    @property
    def is_ready(self) -> bool:
        """Whether the condition ``Ready`` is true."""
        return any(condition.kind == "Ready" and condition.status == "True" for condition in self.conditions)

    @property
    def node(self) -> str:
        """The name of the node; empty if the pod is not scheduled."""
        return self.scheduling.node_name

    @property
    def agent_container(self) -> str:
        """The name of the container in which the agent runs."""
        names = [container.name for container in self.containers if not container.is_init]
        if CONTAINER in names:
            return CONTAINER
        return self.annotations.get(_CONTAINER_ANNOTATION) or (names[0] if names else CONTAINER)


@frozen
class DaemonSet:
    """A DaemonSet of a release: the agents of a pool."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    scheduling: Scheduling
    images: Mapping[str, str]
    """The image of each container."""
    config_map: str
    """The ConfigMap with the configuration; empty if the configuration is not in a ConfigMap."""
    desired: int
    """Nodes that should run a pod, as the DaemonSet controller counts them."""
    ready: int
    updated: int

    @property
    def pool(self) -> str:
        """The pool, or the name of the DaemonSet if it has no label for it."""
        return self.labels.get(POOL_LABEL) or self.name


@frozen
class ConfigMap:
    """A ConfigMap."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    data: Mapping[str, str]


def decode_node(item: JSON) -> Node:
    """Return a node."""
    metadata, spec, status = _map(item, "metadata"), _map(item, "spec"), _map(item, "status")
    ready = next((entry for entry in _maps(status, "conditions") if entry.get("type") == "Ready"), {})
    is_ready = ready.get("status") == "True"
    reason = _text(ready, "message") or _text(ready, "reason") or "the kubelet has not reported a status"
    return Node(
        name=_text(metadata, "name"),
        labels=_texts(metadata, "labels"),
        taints=tuple(
            Taint(_text(taint, "key"), _text(taint, "value"), _text(taint, "effect")) for taint in _maps(spec, "taints")
        ),
        is_unschedulable=spec.get("unschedulable") is True,
        is_ready=is_ready,
        unready_reason="" if is_ready else reason,
        capacity=_texts(status, "capacity"),
        allocatable=_texts(status, "allocatable"),
    )


def decode_pod(item: JSON) -> Pod:
    """Return a pod."""
    metadata, spec, status = _map(item, "metadata"), _map(item, "spec"), _map(item, "status")
    owners = list(_maps(metadata, "ownerReferences"))
    owner = next((entry for entry in owners if entry.get("controller") is True), owners[0] if owners else {})
    return Pod(
        namespace=_text(metadata, "namespace"),
        name=_text(metadata, "name"),
        uid=_text(metadata, "uid"),
        labels=_texts(metadata, "labels"),
        annotations=_texts(metadata, "annotations"),
        owner_kind=_text(owner, "kind"),
        owner_name=_text(owner, "name"),
        owner_uid=_text(owner, "uid"),
        created=_text(metadata, "creationTimestamp"),
        is_deleted=bool(_text(metadata, "deletionTimestamp")),
        phase=_text(status, "phase"),
        reason=_text(status, "reason"),
        message=_text(status, "message"),
        priority=_number(spec, "priority"),
        priority_class=_text(spec, "priorityClassName"),
        scheduling=_decode_scheduling(spec),
        containers=tuple(_decode_containers(spec, status)),
        conditions=tuple(
            Condition(
                _text(entry, "type"),
                _text(entry, "status"),
                _text(entry, "reason"),
                _text(entry, "message"),
                _text(entry, "lastTransitionTime"),
            )
            for entry in _maps(status, "conditions")
        ),
    )


def decode_daemon_set(item: JSON) -> DaemonSet:
    """Return a DaemonSet."""
    metadata, status = _map(item, "metadata"), _map(item, "status")
    spec = _map(_map(_map(item, "spec"), "template"), "spec")
    config = next((volume for volume in _maps(spec, "volumes") if volume.get("name") == _CONFIG_VOLUME), {})
    return DaemonSet(
        namespace=_text(metadata, "namespace"),
        name=_text(metadata, "name"),
        uid=_text(metadata, "uid"),
        labels=_texts(metadata, "labels"),
        scheduling=_decode_scheduling(spec),
        images={_text(container, "name"): _text(container, "image") for container in _maps(spec, "containers")},
        config_map=_text(_map(config, "configMap"), "name"),
        desired=_number(status, "desiredNumberScheduled"),
        ready=_number(status, "numberReady"),
        updated=_number(status, "updatedNumberScheduled"),
    )


def decode_config_map(item: JSON) -> ConfigMap:
    """Return a ConfigMap."""
    metadata = _map(item, "metadata")
    return ConfigMap(
        _text(metadata, "namespace"), _text(metadata, "name"), _texts(metadata, "labels"), _texts(item, "data")
    )


def _decode_scheduling(spec: JSON) -> Scheduling:
    affinity = _map(_map(spec, "affinity"), "nodeAffinity").get("requiredDuringSchedulingIgnoredDuringExecution")
    return Scheduling(
        node_selector=_texts(spec, "nodeSelector"),
        affinity_terms=tuple(_maps(affinity, "nodeSelectorTerms")) if isinstance(affinity, Mapping) else None,
        tolerations=tuple(
            Toleration(
                _text(entry, "key"), _text(entry, "operator") or "Equal", _text(entry, "value"), _text(entry, "effect")
            )
            for entry in _maps(spec, "tolerations")
        ),
        node_name=_text(spec, "nodeName"),
        is_host_network=spec.get("hostNetwork") is True,
    )


def _decode_containers(spec: JSON, status: JSON) -> Iterator[Container]:
    for key, status_key in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        states = {_text(state, "name"): state for state in _maps(status, status_key)}
        for container in _maps(spec, key):
            name = _text(container, "name")
            state = states.get(name, {})
            waiting = _map(_map(state, "state"), "waiting")
            last = _map(_map(state, "lastState"), "terminated") or _map(_map(state, "state"), "terminated")
            resources = _map(container, "resources")
            yield Container(
                name=name,
                image=_text(container, "image"),
                image_id=_text(state, "imageID"),
                requests=_texts(resources, "requests"),
                limits=_texts(resources, "limits"),
                is_init=key == "initContainers",
                is_ready=state.get("ready") is True,
                restarts=_number(state, "restartCount"),
                waiting_reason=_text(waiting, "reason"),
                waiting_message=_text(waiting, "message"),
                last_reason=_describe_end(last),
            )


def _describe_end(terminated: JSON) -> str:
    if not terminated:
        return ""
    reason = _text(terminated, "reason") or "ended"
    code = _number(terminated, "exitCode")
    return f"{reason} (exit code {code})" if code and reason in ("Error", "ended") else reason


def _map(parent: JSON, key: str) -> JSON:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _maps(parent: JSON, key: str) -> Iterator[JSON]:
    value = parent.get(key)
    yield from (entry for entry in value if isinstance(entry, dict)) if isinstance(value, list) else ()


def _text(parent: JSON, key: str) -> str:
    value: Any = parent.get(key)
    return value if isinstance(value, str) else ""


def _texts(parent: JSON, key: str) -> dict[str, str]:
    return {name: str(value) for name, value in _map(parent, key).items() if isinstance(value, str | int | float)}


def _number(parent: JSON, key: str) -> int:
    value: Any = parent.get(key)
    return value if isinstance(value, int) else 0
