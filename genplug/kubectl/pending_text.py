"""The analysis of a pod as text for an operator and as a document."""

import re
from collections.abc import Iterator, Sequence

from genplug.cli.output import Cell, format_table, table_width, wrap_escaped_line
from genplug.kubectl.analysis import Analysis, Holder, NodeState, ResourceState
from genplug.kubectl.causes import describe_failures
from genplug.observe.text import format_age

_MAX_ROWS = 20
"""Nodes of a table; the JSON document has all of them."""
_MAX_HOLDERS = 5
"""Holders of a node in a table."""
_MAX_LINES = 10
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


def format_analysis(analysis: Analysis, now: float) -> str:
    """Return the answer, then a table of the nodes for each resource, then what can be changed.

    ``now`` is in seconds since the epoch.
    """
    answer = wrap_escaped_line(f"{analysis.namespace}/{analysis.name}: {analysis.summary}")
    parts = ["\n".join([answer, *_cut([f"  {detail}" for detail in analysis.details])])]
    parts += [_format_resource(resource, now) for resource in analysis.resources if resource.nodes]
    if analysis.actions:
        parts.append("\n".join(["what you can change:", *_cut([f"  {action}" for action in analysis.actions])]))
    if analysis.not_evaluated:
        parts.append(wrap_escaped_line(f"not evaluated here: {', '.join(analysis.not_evaluated)}"))
    if analysis.scheduler_message:
        parts.append(wrap_escaped_line(f"scheduler: {analysis.scheduler_message}"))
    return "\n\n".join(parts)


def format_list(analyses: Sequence[Analysis], ages: Sequence[str], now: float, *, with_namespace: bool) -> str:
    """Return a table with a line for each pod that waits."""
    rows: list[tuple[Cell, ...]] = []
    for analysis, created in zip(analyses, ages, strict=True):
        requests = tuple(f"{count} {name}" for name, count in analysis.requests.items())
        row: tuple[Cell, ...] = (analysis.name, format_age(created, now), requests, analysis.summary)
        rows.append((analysis.namespace, *row) if with_namespace else row)
    headings = ("POD", "AGE", "REQUESTS", "CAUSE")
    return format_table(("NAMESPACE", *headings) if with_namespace else headings, rows, table_width())


def build_document(analyses: Sequence[Analysis]) -> dict[str, object]:
    """Return the document for ``-o json``; ``schemas/pending.schema.json`` describes it."""
    return {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "PendingReport",
        "items": [_analysis_as_json(analysis) for analysis in analyses],
    }


def _analysis_as_json(analysis: Analysis) -> dict[str, object]:
    return {
        "target": {"kind": analysis.kind, "namespace": analysis.namespace, "name": analysis.name},
        "cause": None if analysis.cause is None else str(analysis.cause),
        "summary": analysis.summary,
        "details": list(analysis.details),
        "actions": list(analysis.actions),
        "requests": [{"name": name, "requested": count} for name, count in analysis.requests.items()],
        "resources": [_resource_as_json(resource) for resource in analysis.resources],
        "schedulerMessage": analysis.scheduler_message,
        "notEvaluated": list(analysis.not_evaluated),
    }


def _resource_as_json(resource: ResourceState) -> dict[str, object]:
    return {
        "name": resource.name,
        "requested": resource.requested,
        "containers": [{"name": name, "requested": count} for name, count in resource.containers],
        "cause": None if resource.cause is None else str(resource.cause),
        "nodes": [_node_as_json(node) for node in resource.nodes],
    }


def _node_as_json(node: NodeState) -> dict[str, object]:
    return {
        "name": node.name,
        "capacity": node.capacity,
        "healthy": node.healthy,
        "inUse": node.in_use,
        "free": node.free,
        "possible": node.is_possible,
        "obstacles": [
            {"kind": str(obstacle.kind), "text": obstacle.text} for obstacle in (*node.exclusions, *node.shortages)
        ],
        "unhealthy": [
            {"id": failure.id, "reason": failure.reason, "since": _read_time(failure.since)}
            for failure in node.failures
        ],
        "notes": list(node.notes),
        "holders": [_holder_as_json(holder) for holder in node.holders],
    }


def _holder_as_json(holder: Holder) -> dict[str, object]:
    return {
        "namespace": holder.use.namespace,
        "pod": holder.use.name,
        "devices": holder.count,
        "priority": holder.use.priority,
        "created": _read_time(holder.use.created),
        "deleted": _read_time(holder.use.deleted),
        "reserved": holder.use.is_nominated,
        "preemptible": holder.is_preemptible,
    }


def _format_resource(resource: ResourceState, now: float) -> str:
    ordered = sorted(
        resource.nodes, key=lambda node: (not node.is_possible, len(node.exclusions), -node.free, -node.capacity)
    )
    rows: list[tuple[Cell, ...]] = [
        (
            node.name,
            str(node.capacity),
            str(node.healthy),
            str(node.in_use),
            tuple(_list_reasons(node, now)) or ("possible",),
        )
        for node in ordered[:_MAX_ROWS]
    ]
    table = format_table(("NODE", "HAS", "HEALTHY", "IN-USE", "WHY-NOT"), rows, table_width())
    more = len(ordered) - _MAX_ROWS
    rest = [f"and {more} more nodes; see -o json"] if more > 0 else []
    return "\n".join([wrap_escaped_line(f"{resource.name}, {resource.requested} requested"), table, *rest])


def _list_reasons(node: NodeState, now: float) -> Iterator[str]:
    yield from (obstacle.text for obstacle in (*node.exclusions, *node.shortages))
    if node.capacity < node.requested:
        yield f"has {node.capacity}, and the pod requests {node.requested}"
    prefix = f"{node.name}: "
    if node.healthy < node.capacity or not node.capacity:
        lines = [line.removeprefix(prefix) for line in describe_failures(node)]
        yield from lines or (["unhealthy devices"] if node.healthy < node.capacity else [])
    if not node.has_enough and node.capacity >= node.requested:
        yield from (_describe_holder(holder, now) for holder in node.holders[:_MAX_HOLDERS])
        if (more := len(node.holders) - _MAX_HOLDERS) > 0:
            yield f"in use by {more} more pods"


def _describe_holder(holder: Holder, now: float) -> str:
    use = holder.use
    words = [f"priority {use.priority}", f"for {format_age(use.created, now)}"]
    words += ["being deleted"] * bool(use.deleted) + ["reserved by the scheduler"] * use.is_nominated
    words += ["can be preempted"] * (holder.is_preemptible and not use.deleted)
    return f"{holder.count} in use by {use.full_name} ({', '.join(words)})"


def _cut(lines: Sequence[str]) -> list[str]:
    shown = list(map(wrap_escaped_line, lines[:_MAX_LINES]))
    return [*shown, f"  and {len(lines) - _MAX_LINES} more; see -o json"] if len(lines) > _MAX_LINES else shown


def _read_time(text: str) -> str | None:
    """Return a time in the form of the documents, or None for any other text."""
    return text if _TIME.fullmatch(text) else None
