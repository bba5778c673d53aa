"""The parts of Kubernetes objects that the plugin reads, as frozen values.

The output of kubectl is input. A key that is missing or has another type than the API defines counts as empty, so that
an object of another version of Kubernetes, or a broken object, does not end a command.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from genplug.kubectl.json_values import JSON, read_map, read_maps, read_number, read_text, read_texts

POOL_LABEL = "genplug.io/pool"
"""The label with the name of the pool, on each DaemonSet, pod and ConfigMap of the chart."""
CONTAINER = "genplug"
"""The container of the agent in the pods of the chart."""
_CONTAINER_ANNOTATION = "kubectl.kubernetes.io/default-container"
_CONFIG_VOLUME = "config"
DEFAULT_SCHEDULER = "default-scheduler"
"""The scheduler of a pod that names none."""


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        """Return the taint as kubectl writes it, for example ``gpu=yes:NoSchedule``."""
        return f"{self.key}{f'={self.value}' if self.value else ''}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Toleration:
    """A toleration of a pod; an empty key or effect matches all."""

    key: str
    operator: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    is_unschedulable: bool
    is_ready: bool
    unready_reason: str
    """Why the node is not ready; empty if it is ready."""
    is_lost: bool
    """Whether the kubelet no longer reports the status of the node (``Ready`` is ``Unknown``)."""
    capacity: Mapping[str, str]
    """Quantities by resource name: for a device plugin, the number of all devices."""
    allocatable: Mapping[str, str]
    """Quantities by resource name: for a device plugin, the number of healthy devices."""


@dataclass(frozen=True, slots=True)
class Scheduling:
    """The requirements of a pod for its node."""

    node_selector: Mapping[str, str]
    affinity_terms: tuple[JSON, ...] | None
    """The node selector terms that are required during scheduling, or None without a required affinity."""
    tolerations: tuple[Toleration, ...]
    node_name: str
    """The node of the pod; empty if the pod is not scheduled."""
    is_host_network: bool


@dataclass(frozen=True, slots=True)
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
    is_sidecar: bool = False
    """Whether an init container continues to run next to the containers (``restartPolicy: Always``)."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a pod, for example ``PodScheduled``."""

    kind: str
    status: str
    reason: str
    message: str
    since: str


@dataclass(frozen=True, slots=True)
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
    deleted: str = ""
    """The time since which the pod is being deleted; empty if it is not."""
    preemption_policy: str = "PreemptLowerPriority"
    scheduler: str = DEFAULT_SCHEDULER
    gates: tuple[str, ...] = ()
    """The scheduling gates that are not removed yet."""
    nominated_node: str = ""
    """The node on which the scheduler has ended other pods for this pod; empty if there is none."""
    overhead: Mapping[str, str] = field(default_factory=dict)
    """The amounts that the runtime class of the pod adds to the requests."""
    pod_requests: Mapping[str, str] = field(default_factory=dict)
    """Requests of the whole pod; they replace those of its containers."""
    unevaluated_rules: tuple[str, ...] = ()
    """Rules of the scheduler that the plugin does not evaluate, for example ``pod affinity``."""
    has_host_path: bool = False
    """Whether the pod has a volume of the kind ``hostPath``."""

    @property
    def is_agent(self) -> bool:
        """Whether the pod can be that of an agent; the label alone can be set by everyone who creates pods.

        Only a namespace with the Pod Security level ``privileged`` has pods with ``hostPath`` volumes.
        """
        return POOL_LABEL in self.labels and self.owner_kind == "DaemonSet" and self.has_host_path

    @property
    def is_ready(self) -> bool:
        """Whether the condition ``Ready`` is true."""
        return any(condition.kind == "Ready" and condition.status == "True" for condition in self.conditions)

    @property
    def node(self) -> str:
        """The name of the node; empty if the pod is not scheduled."""
        return self.scheduling.node_name

    @property
    def target_node(self) -> str:
        """The name of the node; for a pod of a DaemonSet, also before it is scheduled.

        The DaemonSet controller requires the node by its name (ReplaceDaemonSetPodNodeNameNodeAffinity in
        pkg/controller/daemon/util/daemonset_util.go).
        """
        if self.node or self.owner_kind != "DaemonSet":
            return self.node
        for term in self.scheduling.affinity_terms or ():
            for requirement in read_maps(term, "matchFields"):
                values = requirement.get("values")
                if requirement.get("key") == "metadata.name" and isinstance(values, list) and len(values) == 1:
                    return str(values[0])
        return ""

    @property
    def agent_container(self) -> str:
        """The name of the container in which the agent runs."""
        names = [container.name for container in self.containers if not container.is_init]
        if CONTAINER in names:
            return CONTAINER
        return self.annotations.get(_CONTAINER_ANNOTATION) or (names[0] if names else CONTAINER)


