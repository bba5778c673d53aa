"""The causes for which a resource is not available to a pod, each with a sentence and what can be changed. Pure."""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from genplug.kubectl.analysis import Cause, Holder, NodeState, ResourceState
from genplug.kubectl.objects import Node, Pod
from genplug.kubectl.obstacles import (
    ObstacleKind,
    is_extended,
)
from genplug.kubectl.reasons import AgentReasons
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


def explain_unknown(state: ResourceState, nodes: Sequence[Node], agents: Mapping[str, AgentReasons]) -> ResourceState:
    """Return the state of a resource that no node has."""
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
        f"{agent.node}: {'; '.join(describe_agent(state.name, agent))}"
        for agent in agents.values()
        if state.name in agent.withdrawn
    ]
    containers = join_names([container for container, _ in state.containers])
    actions = [f"correct the name in resources of the container {containers}: {name}" for name in similar]
    actions.append(f"add the resource {state.name} to the configuration of genplug")
    return replace(
        state, cause=Cause.UNKNOWN_RESOURCE, summary=f"{summary}.", details=tuple(details), actions=tuple(actions)
    )


def explain_no_devices(state: ResourceState, agents: Mapping[str, AgentReasons]) -> ResourceState:
    """Return the state of a resource that nodes have without a device."""
    names = [node.name for node in state.nodes]
    summary = f"No node has a device of {state.name}: {join_names(names)} {_report(names)} 0"
    notes = [(node.name, note) for node in state.nodes for note in node.notes]
    if notes:
        summary += f": {notes[0][1]}"
    details = tuple(f"{name}: {note}" for name, note in notes[1:])
    actions = [
        _status_command(agents[node.name], state.name) for node in state.nodes if _is_answer(agents.get(node.name))
    ]
    return replace(
        state,
        cause=Cause.NO_DEVICES,
        summary=f"{summary}.",
        details=details,
        actions=("connect the devices or load their driver; genplug then offers them again", *actions[:1]),
    )


def explain_too_many(state: ResourceState) -> ResourceState:
    """Return the state of a resource of which the pod requests more than any node has."""
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
    return replace(state, cause=Cause.TOO_MANY, summary=summary, actions=actions)


def explain_exclusion(state: ResourceState, nodes: Sequence[NodeState]) -> ResourceState:
    """Return the state of a resource whose nodes with enough devices are all excluded for the pod."""
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
    return replace(
        state,
        cause=Cause(_CAUSE_OF_EXCLUSION[kind]),
        summary=summary,
        actions=list_unique(
            remedy for node in ordered for obstacle in node.exclusions[:1] for remedy in obstacle.remedies
        ),
    )


def explain_unhealthy(
    state: ResourceState, nodes: Sequence[NodeState], agents: Mapping[str, AgentReasons]
) -> ResourceState:
    """Return the state of a resource of which the possible nodes have too few healthy devices."""
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
    return replace(
        state,
        cause=Cause.UNHEALTHY,
        summary=f"{summary}.",
        details=(*(line for line in lines if line not in own[:1]), *_describe_excluded(excluded)),
        actions=list_unique(actions) or (f"check the agent of {best.name}: kubectl genplug status",),
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


def explain_use(state: ResourceState, pod: Pod, nodes: Sequence[NodeState]) -> ResourceState:
    """Return the state of a resource whose devices on the possible nodes are in use."""
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
    return replace(
        state,
        cause=Cause.IN_USE,
        summary=f"{summary}.",
        details=tuple(details),
        actions=list_unique(
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


def explain_shortage(state: ResourceState, nodes: Sequence[NodeState]) -> ResourceState:
    """Return the state of a resource whose nodes with free devices lack another resource of the pod."""
    best = min(nodes, key=lambda node: len(node.shortages))
    texts = " and ".join(obstacle.text for obstacle in best.shortages)
    others = f"; so do {join_names([node.name for node in nodes if node is not best])}" if len(nodes) > 1 else ""
    summary = f"{best.name} has {best.free} free {state.name}, but it {texts}"
    if others:
        summary = f"The {len(nodes)} nodes with free {state.name} have too little else: {best.name} {texts}"
    return replace(
        state,
        cause=Cause.SHORTAGE,
        summary=f"{summary}.",
        details=tuple(
            f"{node.name} {obstacle.text}" for node in nodes if node is not best for obstacle in node.shortages
        ),
        actions=list_unique(remedy for node in nodes for obstacle in node.shortages for remedy in obstacle.remedies),
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


def describe_agent(name: str, agent: AgentReasons) -> tuple[str, ...]:
    """Return what the agent of a node reports about a resource, apart from unhealthy devices."""
    if agent.error:
        return (agent.error,)
    if name in agent.withdrawn:
        return (f"the policy of the agent {agent.pod} refuses the resource",)
    if name not in agent.resources:
        error = f"; its newest configuration is invalid: {agent.config_error}" if agent.config_error else ""
        return (f"the configuration of the agent {agent.pod} does not have the resource{error}",)
    return agent.resources[name].notes


def _is_answer(agent: AgentReasons | None) -> bool:
    return agent is not None and bool(agent.pod) and not agent.error


def _status_command(agent: AgentReasons, resource: str) -> str:
    namespace, _, pod = agent.pod.partition("/")
    return (
        f"see each device of {agent.node}: kubectl exec --namespace {namespace} {pod} -- "
        f"genplug status -o wide {resource}"
    )


def list_unique(texts: Iterable[str]) -> tuple[str, ...]:
    """Return different texts in the order of their first occurrence."""
    return tuple(dict.fromkeys(texts))


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _report(names: Sequence[str]) -> str:
    return "reports" if len(names) == 1 else "report"
