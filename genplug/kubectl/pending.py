"""Why a pod waits: the analysis of a pod, the nodes, the pods that hold devices, and what agents report.

All functions are pure: the command reads the objects, and :mod:`genplug.kubectl.pending_text` formats the result.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from fractions import Fraction

from attrs import evolve, field, frozen

from genplug.kubectl.objects import DEFAULT_SCHEDULER, Node, Pod
from genplug.kubectl.obstacles import (
    Amounts,
    Obstacle,
    ObstacleKind,
    find_exclusions,
    find_shortages,
    is_extended,
    parse_amounts,
    sum_requests,
)
from genplug.kubectl.reasons import NO_REASONS, AgentReasons, DeviceFailure
from genplug.observe.text import join_names

_MAX_SIMILAR = 3
_SIMILARITY = 0.6
"""The ratio of difflib from which two resource names count as similar."""
_CAUSE_OF_EXCLUSION = {
    ObstacleKind.CORDONED: "cordoned",
    ObstacleKind.NOT_READY: "notReady",
    ObstacleKind.TAINT: "taint",
    ObstacleKind.NODE_SELECTOR: "nodeSelector",
    ObstacleKind.NODE_AFFINITY: "nodeAffinity",
}
_EXCLUSION_TEXTS = {
    ObstacleKind.CORDONED: "cordoned",
    ObstacleKind.NOT_READY: "not ready",
    ObstacleKind.TAINT: "with a taint that the pod does not tolerate",
    ObstacleKind.NODE_SELECTOR: "that the nodeSelector of the pod excludes",
    ObstacleKind.NODE_AFFINITY: "that the nodeAffinity of the pod excludes",
}


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


@frozen
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


@frozen
class Holder:
    """A pod that holds devices of a resource."""

    use: PodUse
    count: int
    is_preemptible: bool
    """Whether the scheduler may end the pod in favor of the pod that waits."""


@frozen
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


@frozen
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


@frozen
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
    requests: Mapping[str, int] = field(factory=dict)
    """The extended resources that the pod requests."""


@frozen
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
        return evolve(state, requests=requests)
    uses_by_node: dict[str, list[PodUse]] = {}
    for use in uses:
        is_other = (use.namespace, use.name) != (pod.namespace, pod.name)
        # A reservation for a pod with a lower priority does not prevent scheduling.
        if is_other and not (use.is_nominated and use.priority < pod.priority):
            uses_by_node.setdefault(use.node, []).append(use)
    situation = _Situation(pod, sum_requests(pod), nodes, uses_by_node, agents or {})
    states = tuple(_analyze_resource(situation, name, count) for name, count in requests.items())
    return evolve(_conclude(situation, states), requests=requests)


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


def find_similar(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the names that are most similar to a name, most similar first.

    The parts before and after the last slash are compared separately: a common domain does not make names similar, and
    a resource with another domain can be the intended resource.
    """
    domain, _, suffix = name.lower().rpartition("/")
    scores: dict[str, tuple[float, float]] = {}
    for candidate in known:
        other_domain, _, other_suffix = candidate.lower().rpartition("/")
        scores[candidate] = (
            difflib.SequenceMatcher(None, suffix, other_suffix).ratio(),
            difflib.SequenceMatcher(None, domain, other_domain).ratio(),
        )
    similar = [
        candidate
        for candidate, (suffixes, domains) in scores.items()
        if suffixes == 1 or min(suffixes, domains) >= _SIMILARITY
    ]
    return tuple(sorted(similar, key=scores.__getitem__, reverse=True)[:_MAX_SIMILAR])


