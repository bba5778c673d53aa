"""The status of all agents of a cluster, from Kubernetes objects and from the documents of the agents."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from genplug.kubectl.agent_status import ActiveConfig, AgentState, AgentStatus, Counts, ResourceStatus, Source
from genplug.kubectl.client import KubectlError
from genplug.kubectl.discovery import Cluster, Pool
from genplug.kubectl.objects import Container, Node, Pod

Answer: TypeAlias = AgentStatus | KubectlError
"""The status of an agent, or the reason for which it is not known."""
_KUBERNETES_DOMAIN = re.compile(r"(.*\.)?kubernetes\.io/")


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The agent and the resources of a node."""

    node: str
    is_ready: bool | None
    """Whether the Kubernetes node is ready; None if the operator may not list nodes."""
    unready_reason: str
    """Why the Kubernetes node is not ready."""
    pod: str
    """The pod of the agent; empty if there is none."""
    agent: AgentState
    reasons: tuple[str, ...]
    """Why the agent is missing, unreachable or not ready."""
    has_answered: bool
    version: str
    """The version of the agent; empty if the agent did not respond."""
    config: ActiveConfig
    resources: tuple[ResourceStatus, ...]

    @property
    def is_fine(self) -> bool:
        """Whether the node and its agent are ready."""
        return self.agent is AgentState.READY and self.is_ready is not False


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """The agents of a pool."""

    namespace: str
    daemon_set: str
    name: str
    nodes: tuple[NodeStatus, ...]
    unlocated: int
    """Agents that are missing on nodes that the operator may not list."""
    version: str
    """The version of most agents; empty if no agent responded."""
    config_sha256: str
    """The configuration of most agents, or the newest of equally many; empty if no agent responded."""

    @property
    def key(self) -> tuple[str, str]:
        """The namespace and the name of the DaemonSet."""
        return self.namespace, self.daemon_set

    @property
    def is_fine(self) -> bool:
        """Whether the nodes and agents are ready, and no agent is missing."""
        return not self.unlocated and all(node.is_fine for node in self.nodes)

    @property
    def resources(self) -> Mapping[str, Counts]:
        """The sums of all nodes by resource name, sorted."""
        sums: dict[str, Counts] = {}
        for node in self.nodes:
            for resource in node.resources:
                sums[resource.name] = sums.get(resource.name, Counts()) + resource.counts
        return dict(sorted(sums.items()))

    def has_other_config(self, node: NodeStatus) -> bool:
        """Return whether a node has another configuration than most nodes of the pool."""
        return bool(node.config.sha256) and node.config.sha256 != self.config_sha256

    def has_other_version(self, node: NodeStatus) -> bool:
        """Return whether the agent of a node has another version than most agents of the pool."""
        return bool(node.version) and node.version != self.version


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """The agents of a cluster."""

    pools: tuple[PoolStatus, ...]
    notes: tuple[str, ...]
    """What is not known, and why."""

    @property
    def nodes(self) -> Iterator[tuple[PoolStatus, NodeStatus]]:
        """Each node of each pool."""
        return ((pool, node) for pool in self.pools for node in pool.nodes)

    @property
    def is_ready(self) -> bool:
        """Whether there are agents, and all of them and their nodes are ready."""
        return bool(self.pools) and all(pool.is_fine for pool in self.pools)


def should_query(pod: Pod | None, node: Node | None) -> bool:
    """Return whether an agent may respond: its container runs, and the kubelet of the node reports a status."""
    return pod is not None and not (pod_problem(pod) or (node is not None and node.is_lost))


def build_fleet(
    cluster: Cluster,
    answers: Mapping[tuple[str, str], Answer],
    forbidden: KubectlError | None = None,
) -> FleetStatus:
    """Return the status of the agents.

    Args:
        cluster: the Kubernetes objects.
        answers: the document or the error of each agent that was queried, by namespace and name of its pod.
        forbidden: the error for all agents without an answer, if the operator may not query agents.
    """
    notes: tuple[str, ...] = ()
    if cluster.nodes_error:
        unknown = "nodes without an agent and nodes that are not ready are not known"
        notes = (*notes, f"{unknown}: {cluster.nodes_error}")
    if forbidden is not None:
        unknown = "devices in use, reasons, configurations and versions are not known"
        notes = (*notes, f"{unknown}, and the other numbers are those of the Kubernetes nodes: {forbidden.reason}")
    return FleetStatus(tuple(_build_pool(pool, cluster, answers) for pool in cluster.pools), notes)


