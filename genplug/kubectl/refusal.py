"""Why the kubelet refused a pod: the analysis of its status, as text and as a document."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from genplug.cli.output import wrap_escaped_line
from genplug.kubectl.admission_messages import Explanation, explain_refusal, explain_waiting, is_refusal
from genplug.kubectl.objects import Container, Node, Pod
from genplug.kubectl.reasons import NO_REASONS, AgentReasons


@dataclass(frozen=True, slots=True)
class Refusal:
    """The state of a pod. An unknown text, and a pod that was not refused, have no ``explanation``."""

    pod: Pod
    is_refused: bool
    reason: str
    message: str
    explanation: Explanation | None
    summary: str
    actions: tuple[str, ...]
    facts: tuple[str, ...] = ()


def analyze_refusal(pod: Pod) -> Refusal:
    """Return why a pod was refused, or which container of it does not start."""
    describe = f"read the events of the pod: kubectl describe pod --namespace {pod.namespace} {pod.name}"
    explanation = explain_refusal(pod.reason, pod.message) if pod.phase == "Failed" else None
    is_refused = pod.phase == "Failed" and (explanation is not None or is_refusal(pod.reason))
    base = Refusal(pod, is_refused, pod.reason, pod.message, explanation, "", (describe,))
    if explanation:
        return replace(base, summary=explanation.explanation, actions=explanation.actions)
    if is_refused:
        summary = "The kubelet refused the pod with a text that this version of genplug does not know."
        return replace(base, summary=summary)
    for container in pod.containers:
        if container.waiting_reason:
            return _describe_waiting(base, container)
    if pod.phase == "Pending" and not pod.node:
        action = f"see why it waits: kubectl genplug pending --namespace {pod.namespace} {pod.name}"
        return replace(base, summary="The pod was not refused: it waits for a node.", actions=(action,))
    state = f"it is {pod.phase}" + (f" with the reason {pod.reason}" if pod.reason else "")
    return replace(base, summary=f"The pod was not refused: {state}.")


def _describe_waiting(base: Refusal, container: Container) -> Refusal:
    explanation = explain_waiting(container.waiting_message)
    found = replace(base, reason=container.waiting_reason, message=container.waiting_message, explanation=explanation)
    text = f"The kubelet admitted the pod, and its container {container.name} does not start"
    if explanation:
        return replace(found, summary=f"{text}. {explanation.explanation}", actions=explanation.actions)
    return replace(found, summary=f"{text}: the cause is not a device of genplug, or the text is not known.")


def list_facts(refusal: Refusal, node: Node | None, agent: AgentReasons | None) -> Iterator[str]:
    """Yield what the node and its agent report about the resource of a refusal at this moment."""
    pod, resource = refusal.pod, refusal.explanation.resource if refusal.explanation else ""
    if node is None:
        if pod.node:
            yield f"the node {pod.node} does not exist any longer"
        return
    if not node.is_ready:
        yield f"{node.name} is not ready: {node.unready_reason}"
    if resource:
        capacity, healthy = node.capacity.get(resource), node.allocatable.get(resource)
        if capacity is None:
            yield f"{node.name} does not have {resource}"
        else:
            yield f"{node.name} has {capacity} {resource}, and {healthy or 0} of them are healthy"
    if agent is None:
        return
    if agent.error:
        yield agent.error
        return
    reasons = agent.resources.get(resource, NO_REASONS)
    for failure in reasons.failures[:3]:
        since = f" (since {failure.since})" if failure.since else ""
        yield f"{resource} device {failure.id} is unhealthy: {failure.reason}{since}"
    for name in [resource] if resource else agent.resources:
        last = agent.resources.get(name, NO_REASONS)
        if last.refusal:
            same = "the same text" if last.refusal in refusal.message else last.refusal
            yield f"last refusal of the agent for {name}, at {last.refused}: {same}"


def format_refusal(refusal: Refusal) -> str:
    """Return what happened, what the kubelet reported, what is known now, and what to do."""
    pod = refusal.pod
    parts = [wrap_escaped_line(f"{pod.namespace}/{pod.name}: {refusal.summary}")]
    if refusal.reason or refusal.message:
        where = f" on {pod.node}" if pod.node else ""
        text = f": {refusal.message}" if refusal.message else ""
        parts.append(wrap_escaped_line(f"kubelet{where}: {refusal.reason}{text}"))
    if refusal.facts:
        parts.append("\n".join(["now:", *(wrap_escaped_line(f"  {fact}") for fact in refusal.facts)]))
    parts.append("\n".join(["what to do:", *(wrap_escaped_line(f"  {action}") for action in refusal.actions)]))
    return "\n\n".join(parts)


def build_refusal_document(refusal: Refusal) -> dict[str, object]:
    """Return the document for ``-o json``; ``schemas/refusal.schema.json`` describes it."""
    return {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "RefusalReport",
        "target": {"kind": "Pod", "namespace": refusal.pod.namespace, "name": refusal.pod.name},
        "node": refusal.pod.node,
        "refused": refusal.is_refused,
        "reason": refusal.reason,
        "message": refusal.message,
        "cause": refusal.explanation.cause if refusal.explanation else None,
        "explanation": refusal.summary,
        "actions": list(refusal.actions),
        "facts": list(refusal.facts),
    }
