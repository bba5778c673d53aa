"""Reads the objects that explain why a pod waits, and asks the agents of the nodes that matter."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from genplug.error_groups import unwrap_error_group
from genplug.kubectl.agents import fetch_agent_status
from genplug.kubectl.analysis import Analysis, PodUse
from genplug.kubectl.analysis import Cause as PendingCause
from genplug.kubectl.causes import find_similar
from genplug.kubectl.client import Cause, Kubectl, KubectlError
from genplug.kubectl.json_values import JSON, read_map, read_text
from genplug.kubectl.objects import Node, Pod, decode_node, decode_pod
from genplug.kubectl.pending import analyze, build_use, count_requests, list_relevant_nodes
from genplug.kubectl.reasons import AgentReasons, decode_reasons
from genplug.kubectl.workloads import (
    analyze_creation,
    decode_workload,
    describe_complete,
    find_owned,
    list_create_errors,
    summarize_waiting,
)
from genplug.observe.text import join_names
from genplug.spec.limits import MAX_EXPLAINED_AGENTS

AGENT_SECONDS = 15.0
"""Time limit of the request to an agent: the other facts explain most causes without it."""
_CHUNK_OPTION = "--chunk-size=500"
_LIVE_PODS = "--field-selector=status.phase!=Succeeded,status.phase!=Failed"
KINDS = {
    "pod": "pod",
    "pods": "pod",
    "po": "pod",
    "deployment": "deployment.apps",
    "deployments": "deployment.apps",
    "deploy": "deployment.apps",
    "replicaset": "replicaset.apps",
    "replicasets": "replicaset.apps",
    "rs": "replicaset.apps",
    "statefulset": "statefulset.apps",
    "statefulsets": "statefulset.apps",
    "sts": "statefulset.apps",
    "daemonset": "daemonset.apps",
    "daemonsets": "daemonset.apps",
    "ds": "daemonset.apps",
    "job": "job.batch",
    "jobs": "job.batch",
}
"""The names of kinds that the command accepts, as kubectl does, with the name of the resource."""


@dataclass(frozen=True, slots=True)
class ClusterPods:
    """The pods of the cluster that have not ended, as far as the operator may list them."""

    uses: tuple[PodUse, ...] = ()
    agents: Mapping[str, Pod] = field(default_factory=dict)
    """The agents' pods by the name of the node."""
    waiting: tuple[Pod, ...] = ()
    """The pods that are Pending and request extended resources."""
    namespace_pods: tuple[Pod, ...] = ()
    """The pods of the namespace of the workload."""
    error: str = ""
    """Why the pods of other namespaces are not known, or an empty text."""


async def explain_pod(kubectl: Kubectl, namespace: tuple[str, ...], name: str) -> tuple[Analysis, str]:
    """Return why a pod waits, and the time of its creation.

    Raises:
        KubectlError: the pod or the nodes cannot be read; for a name that does not exist, with similar names.
    """
    pod = await fetch_pod(kubectl, namespace, name)
    nodes, pods = await _read_cluster(kubectl, pod.namespace)
    return await _explain(kubectl, pod, nodes, pods), pod.created


async def explain_workload(kubectl: Kubectl, namespace: tuple[str, ...], kind: str, name: str) -> tuple[Analysis, str]:
    """Return why the pods of a workload wait or are not created, and the time of its creation.

    Raises:
        KubectlError: an object cannot be read.
    """
    item = await kubectl.get_json("get", kind, name, *namespace)
    workload = decode_workload(item)
    own = (f"--namespace={workload.namespace}",)
    owned = find_owned(workload.uid, await kubectl.list_objects(_keep, "get", "replicasets.apps", *own))
    uids = {workload.uid, *(read_text(read_map(replica, "metadata"), "uid") for replica in owned)}
    events = await kubectl.list_objects(_keep, "get", "events", *own, "--field-selector=reason=FailedCreate")
    nodes, pods = await _read_cluster(kubectl, workload.namespace)
    created = [pod for pod in pods.namespace_pods if pod.owner_uid in uids]
    failures = [failure for failure in (workload.failure, *_replica_failures(owned)) if failure]
    errors = [*failures, *list_create_errors(events, uids)] if len(created) < workload.desired else failures
    waiting = sorted(
        (pod for pod in created if pod.phase == "Pending" and not pod.node), key=lambda pod: (pod.created, pod.name)
    )
    if waiting:
        analysis = await _explain(kubectl, waiting[0], nodes, pods)
        return summarize_waiting(analysis, workload, len(waiting), errors), waiting[0].created
    if errors:
        return analyze_creation(workload, errors, pods.namespace_pods), ""
    return describe_complete(workload, len(created)), ""


async def explain_all(kubectl: Kubectl, namespace: str) -> list[tuple[Analysis, str]]:
    """Return why each pod that requests extended resources waits, with the time of its creation, oldest first.

    Agents are not asked. An empty ``namespace`` means all namespaces.

    Raises:
        KubectlError: nodes or pods cannot be listed.
    """
    nodes, pods = await _read_cluster(kubectl, namespace)
    if pods.error and not namespace:
        raise KubectlError("kubectl get pods --all-namespaces", pods.error, Cause.FORBIDDEN)
    waiting = (pod for pod in pods.waiting if not namespace or pod.namespace == namespace)
    explained: list[tuple[Analysis, str]] = []
    # The pods of a controller have the same template: on a large cluster, an analysis takes seconds.
    by_template: dict[object, Analysis] = {}
    for pod in sorted(waiting, key=lambda pod: (pod.created, pod.namespace, pod.name)):
        template = (pod.owner_uid or pod.uid, tuple(count_requests(pod).items()), pod.gates, pod.priority)
        if template not in by_template:
            by_template[template] = analyze(pod, nodes, pods.uses)
        explained.append((replace(by_template[template], name=pod.name), pod.created))
    return explained


