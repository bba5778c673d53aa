"""The status of all agents as text: a summary, a table of the pools, and a table of the nodes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from genplug.cli.output import Cell, Painted, Style, format_table, paint, table_width, wrap_line
from genplug.kubectl.agent_status import AgentState, Counts, ResourceStatus, Source
from genplug.kubectl.fleet import FleetStatus, NodeStatus, PoolStatus
from genplug.observe.text import count_noun, join_names
from genplug.spec.printable import escape_line

Titles: TypeAlias = Mapping[tuple[str, str], str]
"""The titles of pools by their keys."""
_MAX_REMARKS = 2
"""Remarks of a row without ``-o wide``."""
_INVALID_CONFIG = "the newest configuration is invalid"
_HASH_CHARACTERS = 12
_STATES = {
    AgentState.NOT_READY: "not ready",
    AgentState.UNREACHABLE: "unreachable",
    AgentState.MISSING: "missing",
}


def format_fleet(fleet: FleetStatus, *, is_wide: bool) -> str:
    """Return the status as text; with `is_wide`, without limits of the width and of lists."""
    titles = pool_titles(fleet)
    lines = [_summary(fleet), *(f"  {line}" for line in _problem_lines(fleet, titles, is_wide=is_wide))]
    width = None if is_wide else table_width()
    parts = ["\n".join(lines if is_wide else map(wrap_line, lines))]
    parts += [_format_pools(fleet, titles, width), _format_nodes(fleet, titles, width)]
    return "\n\n".join(part for part in parts if part)


def pool_titles(fleet: FleetStatus) -> Titles:
    """Return a unique title of each pool: its name, or its namespace and DaemonSet if several pools have the name."""
    names = Counter(pool.name for pool in fleet.pools)
    return {
        pool.key: pool.name if names[pool.name] == 1 else f"{pool.namespace}/{pool.daemon_set}" for pool in fleet.pools
    }


def _summary(fleet: FleetStatus) -> str:
    nodes = [node for _, node in fleet.nodes]
    states = Counter(node.agent for node in nodes)
    states[AgentState.MISSING] += sum(pool.unlocated for pool in fleet.pools)
    others = "".join(f", {states[state]} {text}" for state, text in _STATES.items() if states[state])
    names = {node.node for node in nodes}
    unready = len({node.node for node in nodes if node.is_ready is False})
    ready = paint("ready", Style.GOOD) if fleet.is_ready else paint("NOT READY", Style.ERROR)
    answers = sum(node.has_answered for node in nodes)
    return (
        f"{count_noun(len(names), 'node')}{f' ({unready} not ready)' if unready else ''} in "
        f"{count_noun(len(fleet.pools), 'pool')}: {ready}; agents: {states[AgentState.READY]} ready{others}; "
        f"{answers} of {sum(states.values())} responded"
    )


def _problem_lines(fleet: FleetStatus, titles: Titles, *, is_wide: bool) -> Iterator[str]:
    for pool in fleet.pools:
        title = escape_line(titles[pool.key])
        for state, text in _STATES.items():
            names = [node.node for node in pool.nodes if node.agent is state]
            if names:
                yield f"{title}: {count_noun(len(names), 'agent')} {text}: {_join(names, is_wide=is_wide)}"
        if pool.unlocated:
            yield f"{title}: {count_noun(pool.unlocated, 'agent')} missing on nodes that are not known"
        if any(not node.pod for node in pool.nodes) or pool.unlocated:
            command = f"kubectl describe daemonset --namespace {pool.namespace} {pool.daemon_set}"
            yield f"{title}: '{escape_line(command)}' shows why pods are not created"
        if unready := [node.node for node in pool.nodes if node.is_ready is False]:
            yield f"{title}: {count_noun(len(unready), 'node')} not ready: {_join(unready, is_wide=is_wide)}"
        for text, names in _group_node_errors(pool):
            yield f"{title}: {_join(names, is_wide=is_wide)}: {escape_line(text)}"
        if others := [f"{node.node} ({_describe_config(node)})" for node in pool.nodes if pool.has_other_config(node)]:
            usual = escape_line(pool.config_sha256[:_HASH_CHARACTERS])
            yield f"{title}: configuration differs from that of the pool ({usual}): {_join(others, is_wide=is_wide)}"
        if others := [f"{node.node} ({node.version})" for node in pool.nodes if pool.has_other_version(node)]:
            usual = escape_line(pool.version)
            yield f"{title}: version differs from that of the pool ({usual}): {_join(others, is_wide=is_wide)}"
    yield from (f"note: {escape_line(note)}" for note in fleet.notes)


def _format_pools(fleet: FleetStatus, titles: Titles, width: int | None) -> str:
    is_wide = width is None
    rows: list[Sequence[Cell]] = []
    for pool in fleet.pools:
        known = [node for node in pool.nodes if node.is_ready is not None]
        ready = sum(node.is_ready is True for node in known)
        agents = sum(node.agent is AgentState.READY for node in pool.nodes)
        start: list[Cell] = [
            titles[pool.key],
            f"{ready}/{len(known)}" if known else "?",
            f"{agents}/{len(pool.nodes) + pool.unlocated}",
        ]
        if is_wide:
            start += [pool.namespace, pool.daemon_set, pool.version or "?"]
            start += [pool.config_sha256[:_HASH_CHARACTERS] or "?"]
        resources: Mapping[str, Counts | None] = pool.resources or {"-": None}
        rows += [[*start, name, *_format_counts(counts)] for name, counts in resources.items()]
    headings = ["POOL", "NODES", "AGENTS"]
    headings += ["NAMESPACE", "DAEMONSET", "VERSION", "CONFIG"] if is_wide else []
    headings += ["RESOURCE", "HEALTHY", "UNHEALTHY", "IN-USE", "FREE"]
    return format_table(headings, rows, width) if rows else ""


def _format_nodes(fleet: FleetStatus, titles: Titles, width: int | None) -> str:
    is_wide = width is None
    rows: list[Sequence[Cell]] = []
    for pool, node in fleet.nodes:
        state: Cell = node.agent if node.agent is AgentState.READY else Painted(node.agent, Style.ERROR)
        start: list[Cell] = [titles[pool.key], node.node, state]
        if is_wide:
            start += [node.pod or "-", node.version or "?", node.config.sha256[:_HASH_CHARACTERS] or "?"]
        remarks = list(_node_remarks(pool, node))
        resources: Sequence[ResourceStatus | None] = node.resources or (None,)
        for position, resource in enumerate(resources):
            # The remarks about the node are in its first row.
            texts = [*(remarks if position == 0 else ()), *(resource.remarks if resource is not None else ())]
            row: list[Cell] = [*start, resource.name if resource is not None else "-"]
            row += _format_counts(resource.counts if resource is not None else None)
            rows.append([*row, tuple(texts if is_wide else _cut(texts))])
    headings = ["POOL", "NODE", "AGENT"]
    headings += ["POD", "VERSION", "CONFIG"] if is_wide else []
    headings += ["RESOURCE", "HEALTHY", "UNHEALTHY", "IN-USE", "FREE", "REMARKS"]
    return format_table(headings, rows, width) if rows else ""


def _group_node_errors(pool: PoolStatus) -> Iterator[tuple[str, list[str]]]:
    """Yield the errors of the agents of a pool with the names of the nodes: an edit has the same error on all nodes."""
    groups: dict[str, list[str]] = {}
    for node in pool.nodes:
        texts = [*node.reasons] if node.agent is AgentState.NOT_READY else []
        if node.config.error and node.config.error not in "".join(node.reasons):
            texts.append(f"{_INVALID_CONFIG}: {node.config.error}")
        for text in texts:
            # An error of a configuration has several lines: the first has the location.
            groups.setdefault(text.strip().partition("\n")[0], []).append(node.node)
    yield from groups.items()


def _node_remarks(pool: PoolStatus, node: NodeStatus) -> Iterator[str]:
    # The errors of agents are above the table.
    yield from node.reasons if node.agent is not AgentState.NOT_READY else ()
    if node.is_ready is False and node.unready_reason not in "".join(node.reasons):
        yield f"the node is not ready: {node.unready_reason}"
    if not node.has_answered and any(resource.source is Source.NODE for resource in node.resources):
        yield "the numbers are those of the Kubernetes node"
    if pool.has_other_config(node):
        yield f"configuration {_describe_config(node)} differs from that of the pool"
    if pool.has_other_version(node):
        yield f"version {node.version} differs from that of the pool"
    if node.config.error:
        yield _INVALID_CONFIG


def _describe_config(node: NodeStatus) -> str:
    own = f" with {node.config.own_file}" if node.config.own_file else ""
    return f"{node.config.sha256[:_HASH_CHARACTERS]}{own}"


def _format_counts(counts: Counts | None) -> list[Cell]:
    if counts is None:
        return ["-"] * 4
    unhealthy: Cell = Painted(str(counts.unhealthy), Style.ERROR) if counts.unhealthy else "0"
    return [
        str(counts.healthy),
        unhealthy,
        *("?" if number is None else str(number) for number in (counts.in_use, counts.free)),
    ]


def _cut(remarks: Sequence[str]) -> Iterator[str]:
    yield from remarks[:_MAX_REMARKS]
    if len(remarks) > _MAX_REMARKS:
        yield f"{len(remarks) - _MAX_REMARKS} more with -o wide"


def _join(names: Sequence[str], *, is_wide: bool) -> str:
    return escape_line(", ".join(names) if is_wide else join_names(names))
