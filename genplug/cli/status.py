"""``genplug status``: the status of the running agent, requested from its ``/statusz``."""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any

from genplug.cli.options import LISTEN_VARIABLE, Address, format_address, parse_address
from genplug.cli.output import format_json, format_table, format_yaml, print_message, table_width, wrap_line
from genplug.observe.text import summarize_probes, summarize_texts
from genplug.spec.printable import escape_document, escape_line, escape_lines

DESCRIPTION = """\
Show the status of the agent that runs on this node: whether it is ready, which configuration is active, and for each
resource its registration, the number of its devices, and the reasons for missing or unhealthy devices.
"""
EPILOG = """\
examples:
  genplug status
  genplug status -o wide nvidia.com/gpu                  each device with its health and the reason
  genplug status --wait --timeout 2m                     wait until the agent is ready
  genplug status --brief                                 readiness and configuration, without a table
  kubectl exec --namespace genplug daemonset/genplug -- genplug status

The agent must run with --listen.

`genplug schema status` describes the keys of `-o json` and `-o yaml`.

exit codes: 0 ready, 1 the agent does not respond, 2 usage error or unknown resource, 4 not ready
"""
DEFAULT_ADDRESS = "127.0.0.1:9808"
_ALL_ADDRESSES = {"", "0.0.0.0", "::"}  # noqa: S104 - hosts to replace, nothing is bound
_POLL_SECONDS = 0.5
"""Time between two requests of ``--wait``."""
_TIMEOUT_SECONDS = 5.0
"""Time limit of a request."""
_MAX_LINES = 10
"""Lines of a list above the table."""
_MAX_REMARKS = 3
"""Reasons of a resource in the table."""
_UNREACHABLE, _UNKNOWN, _NOT_READY = 1, 2, 4
_FORBIDDEN = 403
_MAX_WAIT_SECONDS = 168 * 3600
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}

JSON = Mapping[str, Any]
"""A document of ``/statusz``, or an object in it; ``schemas/status.schema.json`` describes the keys."""


class UnreachableError(Exception):
    """The agent does not respond; the text names the address and suggests what to do."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("resources", metavar="RESOURCE", nargs="*", help="resources to show (default: all)")
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        type=parse_address,
        default=os.environ.get(LISTEN_VARIABLE) or DEFAULT_ADDRESS,
        help=f"address of the agent (default: {LISTEN_VARIABLE} from the environment, else {DEFAULT_ADDRESS})",
    )
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "wide", "json", "yaml", "name"),
        default="table",
        help="format of the output (default: table)",
    )
    parser.add_argument("--brief", action="store_true", help="show only the readiness and the active configuration")
    parser.add_argument("--wait", action="store_true", help="wait until the agent responds and is ready")
    parser.add_argument(
        "--timeout",
        metavar="DURATION",
        type=_parse_duration,
        default="60s",
        help="time limit of --wait, for example 90s, 1m30s or a number of seconds (default: 60s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the status and return the exit code."""
    try:
        status = _wait_until_ready(arguments) if arguments.wait else fetch_status(arguments.address)
    except UnreachableError as error:
        print_message("status", str(error))
        return _UNREACHABLE
    known = [resource["name"] for resource in status["resources"]]
    if unknown := [name for name in arguments.resources if name not in known]:
        print_message("status", f"unknown resource {', '.join(unknown)}; the agent has {', '.join(known) or 'none'}")
        return _UNKNOWN
    shown = [
        resource
        for resource in status["resources"]
        if not arguments.resources or resource["name"] in arguments.resources
    ]
    print(_format_status({**status, "resources": shown}, arguments.output, brief=arguments.brief))
    return 0 if status["ready"] else _NOT_READY


def fetch_status(address: Address) -> JSON:
    """Return the document that the agent serves on an address; an address for all hosts means this host.

    Raises:
        UnreachableError: no agent responds on the address.
    """
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - takes 20 ms, and --help does not need it

    host, port = address
    host = "127.0.0.1" if host in _ALL_ADDRESSES else host
    url = f"http://{format_address((host, port))}/statusz"
    try:
        with closing(HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)) as connection:
            connection.request("GET", "/statusz")
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
    except (OSError, HTTPException, ValueError) as error:
        hint = "check that the agent runs on this node with --listen, or pass its address with --address"
        raise UnreachableError(f"no response from {url}: {error}; {hint}") from None
    if response.status == _FORBIDDEN:
        hint = f"run this command on the node of the agent with --address 127.0.0.1:{port}"
        listen = f"the agent must listen there: --listen 127.0.0.1:{port} or --listen :{port}"
        raise UnreachableError(f"{url} responds only to requests from the loopback address; {hint} ({listen})")
    try:
        status = json.loads(text)
    except ValueError:
        status = None
    if not isinstance(status, dict) or "resources" not in status:
        raise UnreachableError(
            f"unexpected response from {url}, which is not a genplug agent: {response.status} {text[:100].strip()}"
        )
    return status


