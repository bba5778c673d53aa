"""Finds the releases of genplug in a cluster: DaemonSets, their pods, and the nodes that should run an agent."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from genplug.error_groups import unwrap_error_group
from genplug.kubectl.client import Cause, Kubectl, KubectlError
from genplug.kubectl.objects import (
    POOL_LABEL,
    DaemonSet,
    Node,
    Pod,
    Scheduling,
    Toleration,
    decode_daemon_set,
    decode_node,
    decode_pod,
)
from genplug.kubectl.obstacles import find_exclusions

_CHUNK_OPTION = "--chunk-size=500"
"""The API server sends large lists in parts of this many objects."""

_DAEMON_TOLERATIONS = (
    Toleration("node.kubernetes.io/not-ready", "Exists", "", "NoExecute"),
    Toleration("node.kubernetes.io/unreachable", "Exists", "", "NoExecute"),
    Toleration("node.kubernetes.io/disk-pressure", "Exists", "", "NoSchedule"),
    Toleration("node.kubernetes.io/memory-pressure", "Exists", "", "NoSchedule"),
    Toleration("node.kubernetes.io/pid-pressure", "Exists", "", "NoSchedule"),
    Toleration("node.kubernetes.io/unschedulable", "Exists", "", "NoSchedule"),
)
"""Tolerations that the DaemonSet controller adds to its pods (AddOrUpdateDaemonPodTolerations in
pkg/controller/daemon/util/daemonset_util.go)."""
_NETWORK_TOLERATION = Toleration("node.kubernetes.io/network-unavailable", "Exists", "", "NoSchedule")
"""Is added for pods with the network of the host."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The agents of a DaemonSet: the chart creates a DaemonSet per pool of a release."""

    daemon_set: DaemonSet
    pods: Mapping[str, Pod]
    """The pod of each node. If a node has several, during an update, the newest pod that is not being deleted."""
    nodes: tuple[str, ...]
    """The names of the nodes that should run an agent or run an agent, sorted."""

    @property
    def name(self) -> str:
        """The name of the pool."""
        return self.daemon_set.pool


@dataclass(frozen=True, slots=True)
class Cluster:
    """The agents of a cluster."""

    pools: tuple[Pool, ...]
    """By namespace and name of the DaemonSet."""
    nodes: Mapping[str, Node]
    """The nodes by name; empty if the operator may not list nodes."""
    nodes_error: str
    """Why the nodes are not known; empty if they are known."""


async def discover_cluster(
    kubectl: Kubectl, namespaces: tuple[str, ...] = ("--all-namespaces",), node_selector: str = ""
) -> Cluster:
    """Return the agents of a cluster.

    Args:
        kubectl: the client.
        namespaces: the options of ``kubectl get`` that select namespaces.
        node_selector: a label selector of nodes; empty for all nodes. With it, only these nodes are in the result.

    Raises:
        KubectlError: DaemonSets or pods cannot be listed, or nodes cannot be listed for a reason other than rights.
    """
    selector = (f"--selector={POOL_LABEL}", _CHUNK_OPTION)
    node_options = (f"--selector={node_selector}",) if node_selector else ()
    with unwrap_error_group(KubectlError):
        async with asyncio.TaskGroup() as group:
            listed_daemon_sets = group.create_task(
                kubectl.list_objects(decode_daemon_set, "get", "daemonsets.apps", *namespaces, *selector)
            )
            listed_pods = group.create_task(kubectl.list_objects(decode_pod, "get", "pods", *namespaces, *selector))
            listed_nodes = group.create_task(_list_nodes(kubectl, node_options))
    daemon_sets, pods, (nodes, nodes_error) = listed_daemon_sets.result(), listed_pods.result(), listed_nodes.result()
    if node_selector and nodes_error:
        raise nodes_error
    by_name = {node.name: node for node in nodes}
    pools = build_pools(daemon_sets, pods, by_name, is_restricted=bool(node_selector))
    return Cluster(pools, by_name, nodes_error.reason if nodes_error else "")


def build_pools(
    daemon_sets: Iterable[DaemonSet], pods: Iterable[Pod], nodes: Mapping[str, Node], *, is_restricted: bool = False
) -> tuple[Pool, ...]:
    """Return the pools, by namespace and name; with `is_restricted`, without nodes that are not among `nodes`.

    The creator of a pod sets its label and its owner: pods of other namespaces, and pods that cannot be those of
    agents, are left out.
    """
    by_owner: dict[tuple[str, str], list[Pod]] = {}
    for pod in pods:
        if pod.is_agent:
            by_owner.setdefault((pod.namespace, pod.owner_uid), []).append(pod)
    return tuple(
        _build_pool(
            daemon_set, by_owner.get((daemon_set.namespace, daemon_set.uid), ()), nodes, is_restricted=is_restricted
        )
        for daemon_set in sorted(daemon_sets, key=lambda daemon_set: (daemon_set.namespace, daemon_set.name))
        if daemon_set.has_host_path
    )


async def _list_nodes(kubectl: Kubectl, options: tuple[str, ...]) -> tuple[list[Node], KubectlError | None]:
    try:
        return await kubectl.list_objects(decode_node, "get", "nodes", _CHUNK_OPTION, *options), None
    except KubectlError as error:
        if error.cause is not Cause.FORBIDDEN:
            raise
        return [], error


def _build_pool(daemon_set: DaemonSet, pods: Iterable[Pod], nodes: Mapping[str, Node], *, is_restricted: bool) -> Pool:
    scheduling = _add_daemon_tolerations(daemon_set.scheduling)
    expected = {name for name, node in nodes.items() if not any(find_exclusions(scheduling, node))}
    by_node: dict[str, Pod] = {}
    for pod in pods:
        node = pod.target_node
        if node and (node in nodes or not is_restricted):
            other = by_node.get(node)
            if other is None or (not pod.is_deleted, pod.created) > (not other.is_deleted, other.created):
                by_node[node] = pod
    return Pool(daemon_set, by_node, tuple(sorted(expected | by_node.keys())))


def _add_daemon_tolerations(scheduling: Scheduling) -> Scheduling:
    """Return what the pods of a DaemonSet require, with the tolerations that its controller adds."""
    added = (*_DAEMON_TOLERATIONS, _NETWORK_TOLERATION) if scheduling.is_host_network else _DAEMON_TOLERATIONS
    return replace(scheduling, tolerations=(*scheduling.tolerations, *added))