def count_noun(count: int, noun: str) -> str:
    """Return a number with a noun: ``1 device``, ``2 devices``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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
        return _explain_unknown(state, situation.nodes, agents)
    if not any(node.capacity for node in states):
        return _explain_no_devices(state, agents)
    if requested > max(node.capacity for node in states):
        return _explain_too_many(state)
    sufficient = [node for node in states if node.capacity >= requested]
    eligible = [node for node in sufficient if not node.exclusions]
    if not eligible:
        return _explain_exclusion(state, sufficient)
    healthy = [node for node in eligible if node.healthy >= requested]
    if not healthy:
        return _explain_unhealthy(state, eligible, agents)
    if not any(node.has_enough for node in healthy):
        return _explain_use(state, pod, healthy)
    if all(node.shortages for node in healthy if node.has_enough):
        return _explain_shortage(state, [node for node in healthy if node.has_enough])
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
        notes=_describe_agent(name, agent) if agent else (),
    )


def _describe_agent(name: str, agent: AgentReasons) -> tuple[str, ...]:
    """Return what the agent of a node reports about a resource, apart from unhealthy devices."""
    if agent.error:
        return (agent.error,)
    if name in agent.withdrawn:
        return (f"the policy of the agent {agent.pod} refuses the resource",)
    if name not in agent.resources:
        error = f"; its newest configuration is invalid: {agent.config_error}" if agent.config_error else ""
        return (f"the configuration of the agent {agent.pod} does not have the resource{error}",)
    return agent.resources[name].notes


def _sum_uses(uses: Iterable[PodUse]) -> dict[str, Fraction]:
    total: dict[str, Fraction] = {}
    for use in uses:
        for name, amount in use.requests.items():
            total[name] = total.get(name, Fraction(0)) + amount
    return total


def _explain_unknown(state: ResourceState, nodes: Sequence[Node], agents: Mapping[str, AgentReasons]) -> ResourceState:
    owners: dict[str, list[str]] = {}
    for node in nodes:
        for name in filter(is_extended, node.capacity):
            owners.setdefault(name, []).append(node.name)
    similar = find_similar(state.name, owners)
    summary = f"No node has the resource {state.name}"
    if similar:
        summary += f"; did you mean {similar[0]}, which {join_names(owners[similar[0]])} {_has(owners[similar[0]])}"
    elif owners:
        summary += f"; the nodes have {join_names(sorted(owners))}"
    details = [
        f"{agent.node}: the agent has {state.name}, and does not offer it: "
        f"{'; '.join(agent.resources[state.name].notes) or 'it has not registered it with the kubelet'}"
        for agent in agents.values()
        if state.name in agent.resources
    ]
    details += [
        f"{agent.node}: {'; '.join(_describe_agent(state.name, agent))}"
        for agent in agents.values()
        if state.name in agent.withdrawn
    ]
    containers = join_names([container for container, _ in state.containers])
    actions = [f"correct the name in resources of the container {containers}: {name}" for name in similar]
    actions.append(f"add the resource {state.name} to the configuration of genplug")
    return evolve(
        state, cause=Cause.UNKNOWN_RESOURCE, summary=f"{summary}.", details=tuple(details), actions=tuple(actions)
    )


def _explain_no_devices(state: ResourceState, agents: Mapping[str, AgentReasons]) -> ResourceState:
    names = [node.name for node in state.nodes]
    summary = f"No node has a device of {state.name}: {join_names(names)} {_report(names)} 0"
    notes = [(node.name, note) for node in state.nodes for note in node.notes]
    if notes:
        summary += f": {notes[0][1]}"
    details = tuple(f"{name}: {note}" for name, note in notes[1:])
    actions = [
        _status_command(agents[node.name], state.name) for node in state.nodes if _is_answer(agents.get(node.name))
    ]
    return evolve(
        state,
        cause=Cause.NO_DEVICES,
        summary=f"{summary}.",
        details=details,
        actions=("connect the devices or load their driver; genplug then offers them again", *actions[:1]),
    )


def _explain_too_many(state: ResourceState) -> ResourceState:
    largest = max(node.capacity for node in state.nodes)
    names = [node.name for node in state.nodes if node.capacity == largest]
    total = sum(count for _, count in state.containers)
    parts = ", ".join(f"{name} {count}" for name, count in state.containers)
    containers = f" (containers: {parts})" if total > state.containers[0][1] else ""
    summary = (
        f"The pod requests {state.requested} {state.name}{containers}, and no node has more than {largest} "
        f"({join_names(names)})."
    )
    actions = (
        f"request at most {largest} {state.name} in a pod; more pods can use more devices",
        "add devices to a node",
    )
    return evolve(state, cause=Cause.TOO_MANY, summary=summary, actions=actions)


def _explain_exclusion(state: ResourceState, nodes: Sequence[NodeState]) -> ResourceState:
    # The scheduler counts the first obstacle of a node.
    kinds = Counter(node.exclusions[0].kind for node in nodes)
    kind = kinds.most_common(1)[0][0]
    best = max(nodes, key=lambda node: (node.has_enough, node.free))
    free = f"{best.free} free" if best.free else f"{best.capacity}"
    if len(nodes) == 1:
        first, *others = (obstacle.text for obstacle in best.exclusions)
        more = f"; it also {' and '.join(others)}" if others else ""
        summary = f"{best.name} has {free} {state.name}, but it {first}{more}."
    else:
        texts = []
        for found, count in kinds.most_common():
            names = [node.name for node in nodes if node.exclusions[0].kind is found]
            texts.append(f"{count} {_EXCLUSION_TEXTS[found]} ({join_names(names)})")
        summary = f"The {len(nodes)} nodes with enough {state.name} are excluded: {', '.join(texts)}."
    ordered = sorted(nodes, key=lambda node: (not node.has_enough, len(node.exclusions)))
    return evolve(
        state,
        cause=Cause(_CAUSE_OF_EXCLUSION[kind]),
        summary=summary,
        actions=_unique(remedy for node in ordered for obstacle in node.exclusions[:1] for remedy in obstacle.remedies),
    )


def _explain_unhealthy(
    state: ResourceState, nodes: Sequence[NodeState], agents: Mapping[str, AgentReasons]
) -> ResourceState:
    best = max(nodes, key=lambda node: node.healthy)
    summary = (
        f"The pod requests {state.requested} {state.name}, and only {best.healthy} of {best.capacity} on {best.name} "
        f"{'is' if best.healthy == 1 else 'are'} healthy"
    )
    lines = [line for node in nodes for line in describe_failures(node)]
    own = describe_failures(best)
    if own:
        summary += f": {own[0].removeprefix(f'{best.name}: ')}"
    actions = [
        f"repair {failure.id} on {node.name}: {failure.reason}" for node in nodes for failure in node.failures[:1]
    ]
    actions += [_status_command(agents[node.name], state.name) for node in nodes if _is_answer(agents.get(node.name))]
    if best.healthy and best.free >= best.healthy:
        actions.append(f"request at most {best.healthy} {state.name} in a pod")
    excluded = _list_excluded(state)
    actions += [remedy for node in excluded for remedy in node.exclusions[0].remedies[:1]]
    return evolve(
        state,
        cause=Cause.UNHEALTHY,
        summary=f"{summary}.",
        details=(*(line for line in lines if line not in own[:1]), *_describe_excluded(excluded)),
        actions=_unique(actions) or (f"check the agent of {best.name}: kubectl genplug status",),
    )


def describe_failures(node: NodeState) -> list[str]:
    """Return a line for each reason of unhealthy devices of a node, and for what the agent reports otherwise."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for failure in node.failures:
        by_reason.setdefault((failure.reason, failure.since), []).append(failure.id)
    lines = [
        f"{node.name}: {join_names(ids)}: {reason or 'no reason'}{f' (since {since})' if since else ''}"
        for (reason, since), ids in by_reason.items()
    ]
    return [*lines, *(f"{node.name}: {note}" for note in node.notes)]