def _parse_duration(text: str) -> float:
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+|\d+(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected a duration, for example 90s or 1m30s, found {text!r}")
    seconds = sum(float(count) * _UNIT_SECONDS[unit] for count, unit in re.findall(r"([\d.]+)(ms|s|m|h|)", text))
    if seconds > _MAX_WAIT_SECONDS:
        hours = _MAX_WAIT_SECONDS // 3600
        raise argparse.ArgumentTypeError(f"expected a duration of at most {hours}h, found {text[:40]!r}")
    return seconds


def _wait_until_ready(arguments: argparse.Namespace) -> JSON:
    """Request the status until the agent is ready or the time is over; print the reasons whenever they change."""
    deadline = time.monotonic() + arguments.timeout
    printed = ""
    while True:
        status: JSON | None = None
        try:
            status = fetch_status(arguments.address)
            reason = "; ".join(status["unready"])
        except UnreachableError as error:
            if time.monotonic() >= deadline:
                raise
            reason = str(error)
        if status is not None and (status["ready"] or time.monotonic() >= deadline):
            return status
        if reason != printed:
            print(f"waiting: {escape_line(reason)}", file=sys.stderr, flush=True)
            printed = reason
        time.sleep(max(0.0, min(_POLL_SECONDS, deadline - time.monotonic())))


def _escape_status(status: JSON) -> JSON:
    """Return the status with texts that can be printed: any process can be the server."""
    escaped, error = escape_document(status), str(status["config"]["error"])
    # Only the errors of a configuration have several lines.
    unready = [
        escape_lines(reason) if error and error in reason else escape_line(reason) for reason in status["unready"]
    ]
    return {**escaped, "unready": unready, "config": {**escaped["config"], "error": escape_lines(error)}}


def _format_status(status: JSON, output: str, *, brief: bool) -> str:
    match output:
        case "json":
            return format_json(status)
        case "yaml":
            return format_yaml(status).rstrip()
        case "name":
            return "\n".join(escape_line(resource["name"]) for resource in status["resources"])
    status = _escape_status(status)
    is_wide = output == "wide"
    lines = _summary_lines(status)
    parts = ["\n".join(lines if is_wide else map(wrap_line, lines))]
    if not brief:
        parts.append(_format_resources(status["resources"], is_wide=is_wide))
    if is_wide and not brief:
        parts += [_format_devices(resource) for resource in status["resources"]]
    return "\n\n".join(part for part in parts if part)


def _summary_lines(status: JSON) -> Iterator[str]:
    node = f" on {status['node']}" if status["node"] else ""
    yield f"genplug {status['version']}{node}: {'ready' if status['ready'] else 'NOT READY'}"
    # The error of a configuration has several lines.
    yield from _cut([f"  {line}" for reason in status["unready"] for line in reason.splitlines()])
    config = status["config"]
    if config["loadedAt"] is not None:
        age = _format_age(config["loadedAt"])
        yield f"configuration {config['sha256'][:12]}, active for {age}, from {', '.join(config['files'])}"
        if config["error"]:
            kept = "what the policy allows of " if config["withdrawn"] else ""
            yield f"the newest files are invalid, so {kept}the configuration above remains active:"
            yield from (f"  {line}" for line in config["error"].splitlines())
        yield from _cut([f"  warning: {warning}" for warning in config["warnings"]])
    yield from (f"  warning: {reason}" for reason in status["unwatched"])
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
    rows = [
        (
            resource["name"],
            str(resource["healthy"]),
            str(resource["unhealthy"]),
            _format_use(resource),
            _format_registration(resource),
            str(resource["streams"]),
            tuple(_remarks(resource, is_wide=is_wide)),
        )
        for resource in resources
    ]
    headings = ("RESOURCE", "HEALTHY", "UNHEALTHY", "IN-USE", "REGISTERED", "STREAMS", "REMARKS")
    return format_table(headings, rows, None if is_wide else table_width())


def _format_use(resource: JSON) -> str:
    """Return the number of devices in use, or a question mark if the kubelet does not report it."""
    uses = resource["inUse"]
    return "?" if uses is None else str(len({device_id for use in uses for device_id in use["devices"]}))


def _format_registration(resource: JSON) -> str:
    if resource["removed"]:
        return "removed"
    return "yes" if resource["registered"] else "no"


def _remarks(resource: JSON, *, is_wide: bool) -> Iterator[str]:
    """Yield what an operator should know about a resource, each remark as a line."""
    if resource["removed"]:
        yield "removed from the configuration; served until no pod uses it"
    elif not resource["registered"]:
        yield resource["reason"] or f"the kubelet has not opened a stream yet (phase {resource['phase']})"
    if (
        not resource["removed"]
        and resource["expected"] is not None
        and resource["healthyDevices"] < resource["expected"]
    ):
        yield f"{resource['healthyDevices']} of {resource['expected']} expected devices are healthy"
    if (refusal := resource["lastRefusal"]) is not None:
        yield f"the last refused Allocate request was {_format_age(refusal['time'])} ago: {refusal['message']}"
    reasons = summarize_texts(device["reason"] for device in resource["devices"] if device["reason"])
    notes = [*reasons, *resource["notes"]]
    yield from notes if is_wide else notes[:_MAX_REMARKS]
    if len(notes) > _MAX_REMARKS and not is_wide:
        yield f"{len(notes) - _MAX_REMARKS} more reasons with -o wide"


def _format_devices(resource: JSON) -> str:
    users = {
        device_id: f"{use['namespace']}/{use['pod']}/{use['container']}"
        for use in resource["inUse"] or ()
        for device_id in use["devices"]
    }
    rows = [
        (
            device["id"],
            "healthy" if device["healthy"] else "UNHEALTHY",
            _format_age(device["since"]) if device["since"] is not None else "",
            users.get(device["id"], ""),
            ",".join(device["paths"]),
            device["reason"],
        )
        for device in resource["devices"]
    ]
    headings = ("DEVICE", "HEALTH", "SINCE", "USED-BY", "PATHS", "REASON")
    return f"{resource['name']}\n{format_table(headings, rows)}" if rows else ""


def _format_age(time_text: str) -> str:
    """Return the time since a time in RFC 3339, like kubectl: its two largest units, for example ``3h25m``."""
    left = max(int(time.time() - datetime.fromisoformat(time_text).timestamp()), 0)
    words: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not words):
            words.append(f"{count}{unit}")
    return "".join(words[:2])
