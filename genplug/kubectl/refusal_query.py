"""Reads a refused pod, its node, and the answer of the agent of the node."""

from dataclasses import replace

from genplug.kubectl.client import Cause, Kubectl, KubectlError
from genplug.kubectl.objects import POOL_LABEL, Node, Pod, decode_node, decode_pod
from genplug.kubectl.pending_query import ask_agents, fetch_pod
from genplug.kubectl.refusal import Refusal, analyze_refusal, list_facts


async def explain_pod_refusal(kubectl: Kubectl, namespace: tuple[str, ...], name: str) -> Refusal:
    """Return why a pod was refused, with what its node and the agent report now.

    Raises:
        KubectlError: the pod cannot be read; for a name that does not exist, with similar names.
    """
    refusal = analyze_refusal(await fetch_pod(kubectl, namespace, name))
    if not refusal.pod.node or not (refusal.is_refused or refusal.explanation):
        return refusal
    try:
        node = await _fetch_node(kubectl, refusal.pod.node)
        agent = await _find_agent(kubectl, refusal.pod.node) if node else None
    except KubectlError as error:
        return replace(refusal, facts=(f"the node is not known: {error.reason}",))
    answers = await ask_agents(kubectl, [(refusal.pod.node, agent)]) if node else {}
    return replace(refusal, facts=tuple(list_facts(refusal, node, answers.get(refusal.pod.node))))


async def list_refusals(kubectl: Kubectl, namespaces: tuple[str, ...]) -> list[Refusal]:
    """Return the refused pods, oldest first.

    Raises:
        KubectlError: pods cannot be listed.
    """
    pods = await kubectl.list_objects(decode_pod, "get", "pods", *namespaces, "--field-selector=status.phase=Failed")
    refusals = (analyze_refusal(pod) for pod in sorted(pods, key=lambda pod: (pod.created, pod.namespace, pod.name)))
    return [refusal for refusal in refusals if refusal.is_refused]


async def _fetch_node(kubectl: Kubectl, name: str) -> Node | None:
    try:
        return decode_node(await kubectl.get_json("get", "node", name))
    except KubectlError as error:
        if error.cause is Cause.NOT_FOUND:
            return None
        raise


async def _find_agent(kubectl: Kubectl, node: str) -> Pod | None:
    agents = await kubectl.list_objects(
        decode_pod,
        "get",
        "pods",
        "--all-namespaces",
        f"--selector={POOL_LABEL}",
        f"--field-selector=spec.nodeName={node},status.phase=Running",
    )
    return next((pod for pod in agents if pod.is_agent and not pod.is_deleted), None)
