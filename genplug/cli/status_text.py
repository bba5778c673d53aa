"""The texts of ``genplug status``: the summary of the agent and the tables of resources and devices."""

from collections.abc import Iterator, Sequence

from genplug.cli.documents import JSON
from genplug.cli.output import (
    Cell,
    Painted,
    Style,
    format_json,
    format_table,
    format_yaml,
    paint,
    table_width,
    wrap_line,
)
from genplug.observe.text import describe_kept_endpoint, format_age, summarize_probes, summarize_texts
from genplug.spec.printable import escape_document, escape_line, escape_lines

_MAX_LINES = 10
"""Lines of a list above the table."""
_MAX_REMARKS = 3
"""Reasons of a resource in the table."""
_MAX_USERS = 3
"""Containers that use devices of a resource in the table."""
_FIRST_LIST = "first list"


def _escape_status(status: JSON) -> JSON:
    """Return the status with texts that can be printed: any process can be the server."""
    escaped, error = escape_document(status), str(status["config"]["error"])
    # Only the errors of a configuration have several lines.
    unready = [
        escape_lines(reason) if error and error in reason else escape_line(reason) for reason in status["unready"]
    ]
    return {**escaped, "unready": unready, "config": {**escaped["config"], "error": escape_lines(error)}}


def format_status(status: JSON, output: str, *, is_brief: bool) -> str:
    """Return a status in the format of ``-o``; brief means without resources in a table."""
    match output:
        case "json":
            return format_json(status)
        case "yaml":
            return format_yaml(status).rstrip()
        case "name":
            return "\n".join(escape_line(resource["name"]) for resource in status["resources"])
    status = _escape_status(status)
    is_wide = output == "wide"
    parts = ["\n".join(_format_line(line, is_wide=is_wide) for line in _summary_lines(status))]
    if not is_brief:
        parts.append(_format_resources(status["resources"], is_wide=is_wide))
        if dra := status.get("dra"):
            from genplug.cli.status_dra import format_dra  # noqa: PLC0415 - most agents have no driver

            parts += format_dra(dra, is_wide=is_wide)
    if is_wide and not is_brief:
        parts += [_format_devices(resource) for resource in status["resources"]]
    return "\n\n".join(part for part in parts if part)


def _format_line(line: str, *, is_wide: bool) -> str:
    text = line if is_wide else wrap_line(line)
    return paint(text, line.style) if isinstance(line, Painted) else text


def _summary_lines(status: JSON) -> Iterator[str]:
    node = f" on {status['node']}" if status["node"] else ""
    title = f"genplug {status['version']}{node}"
    yield f"{title}: ready" if status["ready"] else Painted(f"{title}: NOT READY", Style.ERROR)
    # The error of a configuration has several lines.
    yield from _cut([f"  {line}" for reason in status["unready"] for line in reason.splitlines()])
    config = status["config"]
    if config["loadedAt"] is not None:
        age = format_age(config["loadedAt"])
        yield f"configuration {config['sha256'][:12]}, active for {age}, from {', '.join(config['files'])}"
        if config["error"]:
            kept = "what the policy allows of " if config["withdrawn"] else ""
            text = f"the newest files are invalid, so {kept}the configuration above remains active:"
            yield Painted(text, Style.WARNING)
            yield from (f"  {line}" for line in config["error"].splitlines())
        yield from _cut([Painted(f"  warning: {warning}", Style.WARNING) for warning in config["warnings"]])
    yield from (Painted(f"  warning: {reason}", Style.WARNING) for reason in status["unwatched"])
    if (audit := status.get("audit")) and audit["error"]:
        yield Painted(f"  warning: audit log: {audit['error']}", Style.WARNING)
    if dra := status.get("dra"):
        from genplug.cli.status_dra import list_dra_lines  # noqa: PLC0415 - most agents have no driver

        yield from list_dra_lines(dra)
    yield from _health_lines(status["health"])


def _health_lines(health: JSON) -> Iterator[str]:
    if not health["probes"]:
        return
    hung = health["readWorkers"]["hung"] + health["callWorkers"]["hung"]
    hanging = f", {hung} hanging" if hung else ""
    yield f"probes: {health['probes']}, with {health['targets']} targets; runs: {health['runs']} completed{hanging}"
    for pool in ("readWorkers", "callWorkers"):
        if reason := health[pool]["startError"]:
            yield f"  probe workers cannot be started (failed attempts: {health[pool]['failedStarts']}): {reason}"
    yield from _cut(list(_probe_lines(health["errors"], "error", "cannot check")))
    yield from _cut(list(_probe_lines(health["warnings"], "reason", "warns about")))


def _probe_lines(entries: Sequence[JSON], key: str, verb: str) -> Iterator[str]:
    results = ((entry["resource"], entry["probe"], entry["devices"], entry[key]) for entry in entries)
    yield from (f"  {line}" for line in summarize_probes(results, verb, key))


