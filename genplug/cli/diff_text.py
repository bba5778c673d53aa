"""The text of ``genplug diff``: tables of resources, devices and pods for each pool and node."""

from collections.abc import Sequence

from genplug.cli.diff_document import Report, count_changes, count_devices, sort_by_urgency
from genplug.cli.output import format_table, table_width, wrap_escaped_line, wrap_line
from genplug.comparison.compare import Change, DeviceChange, ResourceChange, ValueChange
from genplug.comparison.pods import EFFECTS, AffectedPod
from genplug.observe.text import join_names

MAX_ROWS = 50
"""Rows of a table; ``-o json`` has all."""
MAX_VALUE_LENGTH = 60
"""Characters of a value in a table."""
IDS_NOTE = (
    "IDs change for the same hardware. While the agent runs, it withholds such a device until no pod uses the old ID. "
    "If the agent restarts before these pods end, the kubelet regards the devices as free: end the pods first."
)


def format_text(reports: Sequence[Report]) -> str:
    """Return the differences of all pools and nodes as text."""
    return "\n\n".join(_format_report(report, has_heading=len(reports) > 1) for report in reports)


def summarize(report: Report) -> str:
    """Return the numbers of differences as a line."""
    comparison = report.comparison
    if comparison.is_empty:
        return "no differences"
    parts = []
    if counts := count_changes(comparison.resources):
        parts.append(f"resources: {counts}")
    if comparison.new.has_node:
        counts = count_changes(comparison.devices) or "no changes"
        parts.append(f"devices: {counts} ({count_devices(comparison.old)} -> {count_devices(comparison.new)})")
    if report.pods is not None:
        pods = {(pod.use.namespace, pod.use.pod) for pod in report.pods}
        parts.append(f"affected pods: {len(pods)}")
    elif comparison.new.has_node:
        parts.append("affected pods: not known without --pods")
    if remarks := len(comparison.added_remarks):
        parts.append(f"new warnings: {remarks}")
    return "; ".join(parts) or "warnings: only fewer warnings"


def has_new_ids(report: Report) -> bool:
    """Return whether hardware gets another ID."""
    return any(change.change in {Change.RENAMED, Change.MOVED} for change in report.comparison.devices)


def describe_value_change(change: ValueChange) -> str:
    """Return a key or an edit with its values as a line."""
    if change.old is None:
        return f"+ {change.name}: {_cut(change.new or '')}" if change.new else f"+ {change.name}"
    if change.new is None:
        return f"- {change.name}: {_cut(change.old)}" if change.old else f"- {change.name}"
    return f"{change.name}: {_cut(change.old)} -> {_cut(change.new)}"


def describe_counts(change: ResourceChange) -> tuple[str, str]:
    """Return the numbers of devices and of entries in the list for the kubelet, before and after the change."""
    sides = [(len(side.devices), len(side.grants)) if side is not None else (0, 0) for side in (change.old, change.new)]
    devices, listed = zip(*sides, strict=True)
    return _arrow(*map(str, devices)), _arrow(*map(str, listed))


def describe_device(change: DeviceChange) -> tuple[str, str, str, tuple[str, ...]]:
    """Return the ID, the resource, the paths and the details of a device that differs."""
    sides = [side for side in (change.old, change.new) if side is not None]
    ids = _arrow(*(side.id for side in sides))
    resource = _arrow(*(name for name in (change.old_resource, change.new_resource) if name is not None))
    details = ["the ID belongs to other hardware"] if change.is_other_hardware else []
    paths = _arrow(*(", ".join(side.paths[:1]) + (", ..." if side.paths[1:] else "") for side in sides))
    details += [describe_value_change(edit) for edit in change.edits]
    old, new = change.old and change.old.problem, change.new and change.new.problem
    if new and new != old:
        details.append(f"unusable: {new}")
    elif old and not new and change.new is not None:
        details.append("usable; before: " + old)
    return ids, resource, paths, tuple(details)


def label_change(change: Change) -> str:
    """Return the change of a device as words."""
    return "new ID" if change is Change.RENAMED else change.value


def _format_report(report: Report, *, has_heading: bool) -> str:
    comparison = report.comparison
    parts = [report.label or "this node"] if has_heading else []
    parts.append(wrap_line(summarize(report)))
    if comparison.resources:
        parts.append(_format_resources(comparison.resources, has_node=comparison.new.has_node))
    if comparison.devices:
        rows = [_device_row(change) for change in sort_by_urgency(comparison.devices)]
        parts.append(_table(("DEVICE", "CHANGE", "RESOURCE", "PATH", "DETAILS"), rows))
    if has_new_ids(report):
        parts.append(wrap_line(IDS_NOTE))
    if report.pods:
        parts.append(_table(("POD", "CONTAINER", "RESOURCE", "DEVICES", "EFFECT"), list(map(_pod_row, report.pods))))
    remarks = [*(f"+ {text}" for text in comparison.added_remarks)]
    remarks += [f"- {text}" for text in comparison.removed_remarks]
    if remarks:
        parts.append("\n".join(["warnings:", *(wrap_escaped_line(remark) for remark in remarks[:MAX_ROWS])]))
    return "\n\n".join(parts)


def _format_resources(changes: Sequence[ResourceChange], *, has_node: bool) -> str:
    rows: list[tuple[str | tuple[str, ...], ...]] = []
    for change in changes:
        keys = list(map(describe_value_change, change.settings))
        if change.new is not None and change.new.note:
            keys.append(change.new.note)
        counts = describe_counts(change) if has_node else ()
        rows.append((change.name, change.change.value, *counts, tuple(keys)))
    counts_headings = ("DEVICES", "LISTED") if has_node else ()
    return _table(("RESOURCE", "CHANGE", *counts_headings, "KEYS"), rows)


def _device_row(change: DeviceChange) -> tuple[str | tuple[str, ...], ...]:
    ids, resource, paths, details = describe_device(change)
    return ids, label_change(change.change), resource, paths, details


def _pod_row(affected: AffectedPod) -> tuple[str, ...]:
    use = affected.use
    devices = join_names(affected.ids) if affected.is_certain else "possibly"
    return f"{use.namespace}/{use.pod}", use.container, use.resource, devices, EFFECTS[affected.effect]


def _table(headings: Sequence[str], rows: Sequence[tuple[str | tuple[str, ...], ...]]) -> str:
    table = format_table(headings, rows[:MAX_ROWS], table_width())
    more = len(rows) - MAX_ROWS
    return table + (f"\n{more} more rows with -o json" if more > 0 else "")


def _arrow(*texts: str) -> str:
    """Return a value, or the value before and after the change."""
    return " -> ".join(dict.fromkeys(texts))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[: MAX_VALUE_LENGTH - 3]}..."