@dataclass(frozen=True, slots=True)
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
    has_host_path: bool
    """Whether the pods have a volume of the kind ``hostPath``, as those of agents do."""

    @property
    def pool(self) -> str:
        """The pool, or the name of the DaemonSet if it has no label for it."""
        return self.labels.get(POOL_LABEL) or self.name


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """A ConfigMap."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    data: Mapping[str, str]


def decode_node(item: JSON) -> Node:
    """Return a node."""
    metadata, spec, status = read_map(item, "metadata"), read_map(item, "spec"), read_map(item, "status")
    ready = next((entry for entry in read_maps(status, "conditions") if entry.get("type") == "Ready"), {})
    is_ready = ready.get("status") == "True"
    reason = read_text(ready, "message") or read_text(ready, "reason") or "the kubelet has not reported a status"
    return Node(
        name=read_text(metadata, "name"),
        labels=read_texts(metadata, "labels"),
        taints=tuple(
            Taint(read_text(taint, "key"), read_text(taint, "value"), read_text(taint, "effect"))
            for taint in read_maps(spec, "taints")
        ),
        is_unschedulable=spec.get("unschedulable") is True,
        is_ready=is_ready,
        unready_reason="" if is_ready else reason,
        is_lost=ready.get("status") == "Unknown",
        capacity=read_texts(status, "capacity"),
        allocatable=read_texts(status, "allocatable"),
    )


def decode_pod(item: JSON) -> Pod:
    """Return a pod."""
    metadata, spec, status = read_map(item, "metadata"), read_map(item, "spec"), read_map(item, "status")
    owners = list(read_maps(metadata, "ownerReferences"))
    owner = next((entry for entry in owners if entry.get("controller") is True), owners[0] if owners else {})
    return Pod(
        namespace=read_text(metadata, "namespace"),
        name=read_text(metadata, "name"),
        uid=read_text(metadata, "uid"),
        labels=read_texts(metadata, "labels"),
        annotations=read_texts(metadata, "annotations"),
        owner_kind=read_text(owner, "kind"),
        owner_name=read_text(owner, "name"),
        owner_uid=read_text(owner, "uid"),
        created=read_text(metadata, "creationTimestamp"),
        is_deleted=bool(read_text(metadata, "deletionTimestamp")),
        phase=read_text(status, "phase"),
        reason=read_text(status, "reason"),
        message=read_text(status, "message"),
        priority=read_number(spec, "priority"),
        priority_class=read_text(spec, "priorityClassName"),
        scheduling=_decode_scheduling(spec),
        containers=tuple(_decode_containers(spec, status)),
        conditions=tuple(
            Condition(
                read_text(entry, "type"),
                read_text(entry, "status"),
                read_text(entry, "reason"),
                read_text(entry, "message"),
                read_text(entry, "lastTransitionTime"),
            )
            for entry in read_maps(status, "conditions")
        ),
        deleted=read_text(metadata, "deletionTimestamp"),
        preemption_policy=read_text(spec, "preemptionPolicy") or "PreemptLowerPriority",
        scheduler=read_text(spec, "schedulerName") or DEFAULT_SCHEDULER,
        gates=tuple(read_text(gate, "name") for gate in read_maps(spec, "schedulingGates")),
        nominated_node=read_text(status, "nominatedNodeName"),
        overhead=read_texts(spec, "overhead"),
        pod_requests=read_texts(read_map(spec, "resources"), "requests"),
        unevaluated_rules=tuple(_list_unevaluated_rules(spec)),
        has_host_path=_has_host_path(spec),
    )


def decode_daemon_set(item: JSON) -> DaemonSet:
    """Return a DaemonSet."""
    metadata, status = read_map(item, "metadata"), read_map(item, "status")
    spec = read_map(read_map(read_map(item, "spec"), "template"), "spec")
    config = next((volume for volume in read_maps(spec, "volumes") if volume.get("name") == _CONFIG_VOLUME), {})
    return DaemonSet(
        namespace=read_text(metadata, "namespace"),
        name=read_text(metadata, "name"),
        uid=read_text(metadata, "uid"),
        labels=read_texts(metadata, "labels"),
        scheduling=_decode_scheduling(spec),
        images={
            read_text(container, "name"): read_text(container, "image") for container in read_maps(spec, "containers")
        },
        config_map=read_text(read_map(config, "configMap"), "name"),
        desired=read_number(status, "desiredNumberScheduled"),
        ready=read_number(status, "numberReady"),
        updated=read_number(status, "updatedNumberScheduled"),
        has_host_path=_has_host_path(spec),
    )


def decode_config_map(item: JSON) -> ConfigMap:
    """Return a ConfigMap."""
    metadata = read_map(item, "metadata")
    return ConfigMap(
        read_text(metadata, "namespace"),
        read_text(metadata, "name"),
        read_texts(metadata, "labels"),
        read_texts(item, "data"),
    )


def _decode_scheduling(spec: JSON) -> Scheduling:
    affinity = read_map(read_map(spec, "affinity"), "nodeAffinity").get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return Scheduling(
        node_selector=read_texts(spec, "nodeSelector"),
        affinity_terms=tuple(read_maps(affinity, "nodeSelectorTerms")) if isinstance(affinity, Mapping) else None,
        tolerations=tuple(
            Toleration(
                read_text(entry, "key"),
                read_text(entry, "operator") or "Equal",
                read_text(entry, "value"),
                read_text(entry, "effect"),
            )
            for entry in read_maps(spec, "tolerations")
        ),
        node_name=read_text(spec, "nodeName"),
        is_host_network=spec.get("hostNetwork") is True,
    )


def _decode_containers(spec: JSON, status: JSON) -> Iterator[Container]:
    for key, status_key in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        states = {read_text(state, "name"): state for state in read_maps(status, status_key)}
        for container in read_maps(spec, key):
            name = read_text(container, "name")
            state = states.get(name, {})
            waiting = read_map(read_map(state, "state"), "waiting")
            last = read_map(read_map(state, "lastState"), "terminated") or read_map(
                read_map(state, "state"), "terminated"
            )
            resources = read_map(container, "resources")
            yield Container(
                name=name,
                image=read_text(container, "image"),
                image_id=read_text(state, "imageID"),
                requests=read_texts(resources, "requests"),
                limits=read_texts(resources, "limits"),
                is_init=key == "initContainers",
                is_ready=state.get("ready") is True,
                restarts=read_number(state, "restartCount"),
                waiting_reason=read_text(waiting, "reason"),
                waiting_message=read_text(waiting, "message"),
                last_reason=_describe_end(last),
                is_sidecar=key == "initContainers" and container.get("restartPolicy") == "Always",
            )


def _has_host_path(spec: JSON) -> bool:
    return any(read_map(volume, "hostPath") for volume in read_maps(spec, "volumes"))


def _list_unevaluated_rules(spec: JSON) -> Iterator[str]:
    affinity = read_map(spec, "affinity")
    for key, name in (("podAffinity", "pod affinity"), ("podAntiAffinity", "pod anti-affinity")):
        if read_map(affinity, key).get("requiredDuringSchedulingIgnoredDuringExecution"):
            yield name
    spreads = read_maps(spec, "topologySpreadConstraints")
    if any(spread.get("whenUnsatisfiable") == "DoNotSchedule" for spread in spreads):
        yield "topology spread constraints"
    containers = (*read_maps(spec, "containers"), *read_maps(spec, "initContainers"))
    if any(port.get("hostPort") for container in containers for port in read_maps(container, "ports")):
        yield "host ports"
    if any(volume.keys() & {"persistentVolumeClaim", "ephemeral", "csi"} for volume in read_maps(spec, "volumes")):
        yield "volumes"
    if any(read_maps(spec, "resourceClaims")):
        yield "resource claims"


def _describe_end(terminated: JSON) -> str:
    if not terminated:
        return ""
    reason = read_text(terminated, "reason") or "ended"
    code = read_number(terminated, "exitCode")
    return f"{reason} (exit code {code})" if code and reason in ("Error", "ended") else reason