async def fetch_pod(kubectl: Kubectl, namespace: tuple[str, ...], name: str) -> Pod:
    """Return a pod.

    Raises:
        KubectlError: the pod cannot be read; for a name that does not exist, with similar names.
    """
    try:
        return decode_pod(await kubectl.get_json("get", "pod", name, *namespace))
    except KubectlError as error:
        if error.cause is not Cause.NOT_FOUND:
            raise
        hint = await _suggest_pods(kubectl, namespace, name)
        raise KubectlError(error.command, f"{error.reason}{hint}", error.cause) from None


async def ask_agents(kubectl: Kubectl, agents: Iterable[tuple[str, Pod | None]]) -> dict[str, AgentReasons]:
    """Return what the agents of nodes report; a node without an agent has an error instead."""
    asked = list(agents)[:MAX_EXPLAINED_AGENTS]
    answers = await asyncio.gather(*(_ask_agent(kubectl, node, pod) for node, pod in asked))
    return {answer.node: answer for answer in answers}


async def _ask_agent(kubectl: Kubectl, node: str, pod: Pod | None) -> AgentReasons:
    if pod is None:
        return AgentReasons(node, error="no agent of genplug runs on the node")
    name = f"{pod.namespace}/{pod.name}"
    try:
        return decode_reasons(node, name, await fetch_agent_status(kubectl, pod, AGENT_SECONDS))
    except KubectlError as error:
        return AgentReasons(node, pod=name, error=f"the agent {name} did not answer: {error.reason}")


async def _explain(kubectl: Kubectl, pod: Pod, nodes: Sequence[Node], pods: ClusterPods) -> Analysis:
    analysis = analyze(pod, nodes, pods.uses)
    asked = list_relevant_nodes(analysis)
    if analysis.cause is PendingCause.UNKNOWN_RESOURCE:
        asked = tuple(sorted(pods.agents))
    if asked:
        agents = await ask_agents(kubectl, [(node, pods.agents.get(node)) for node in asked])
        analysis = analyze(pod, nodes, pods.uses, agents)
    if pods.error:
        unknown = f"the pods of other namespaces are not known, so devices in use can look free: {pods.error}"
        analysis = replace(analysis, details=(*analysis.details, unknown))
    return analysis


async def _read_cluster(kubectl: Kubectl, namespace: str) -> tuple[list[Node], ClusterPods]:
    with unwrap_error_group(KubectlError):
        async with asyncio.TaskGroup() as group:
            nodes = group.create_task(kubectl.list_objects(decode_node, "get", "nodes", _CHUNK_OPTION))
            pods = group.create_task(_read_pods(kubectl, namespace))
    return nodes.result(), pods.result()


async def _read_pods(kubectl: Kubectl, namespace: str) -> ClusterPods:
    """List the pods of all namespaces, or those of a namespace if the operator may not list all."""
    try:
        return await _list_pods(kubectl, namespace, "--all-namespaces")
    except KubectlError as error:
        if error.cause is not Cause.FORBIDDEN or not namespace:
            raise
        return replace(await _list_pods(kubectl, namespace, f"--namespace={namespace}"), error=error.reason)


async def _list_pods(kubectl: Kubectl, namespace: str, option: str) -> ClusterPods:
    agents: dict[str, Pod] = {}
    waiting: list[Pod] = []
    namespace_pods: list[Pod] = []

    def decode(item: JSON) -> PodUse | None:
        """Return what a pod holds. Other values of the pod are kept only if they are needed."""
        pod = decode_pod(item)
        if pod.is_agent and pod.node and not pod.is_deleted:
            agents[pod.node] = pod
        if pod.phase == "Pending" and not pod.node and count_requests(pod):
            waiting.append(pod)
        if pod.namespace == namespace:
            namespace_pods.append(pod)
        return build_use(pod)

    uses = await kubectl.list_objects(decode, "get", "pods", option, _LIVE_PODS, _CHUNK_OPTION)
    return ClusterPods(tuple(uses), agents, tuple(waiting), tuple(namespace_pods))


async def _suggest_pods(kubectl: Kubectl, namespace: tuple[str, ...], name: str) -> str:
    """Return similar names, or other namespaces with the name, as a text to append."""
    try:
        pods = await kubectl.list_objects(decode_pod, "get", "pods", "--all-namespaces", _CHUNK_OPTION)
    except KubectlError:
        try:
            pods = await kubectl.list_objects(decode_pod, "get", "pods", *namespace, _CHUNK_OPTION)
        except KubectlError:
            return ""
    others = sorted({pod.namespace for pod in pods if pod.name == name})
    if others:
        return f"; the pod exists in the namespace {join_names(others)}: pass --namespace {others[0]}"
    wanted = [option.partition("=")[2] for option in namespace]
    names = [pod.name for pod in pods if not wanted or pod.namespace in wanted]
    if not names and (namespaces := find_similar(wanted[0], {pod.namespace for pod in pods}) if wanted else ()):
        return f"; the namespace {wanted[0]} has no pod: did you mean --namespace {namespaces[0]}?"
    similar = find_similar(name, names)
    return f"; did you mean {join_names(similar)}?" if similar else ""


def _replica_failures(replica_sets: Iterable[JSON]) -> list[str]:
    return [decode_workload(replica_set).failure for replica_set in replica_sets]


def _keep(item: JSON) -> JSON:
    return item