def _explain_use(state: ResourceState, pod: Pod, nodes: Sequence[NodeState]) -> ResourceState:
    holders = [holder for node in nodes for holder in node.holders]
    best = max(nodes, key=lambda node: node.free)
    total = sum(node.healthy for node in nodes)
    names = join_names([_describe_holder(holder) for holder in holders])
    where = join_names([node.name for node in nodes])
    if best.free:
        verb = "is" if best.free == 1 else "are"
        summary = (
            f"The pod requests {state.requested} {state.name}, and at most {best.free} {verb} free on a node "
            f"({best.name}); in use: {names}"
        )
    elif total == 1:
        summary = f"The only {state.name} that the pod can use, on {where}, is in use: {names}"
    else:
        summary = f"All {total} {state.name} that the pod can use, on {where}, are in use: {names}"
    excluded = _list_excluded(state)
    details = _describe_excluded(excluded)
    broken = [node for node in state.nodes if node.healthy < node.capacity]
    details += [line for node in broken for line in describe_failures(node)]
    return evolve(
        state,
        cause=Cause.IN_USE,
        summary=f"{summary}.",
        details=tuple(details),
        actions=_unique(
            (
                *_list_preemption_actions(pod, holders),
                *(remedy for node in excluded for remedy in node.exclusions[0].remedies[:1]),
                *(
                    f"repair {failure.id} on {node.name}: {failure.reason}"
                    for node in broken
                    for failure in node.failures
                ),
                *(
                    f"end a pod that holds devices: kubectl delete pod --namespace {holder.use.namespace} "
                    f"{holder.use.name}"
                    for holder in holders[:1]
                ),
            )
        ),
    )