def _build_pool(pool: Pool, cluster: Cluster, answers: Mapping[tuple[str, str], Answer]) -> PoolStatus:
    found = [answers.get((pod.namespace, pod.name)) for pod in pool.pods.values()]
    names = {resource.name for answer in found if isinstance(answer, AgentStatus) for resource in answer.resources}
    nodes = tuple(
        _build_node(
            name,
            cluster.nodes.get(name),
            pod := pool.pods.get(name),
            answers.get((pod.namespace, pod.name)) if pod is not None else None,
            names,
            pool.daemon_set.name,
        )
        for name in pool.nodes
    )
    return PoolStatus(
        pool.daemon_set.namespace,
        pool.daemon_set.name,
        pool.name,
        nodes,
        max(pool.daemon_set.desired - len(nodes), 0) if cluster.nodes_error else 0,
        _most_frequent((node.version, node.config.loaded_at) for node in nodes if node.version),
        _most_frequent((node.config.sha256, node.config.loaded_at) for node in nodes if node.config.sha256),
    )


def _build_node(  # noqa: PLR0913, PLR0917 - the sources of a status
    name: str,
    node: Node | None,
    pod: Pod | None,
    answer: Answer | None,
    names: set[str],
    daemon_set: str,
) -> NodeStatus:
    version, config = "", ActiveConfig()
    resources = tuple(_resources_of_node(node, names)) if node is not None else ()
    if isinstance(answer, AgentStatus):
        state, reasons, version = answer.state, answer.reasons, answer.version
        config, resources = answer.config, answer.resources
    elif pod is None:
        state, reasons = AgentState.MISSING, (f"no pod of the DaemonSet {daemon_set} runs on this node",)
    elif problem := pod_problem(pod):
        state, reasons = AgentState.MISSING, (f"pod {pod.name}: {problem}",)
    elif node is not None and node.is_lost:
        state, reasons = AgentState.UNREACHABLE, (f"the node is not ready: {node.unready_reason}",)
    elif answer is not None:
        state, reasons = AgentState.UNREACHABLE, (f"pod {pod.name}: {answer.reason}",)
    else:
        state = AgentState.READY if pod.is_ready else AgentState.NOT_READY
        reasons = () if pod.is_ready else (f"pod {pod.name} is not ready",)
    return NodeStatus(
        node=name,
        is_ready=node.is_ready if node is not None else None,
        unready_reason=node.unready_reason if node is not None else "",
        pod=pod.name if pod is not None else "",
        agent=state,
        reasons=reasons,
        has_answered=isinstance(answer, AgentStatus),
        version=version,
        config=config,
        resources=resources,
    )


def pod_problem(pod: Pod) -> str:
    """Return why no agent runs in a pod; empty if an agent runs there, ready or not."""
    if pod.is_deleted:
        return "is being deleted"
    if pod.phase in ("Failed", "Succeeded"):
        return ": ".join(part for part in (pod.reason or pod.phase, pod.message) if part)
    for container in pod.containers:
        if container.waiting_reason and (container.is_init or container.name == pod.agent_container):
            return _waiting_problem(container)
    if pod.phase == "Running":
        return ""
    unmet = next((entry for entry in pod.conditions if entry.kind == "PodScheduled" and entry.status != "True"), None)
    return f"is not scheduled: {unmet.message}" if unmet is not None else f"is {pod.phase or 'without a status'}"


def _waiting_problem(container: Container) -> str:
    parts = [container.waiting_reason]
    if container.restarts:
        last = f", the last ended with {container.last_reason}" if container.last_reason else ""
        parts[0] += f" ({container.restarts} restarts{last})"
    return ": ".join([*parts, *filter(None, [container.waiting_message])])


def _resources_of_node(node: Node, names: set[str]) -> Iterator[ResourceStatus]:
    """Yield the resources in the status of a node: those of the pool, or all extended resources if these are not known.

    The kubelet counts healthy devices as allocatable and all devices as capacity.
    """
    for name, capacity in sorted(node.capacity.items()):
        if name in names or (not names and "/" in name and not _KUBERNETES_DOMAIN.match(name)):
            total, healthy = _parse_count(capacity), _parse_count(node.allocatable.get(name, "0"))
            yield ResourceStatus(name, Counts(healthy, max(total - healthy, 0), None, None), Source.NODE)


def _parse_count(quantity: str) -> int:
    """Return a quantity of devices; the API server prints a multiple of 1000 as ``1k``."""
    match = re.fullmatch(r"(\d{1,12})(k|M|)", quantity)
    return int(match[1]) * {"k": 1000, "M": 1_000_000, "": 1}[match[2]] if match else 0


def _most_frequent(values: Iterable[tuple[str, str]]) -> str:
    """Return the most frequent value; of equally frequent values, the value with the latest time."""
    pairs = list(values)
    counts = Counter(value for value, _ in pairs)
    latest: dict[str, str] = {}
    for value, time in pairs:
        latest[value] = max(time, latest.get(value, ""))
    return max(counts, key=lambda value: (counts[value], latest[value], value), default="")
