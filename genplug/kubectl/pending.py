"""Why a pod waits: the analysis of a pod, the nodes, the pods that hold devices, and what agents report.

All functions are pure: the command reads the objects, and :mod:`genplug.kubectl.pending_text` formats the result.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from genplug.kubectl.analysis import Analysis, Cause, Holder, NodeState, PodUse, ResourceState
from genplug.kubectl.causes import (
    describe_agent,
    explain_exclusion,
    explain_no_devices,
    explain_shortage,
    explain_too_many,
    explain_unhealthy,
    explain_unknown,
    explain_use,
    list_unique,
)
from genplug.kubectl.objects import DEFAULT_SCHEDULER, Node, Pod
from genplug.kubectl.obstacles import (
    Amounts,
    Obstacle,
    find_exclusions,
    find_shortages,
    is_extended,
    parse_amounts,
    sum_requests,
)
from genplug.kubectl.reasons import NO_REASONS, AgentReasons
from genplug.observe.text import join_names


@dataclass(frozen=True, slots=True)
class _Situation:
    """The pod that waits, and what the cluster and the agents report."""

    pod: Pod
    requests: Amounts
    nodes: Sequence[Node]
    uses: Mapping[str, Sequence[PodUse]]
    """The pods on each node."""
    agents: Mapping[str, AgentReasons]


def build_use(pod: Pod) -> PodUse | None:
    """Return what a pod holds on a node, or None if it holds nothing.

    Pods that have ended hold nothing, and pods that are being deleted hold their devices until they are gone.
    """
    node = pod.node or pod.nominated_node
    if not node or pod.phase in {"Succeeded", "Failed"}:
        return None
    return PodUse(
        pod.namespace,
        pod.name,
        node,
        pod.priority,
        pod.created,
        pod.deleted,
        sum_requests(pod),
        is_nominated=not pod.node,
    )


def count_requests(pod: Pod) -> dict[str, int]:
    """Return the extended resources that a pod requests, with the number of devices."""
    return {name: int(amount) for name, amount in sum_requests(pod).items() if is_extended(name) and amount}


def analyze(
    pod: Pod, nodes: Sequence[Node], uses: Iterable[PodUse], agents: Mapping[str, AgentReasons] | None = None
) -> Analysis:
    """Return why a pod waits. ``agents`` are the answers of agents by the name of the node."""
    requests = count_requests(pod)
    if state := _describe_state(pod):
        return replace(state, requests=requests)
    uses_by_node: dict[str, list[PodUse]] = {}
    for use in uses:
        is_other = (use.namespace, use.name) != (pod.namespace, pod.name)
        # A reservation for a pod with a lower priority does not prevent scheduling.
        if is_other and not (use.is_nominated and use.priority < pod.priority):
            uses_by_node.setdefault(use.node, []).append(use)
    situation = _Situation(pod, sum_requests(pod), nodes, uses_by_node, agents or {})
    states = tuple(_analyze_resource(situation, name, count) for name, count in requests.items())
    return replace(_conclude(situation, states), requests=requests)


def list_relevant_nodes(analysis: Analysis) -> tuple[str, ...]:
    """Return the nodes whose agents know more about the cause: those with too few devices or unhealthy devices."""
    return tuple(
        dict.fromkeys(
            node.name
            for resource in analysis.resources
            if resource.cause in {Cause.NO_DEVICES, Cause.UNHEALTHY, Cause.IN_USE, Cause.TOO_MANY}
            for node in resource.nodes
            if node.healthy < node.capacity or not node.capacity or resource.cause is Cause.TOO_MANY
        )
    )


def _describe_state(pod: Pod) -> Analysis | None:
    """Return the state of a pod that the scheduler does not examine, or None."""
    describe = f"kubectl describe pod --namespace {pod.namespace} {pod.name}"

    def build(cause: Cause, summary: str, *actions: str, details: Sequence[str] = ()) -> Analysis:
        return Analysis(
            "Pod", pod.namespace, pod.name, cause, summary, tuple(details), actions=actions,
            scheduler_message=_scheduler_message(pod),
        )  # fmt: skip

    if pod.phase == "Failed" and pod.reason and not any(container.restarts for container in pod.containers):
        why = f"kubectl genplug why --namespace {pod.namespace} {pod.name}"
        summary = f"The pod does not wait: it is Failed with the reason {pod.reason}."
        return build(Cause.REFUSED, summary, f"see why: {why}", details=(pod.message,) if pod.message else ())
    if pod.phase in {"Succeeded", "Failed"}:
        return build(Cause.NOT_WAITING, f"The pod does not wait: it has ended, with the phase {pod.phase}.")
    if pod.phase == "Running":
        return build(Cause.NOT_WAITING, f"The pod does not wait: it runs on {pod.node}.")
    if pod.node:
        waiting = [
            f"{container.name}: {container.waiting_reason}"
            + (f": {container.waiting_message}" if container.waiting_message else "")
            for container in pod.containers
            if container.waiting_reason
        ]
        first = waiting[0] if waiting else f"the kubelet of {pod.node} has not started it"
        summary = f"The pod has its devices on {pod.node}, and a container has not started: {first}."
        return build(Cause.CONTAINER, summary, describe, details=waiting[1:])
    if pod.gates:
        gates = join_names(pod.gates)
        summary = f"The pod is not ready for scheduling: it has the scheduling gates {gates}."
        return build(
            Cause.GATED, summary, "wait for the controllers that remove the gates", f"check the controllers: {describe}"
        )
    if not any(condition.kind == "PodScheduled" for condition in pod.conditions):
        if pod.scheduler != DEFAULT_SCHEDULER:
            summary = f"No scheduler has examined the pod: no scheduler with the name {pod.scheduler} responds."
            action = f"correct schedulerName of the pod, or start the scheduler {pod.scheduler}"
        else:
            summary = "The scheduler has not examined the pod yet."
            action = "wait a few seconds; if nothing changes, check that kube-scheduler runs"
        return build(Cause.NO_SCHEDULER, summary, action)
    return None


def _scheduler_message(pod: Pod) -> str:
    messages = (
        condition.message
        for condition in pod.conditions
        if condition.kind == "PodScheduled" and condition.status == "False"
    )
    return next(messages, "")


def _analyze_resource(situation: _Situation, name: str, requested: int) -> ResourceState:
    pod, agents = situation.pod, situation.agents
    states = tuple(
        _build_node_state(situation, node, name, requested)
        for node in situation.nodes
        if name in node.capacity or name in node.allocatable
    )
    containers = tuple(
        (container.name, int(amount))
        for container in pod.containers
        if (amount := parse_amounts(container.requests).get(name, Fraction(0)))
    )
    state = ResourceState(name, requested, states, containers)
    if not states:
        return explain_unknown(state, situation.nodes, agents)
    if not any(node.capacity for node in states):
        return explain_no_devices(state, agents)
    if requested > max(node.capacity for node in states):
        return explain_too_many(state)
    sufficient = [node for node in states if node.capacity >= requested]
    eligible = [node for node in sufficient if not node.exclusions]
    if not eligible:
        return explain_exclusion(state, sufficient)
    healthy = [node for node in eligible if node.healthy >= requested]
    if not healthy:
        return explain_unhealthy(state, eligible, agents)
    if not any(node.has_enough for node in healthy):
        return explain_use(state, pod, healthy)
    if all(node.shortages for node in healthy if node.has_enough):
        return explain_shortage(state, [node for node in healthy if node.has_enough])
    return state


def _build_node_state(situation: _Situation, node: Node, name: str, requested: int) -> NodeState:
    pod, uses, agent = situation.pod, situation.uses.get(node.name, ()), situation.agents.get(node.name)
    holders = tuple(
        Holder(use, int(amount), pod.preemption_policy != "Never" and use.priority < pod.priority)
        for use in uses
        if (amount := use.requests.get(name, Fraction(0)))
    )
    reasons = agent.resources.get(name, NO_REASONS) if agent else NO_REASONS
    return NodeState(
        node.name,
        capacity=int(parse_amounts(node.capacity).get(name, Fraction(0))),
        healthy=int(parse_amounts(node.allocatable).get(name, Fraction(0))),
        in_use=sum(holder.count for holder in holders),
        requested=requested,
        holders=tuple(sorted(holders, key=lambda holder: (holder.use.priority, holder.use.created))),
        exclusions=tuple(find_exclusions(pod.scheduling, node)),
        shortages=tuple(find_shortages(situation.requests, node, _sum_uses(uses), len(uses))),
        failures=reasons.failures,
        notes=describe_agent(name, agent) if agent else (),
    )


def _sum_uses(uses: Iterable[PodUse]) -> dict[str, Fraction]:
    total: dict[str, Fraction] = {}
    for use in uses:
        for name, amount in use.requests.items():
            total[name] = total.get(name, Fraction(0)) + amount
    return total


_SEVERITY = tuple(Cause)


def _conclude(situation: _Situation, states: tuple[ResourceState, ...]) -> Analysis:
    pod = situation.pod
    message = _scheduler_message(pod)
    base = Analysis(
        "Pod",
        pod.namespace,
        pod.name,
        cause=None,
        summary="",
        resources=states,
        scheduler_message=message,
        not_evaluated=pod.unevaluated_rules,
    )
    blocking = sorted(
        (state for state in states if state.cause is not None),
        key=lambda state: _SEVERITY.index(state.cause),
    )
    if "persistentvolumeclaim" in message.lower():
        summary = f"The volumes of the pod are not available; the scheduler reports: {message}"
        action = f"check the claims: kubectl get persistentvolumeclaims --namespace {pod.namespace}"
        details = tuple(state.summary for state in blocking)
        return replace(base, cause=Cause.VOLUME, summary=summary, details=details, actions=(action,))
    if blocking:
        first, *others = blocking
        return replace(
            base,
            cause=first.cause,
            summary=first.summary,
            details=(*first.details, *(text for state in others for text in (state.summary, *state.details))),
            actions=list_unique(action for state in blocking for action in state.actions),
        )
    if not situation.nodes:
        return replace(base, cause=Cause.NOT_READY, summary="The cluster has no node.", actions=("add a node",))
    return _explain_rest(situation, base)


def _explain_rest(situation: _Situation, base: Analysis) -> Analysis:
    """Return why a pod waits although each of its resources is available."""
    possible = [{node.name for node in state.nodes if node.is_possible} for state in base.resources]
    if possible and not set.intersection(*possible):
        texts = [
            f"{state.name} on {join_names(sorted(names))}"
            for state, names in zip(base.resources, possible, strict=True)
        ]
        summary = f"No node has all requested resources at the same time: {', '.join(texts)}."
        action = "request the resources in separate pods, or end pods on a node that has all of them"
        return replace(base, cause=Cause.NO_COMMON_NODE, summary=summary, actions=(action,))
    if not base.resources:
        return _explain_without_devices(situation, base)
    names = join_names(sorted(set.intersection(*possible)))
    report = f"; the scheduler reports: {base.scheduler_message}" if base.scheduler_message else ""
    if base.not_evaluated:
        summary = f"{names} has all requested devices, so another rule of the pod prevents scheduling: "
        summary += f"{join_names(base.not_evaluated)}{report}"
        return replace(base, summary=summary, actions=("read the message of the scheduler",))
    summary = f"{names} has all requested devices, and no evaluated rule excludes it{report}"
    action = "wait a minute, because the cluster may have changed just now, and run the command again"
    return replace(base, summary=summary, actions=(action, "read the message of the scheduler"))


def _explain_without_devices(situation: _Situation, base: Analysis) -> Analysis:
    obstacles: dict[str, tuple[Obstacle, ...]] = {}
    for node in situation.nodes:
        uses = situation.uses.get(node.name, ())
        obstacles[node.name] = (
            *find_exclusions(situation.pod.scheduling, node),
            *find_shortages(situation.requests, node, _sum_uses(uses), len(uses)),
        )
    details = tuple(f"{name} {found[0].text}" for name, found in obstacles.items() if found)
    is_excluded = all(obstacles.values())
    report = f"; the scheduler reports: {base.scheduler_message}" if base.scheduler_message else ""
    summary = f"The pod requests no devices{report}"
    kind = next((found[0].kind for found in obstacles.values() if found), None)
    cause = Cause(str(kind)) if is_excluded and kind else None
    remedies = (remedy for found in obstacles.values() if found for remedy in found[0].remedies)
    return replace(base, cause=cause, summary=summary, details=details, actions=list_unique(remedies))
