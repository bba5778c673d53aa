"""The Markdown of ``genplug diff``, for the comment of a pull request: a table of all pools, and collapsed details."""

import re
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from genplug.bundle.redaction import Redactor, is_secret_name
from genplug.cli.diff_document import Report, count_changes, count_devices, sort_by_urgency
from genplug.cli.diff_text import (
    IDS_NOTE,
    MAX_ROWS,
    describe_counts,
    describe_device,
    describe_value_change,
    has_new_ids,
    label_change,
    summarize,
)
from genplug.comparison.compare import DeviceChange, ValueChange
from genplug.comparison.pods import EFFECTS
from genplug.observe.text import join_names
from genplug.spec.printable import escape_line, escape_markdown

MAX_CHARACTERS = 60_000
"""Characters of the text; a comment of GitHub has at most 65 536."""
_ENDS_CODE = re.compile(r"[`|\\]")
_MARKUP = re.compile(r"[^\w $()+,./:=-]|_")


def format_markdown(reports: Sequence[Report]) -> str:
    """Return the differences of all pools and nodes as GitHub Flavored Markdown."""
    lines = ["### Effect of the configuration change", ""]
    lines += _format_table(("Pool", "Node", "Resources", "Devices", "Affected pods"), map(_summary_row, reports))
    if any(map(has_new_ids, reports)):
        lines += ["", f"**{IDS_NOTE.partition('. ')[0]}.** {IDS_NOTE.partition('. ')[2]}"]
    size = sum(map(len, lines))
    different = [report for report in reports if not report.comparison.is_empty]
    for number, report in enumerate(different):
        details = "\n".join(_format_details(report))
        size += len(details)
        if size > MAX_CHARACTERS:
            lines += ["", f"The details of {len(different) - number} comparisons are left out; `-o json` has them."]
            break
        lines += ["", details]
    return "\n".join(lines)


def code(text: str) -> str:
    """Return a text as inline code in a cell of a table; it contains neither markup nor the end of the cell.

    The syntax of backticks cannot contain every text: in a table, a backslash before a bar changes its meaning
    (GitHub Flavored Markdown Spec, section 4.10). Other texts are HTML with character references.
    """
    text = escape_line(text)
    if not text:
        return ""
    if not _ENDS_CODE.search(text):
        return f"`{text}`"
    return f"<code>{_MARKUP.sub(lambda match: f'&#{ord(match[0])};', text)}</code>"


def _hide_secrets(change: ValueChange) -> ValueChange:
    """Return a change without secrets: more people read a comment than may read the configuration of the node."""
    if is_secret_name(change.name):
        marker = "[removed: secret name]"
        is_new = change.old is not None and change.new is not None and change.new != change.old
        new_marker = f"{marker}, another value" if is_new else marker
        return replace(change, old=change.old and marker, new=change.new and new_marker)
    redactor = Redactor()
    old, new = (text and redactor.redact_text("", text) for text in (change.old, change.new))
    return replace(change, old=old, new=new)


def _hide_device_secrets(change: DeviceChange) -> DeviceChange:
    return replace(change, edits=tuple(map(_hide_secrets, change.edits)))


def _summary_row(report: Report) -> tuple[str, ...]:
    comparison = report.comparison
    resources = count_changes(comparison.resources) or "no changes"
    devices = "not compared"
    if comparison.new.has_node:
        old, new = count_devices(comparison.old), count_devices(comparison.new)
        changes = count_changes(comparison.devices)
        devices = (f"{old}" if old == new else f"{old} → {new}") + (f" ({changes})" if changes else "")
    pods = "not known" if report.pods is None else str(len({(pod.use.namespace, pod.use.pod) for pod in report.pods}))
    return code(report.pool), code(report.node), resources, devices, pods


def _format_details(report: Report) -> Iterator[str]:
    comparison = report.comparison
    heading = ": ".join(filter(None, (report.label, summarize(report))))
    yield from ("<details>", f"<summary>{_escape_html(heading)}</summary>", "")
    has_node = comparison.new.has_node
    if comparison.resources:
        headings = ("Resource", "Change", *(("Devices", "Listed") if has_node else ()), "Keys")
        rows = []
        for change in comparison.resources:
            keys = [code(describe_value_change(_hide_secrets(key))) for key in change.settings]
            note = [escape_markdown(change.new.note)] if change.new is not None and change.new.note else []
            counts = tuple(text.replace("->", "→") for text in describe_counts(change)) if has_node else ()
            rows.append((code(change.name), change.change.value, *counts, "<br>".join(keys + note)))
        yield from (*_format_table(headings, rows), "")
    if comparison.devices:
        rows = []
        for device in sort_by_urgency(comparison.devices):
            ids, resource, paths, details = describe_device(_hide_device_secrets(device))
            lines = "<br>".join(map(code, details))
            rows.append((code(ids), label_change(device.change), code(resource), code(paths), lines))
        yield from (*_format_table(("Device", "Change", "Resource", "Path", "Details"), rows), "")
    if report.pods:
        rows = []
        for pod in report.pods:
            names = code(f"{pod.use.namespace}/{pod.use.pod}"), code(pod.use.container), code(pod.use.resource)
            devices = code(join_names(pod.ids)) if pod.is_certain else "possibly"
            rows.append((*names, devices, EFFECTS[pod.effect]))
        yield from (*_format_table(("Pod", "Container", "Resource", "Devices", "Effect"), rows), "")
    remarks = [("new", text) for text in comparison.added_remarks]
    remarks += [("no longer", text) for text in comparison.removed_remarks]
    if remarks:
        rows = [(state, code(text)) for state, text in remarks]
        yield from (*_format_table(("Warning", "Text"), rows), "")
    yield "</details>"


def _format_table(headings: Sequence[str], rows: "Sequence[Sequence[str]] | Iterator[Sequence[str]]") -> Iterator[str]:
    """Yield the lines of a table, at most :data:`MAX_ROWS` rows."""
    listed = list(rows)
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    yield from (f"| {' | '.join(row)} |" for row in listed[:MAX_ROWS])
    if len(listed) > MAX_ROWS:
        yield f"| {len(listed) - MAX_ROWS} more rows with `-o json` |{' |' * (len(headings) - 1)}"


def _escape_html(text: str) -> str:
    return escape_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