def _list_excluded(state: ResourceState) -> list[NodeState]:
    """Return the nodes with enough free devices that are not possible for the pod."""
    return [node for node in state.nodes if node.exclusions and node.has_enough]


def _describe_excluded(nodes: Iterable[NodeState]) -> list[str]:
    return [f"{node.name} has {node.free} free, but it {node.exclusions[0].text}" for node in nodes]


def _list_preemption_actions(pod: Pod, holders: Sequence[Holder]) -> Iterator[str]:
    deleted = [holder.use.full_name for holder in holders if holder.use.deleted]
    if deleted:
        yield f"wait until {join_names(deleted)} {'is' if len(deleted) == 1 else 'are'} deleted: the deletion has begun"
    preemptible = [holder.use.full_name for holder in holders if holder.is_preemptible and not holder.use.deleted]
    if preemptible:
        yield f"wait: the scheduler can preempt {join_names(preemptible)}, with a lower priority than {pod.priority}"
    else:
        if not deleted:
            yield "wait until a pod that holds devices ends"
        lower = [holder.use.full_name for holder in holders if holder.use.priority < pod.priority]
        if lower and pod.preemption_policy == "Never":
            yield (f"let the pod preempt {join_names(lower)}: use a priority class without preemptionPolicy: Never")
        elif holders:
            lowest = min(holder.use.priority for holder in holders)
            yield f"give the pod a priority class with a value above {lowest}, so that it preempts a pod"


def _describe_holder(holder: Holder) -> str:
    use = holder.use
    state = ", being deleted" if use.deleted else ", reserved" if use.is_nominated else ""
    return f"{use.full_name} ({holder.count}, priority {use.priority}{state})"


def _explain_shortage(state: ResourceState, nodes: Sequence[NodeState]) -> ResourceState:
    best = min(nodes, key=lambda node: len(node.shortages))
    texts = " and ".join(obstacle.text for obstacle in best.shortages)
    others = f"; so do {join_names([node.name for node in nodes if node is not best])}" if len(nodes) > 1 else ""
    summary = f"{best.name} has {best.free} free {state.name}, but it {texts}"
    if others:
        summary = f"The {len(nodes)} nodes with free {state.name} have too little else: {best.name} {texts}"
    return evolve(
        state,
        cause=Cause.SHORTAGE,
        summary=f"{summary}.",
        details=tuple(
            f"{node.name} {obstacle.text}" for node in nodes if node is not best for obstacle in node.shortages
        ),
        actions=_unique(remedy for node in nodes for obstacle in node.shortages for remedy in obstacle.remedies),
    )


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
        return evolve(base, cause=Cause.VOLUME, summary=summary, details=details, actions=(action,))
    if blocking:
        first, *others = blocking
        return evolve(
            base,
            cause=first.cause,
            summary=first.summary,
            details=(*first.details, *(text for state in others for text in (state.summary, *state.details))),
            actions=_unique(action for state in blocking for action in state.actions),
        )
    if not situation.nodes:
        return evolve(base, cause=Cause.NOT_READY, summary="The cluster has no node.", actions=("add a node",))
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
        return evolve(base, cause=Cause.NO_COMMON_NODE, summary=summary, actions=(action,))
    if not base.resources:
        return _explain_without_devices(situation, base)
    names = join_names(sorted(set.intersection(*possible)))
    report = f"; the scheduler reports: {base.scheduler_message}" if base.scheduler_message else ""
    if base.not_evaluated:
        summary = f"{names} has all requested devices, so another rule of the pod prevents scheduling: "
        summary += f"{join_names(base.not_evaluated)}{report}"
        return evolve(base, summary=summary, actions=("read the message of the scheduler",))
    summary = f"{names} has all requested devices, and no evaluated rule excludes it{report}"
    action = "wait a minute, because the cluster may have changed just now, and run the command again"
    return evolve(base, summary=summary, actions=(action, "read the message of the scheduler"))


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
    return evolve(base, cause=cause, summary=summary, details=details, actions=_unique(remedies))


def _is_answer(agent: AgentReasons | None) -> bool:
    return agent is not None and bool(agent.pod) and not agent.error


def _status_command(agent: AgentReasons, resource: str) -> str:
    namespace, _, pod = agent.pod.partition("/")
    return (
        f"see each device of {agent.node}: kubectl exec --namespace {namespace} {pod} -- "
        f"genplug status -o wide {resource}"
    )


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _report(names: Sequence[str]) -> str:
    return "reports" if len(names) == 1 else "report"