def _cut(lines: Sequence[str]) -> Iterator[str]:
    """Yield the first lines, and the number of the others."""
    yield from lines[:_MAX_LINES]
    if len(lines) > _MAX_LINES:
        yield f"  and {len(lines) - _MAX_LINES} more; '-o json' shows all"


def _format_resources(resources: Sequence[JSON], *, is_wide: bool) -> str:
    if not resources:
        return "no resources"
    headings = ["RESOURCE", "HEALTHY", "UNHEALTHY", "IN-USE", "FREE", "REMARKS"]
    rows: list[list[Cell]] = []
    for resource in resources:
        unhealthy = str(resource["unhealthy"])
        rows.append(
            [
                resource["name"],
                str(resource["healthy"]),
                Painted(unhealthy, Style.ERROR) if resource["unhealthy"] else unhealthy,
                _count_used(resource),
                _count_free(resource),
                tuple(_remarks(resource, is_wide=is_wide)),
            ]
        )
        if is_wide:
            rows[-1][-1:-1] = [_format_registration(resource), str(resource["streams"])]
    if is_wide:
        headings[-1:-1] = ["REGISTERED", "STREAMS"]
    return format_table(headings, rows, None if is_wide else table_width())


def _count_used(resource: JSON) -> str:
    """Return the number of devices in use, or a question mark if the kubelet does not report it."""
    uses = resource["inUse"]
    return "?" if uses is None else str(len({device_id for use in uses for device_id in use["devices"]}))


def _count_free(resource: JSON) -> str:
    """Return the number of healthy devices that are not in use, or a question mark if it is not known."""
    free = resource.get("free")
    return "?" if free is None else str(free)


def _format_registration(resource: JSON) -> Cell:
    if resource["removed"]:
        return "removed"
    return "yes" if resource["registered"] else Painted("no", Style.ERROR)


def _remarks(resource: JSON, *, is_wide: bool) -> Iterator[str]:
    """Yield what an operator should know about a resource, each remark as a line."""
    is_moved = resource.get("moved") is True
    if resource["removed"] or is_moved:
        yield describe_kept_endpoint(is_moved=is_moved, pods=resource.get("keptForPods"))
    if not (resource["registered"] or resource["removed"]):
        reason = resource["reason"] or f"the kubelet has not opened a stream yet (phase {resource['phase']})"
        style = Style.FAINT if resource["hasNoInstances"] else Style.ERROR
        state = "not published" if resource["phase"] == "unpublished" else "not registered"
        yield Painted(f"{state}: {reason}", style)
    if (
        not resource["removed"]
        and resource["expected"] is not None
        and resource["healthyDevices"] < resource["expected"]
    ):
        text = f"{resource['healthyDevices']} of {resource['expected']} expected devices are healthy"
        yield Painted(text, Style.WARNING)
    reasons = summarize_texts(device["reason"] for device in resource["devices"] if device["reason"])
    notes = [*reasons, *resource["notes"]]
    yield from notes if is_wide else notes[:_MAX_REMARKS]
    if len(notes) > _MAX_REMARKS and not is_wide:
        yield f"{len(notes) - _MAX_REMARKS} more reasons with -o wide"
    if resource["inUse"] and not is_wide:
        yield f"used by {_format_users(resource['inUse'])}"
    change = resource.get("lastChange")
    # The first list is the start of the agent.
    if change is not None and (is_wide or not change["message"].startswith(_FIRST_LIST)):
        yield f"changed {format_age(change['time'])} ago: {_shorten_change(change['message'], resource)}"
    if (refusal := resource["lastRefusal"]) is not None:
        yield f"the last refused Allocate request was {format_age(refusal['time'])} ago: {refusal['message']}"


def _format_users(uses: Sequence[JSON]) -> str:
    """Return the first containers that use devices, and the number of the others."""
    users = []
    for use in uses[:_MAX_USERS]:
        ids = use["devices"]
        devices = ids[0] if len(ids) == 1 else f"{len(ids)} devices"
        users.append(f"{use['namespace']}/{use['pod']}/{use['container']} ({devices})")
    more = len(uses) - _MAX_USERS
    return ", ".join(users) + (f" and {more} more" if more > 0 else "")


def _shorten_change(message: str, resource: JSON) -> str:
    """Return the text of a change without the reasons that the remarks have already."""
    for reason in {device["reason"] for device in resource["devices"] if device["reason"]}:
        message = message.replace(f": {reason}", "")
    return message


def _format_devices(resource: JSON) -> str:
    users = {
        device_id: f"{use['namespace']}/{use['pod']}/{use['container']}"
        for use in resource["inUse"] or ()
        for device_id in use["devices"]
    }
    rows = [
        (
            device["id"],
            "healthy" if device["healthy"] else Painted("UNHEALTHY", Style.ERROR),
            format_age(device["since"]) if device["since"] is not None else "",
            users.get(device["id"], ""),
            ",".join(device["paths"]),
            device["reason"],
        )
        for device in resource["devices"]
    ]
    headings = ("DEVICE", "HEALTH", "SINCE", "USED-BY", "PATHS", "REASON")
    return f"{resource['name']}\n{format_table(headings, rows)}" if rows else ""
