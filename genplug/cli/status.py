"""``genplug status``: what the agent of this node does now, asked of its own page, ``/statusz``."""

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

from genplug.cli.tables import table

DESCRIPTION = """\
Show what the running agent of this node does: whether it is ready, which configuration is in force, which resources
the kubelet knows, how many devices each has, and why there are not more.
"""
EPILOG = """\
examples:
  genplug status
  genplug status -o wide nvidia.com/gpu                  each device with its health and the reason
  genplug status --wait --timeout 2m                     until the agent is ready
  genplug status --brief                                 ready or not, why, and the configuration: no table
  kubectl exec --namespace genplug daemonset/genplug -- genplug status

The agent must run with --listen. -o json is for programs: its keys stay.
exit codes: 0 ready, 1 the agent cannot be reached, 2 wrong usage or no such resource, 4 not ready
"""
DEFAULT_ADDRESS = "127.0.0.1:9808"
_LISTEN = "GENPLUG_LISTEN"
_WILDCARDS = {"", "0.0.0.0", "::"}  # noqa: S104 - addresses to replace, nothing is bound
_PAUSE = 0.5
"""Seconds between two questions of ``--wait``."""
_DEADLINE = 5.0
_UNREACHABLE, _UNKNOWN, _NOT_READY = 1, 2, 4
_FORBIDDEN = 403
_MAX_NAMED = 3
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}

Address = tuple[str, int]
JSON = Mapping[str, Any]
"""The document of ``/statusz``; see :class:`genplug.observe.status.Status`."""


class UnreachableError(Exception):
    """No agent answers; the text says where it was looked for and what to do."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("resources", metavar="RESOURCE", nargs="*", help="show only these (default: all)")
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        type=_address,
        default=os.environ.get(_LISTEN) or DEFAULT_ADDRESS,
        help=f"what the agent listens on (default: {_LISTEN} of the environment, else {DEFAULT_ADDRESS})",
    )
    parser.add_argument(
        "-o", "--output", choices=("table", "wide", "json", "yaml", "name"), default="table", help="(default: table)"
    )
    parser.add_argument(
        "--brief", action="store_true", help="say only whether it is ready, why not, and what is in force"
    )
    parser.add_argument("--wait", action="store_true", help="wait until the agent answers and is ready")
    parser.add_argument(
        "--timeout",
        metavar="DURATION",
        type=_duration,
        default="60s",
        help="how long --wait waits at most, e.g. 90s, 1m30s, or plain seconds (default: 60s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the status and return the exit code."""
    try:
        status = _wait_until_ready(arguments) if arguments.wait else ask(arguments.address)
    except UnreachableError as error:
        print(f"genplug status: {error}", file=sys.stderr)
        return _UNREACHABLE
    known = [one["name"] for one in status["resources"]]
    if unknown := [name for name in arguments.resources if name not in known]:
        has = f"it has {', '.join(known)}" if known else "it has none"
        print(f"genplug status: the agent has no resource {', '.join(unknown)}; {has}", file=sys.stderr)
        return _UNKNOWN
    shown = [one for one in status["resources"] if not arguments.resources or one["name"] in arguments.resources]
    print(_printed({**status, "resources": shown}, arguments.output, brief=arguments.brief))
    return 0 if status["ready"] else _NOT_READY


def ask(address: Address) -> JSON:
    """Ask the agent that listens on an address; one that means every host is asked on this one.

    Raises:
        UnreachableError: no agent answers there.
    """
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - --help does not need it: 20 ms

    host, port = address
    host = "127.0.0.1" if host in _WILDCARDS else host
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}/statusz"
    try:
        with closing(HTTPConnection(host, port, timeout=_DEADLINE)) as connection:
            connection.request("GET", "/statusz")
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
    except (OSError, HTTPException, ValueError) as error:
        hint = "is the agent running on this node, and with --listen? --address says where to look instead"
        raise UnreachableError(f"no answer from {where} ({error}); {hint}") from None
    if answer.status == _FORBIDDEN:
        hint = f"ask at 127.0.0.1:{port} on its own host, and let it listen there: --listen 127.0.0.1:{port} or :{port}"
        raise UnreachableError(f"{where} tells callers by the loopback address only; {hint}")
    try:
        status = json.loads(text)
    except ValueError:
        status = None
    if not isinstance(status, dict) or "resources" not in status:
        raise UnreachableError(f"what answers at {where} is no genplug: {answer.status} {text[:100].strip()}")
    return status


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write HOST:PORT, for example {DEFAULT_ADDRESS} ({_LISTEN} is taken where the flag is not given)"
        )
    return host.strip("[]"), int(port)


def _duration(text: str) -> float:
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+|\d+(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r}: write a length of time, for example 90s or 1m30s")
    return sum(float(count) * _UNITS[unit] for count, unit in re.findall(r"([\d.]+)(ms|s|m|h|)", text))


def _wait_until_ready(arguments: argparse.Namespace) -> JSON:
    """Ask until the agent is ready or the time is over; what is waited for is told when it changes."""
    deadline = time.monotonic() + arguments.timeout
    told = ""
    while True:
        status: JSON | None = None
        try:
            status = ask(arguments.address)
            waits_for = "; ".join(status["unready"])
        except UnreachableError as error:
            if time.monotonic() >= deadline:
                raise
            waits_for = str(error)
        if status is not None and (status["ready"] or time.monotonic() >= deadline):
            return status
        if waits_for != told:
            print(f"waiting: {waits_for}", file=sys.stderr, flush=True)
            told = waits_for
        time.sleep(max(0.0, min(_PAUSE, deadline - time.monotonic())))


def _printed(status: JSON, output: str, *, brief: bool) -> str:
    match output:
        case "json":
            return json.dumps(status, indent=2)
        case "yaml":
            import yaml  # noqa: PLC0415 - only this output needs it

            return str(yaml.safe_dump(status, sort_keys=False)).rstrip()
        case "name":
            return "\n".join(one["name"] for one in status["resources"])
    parts = ["\n".join(_summary(status))]
    if not brief:
        parts.append(_resources(status["resources"]))
    if output == "wide" and not brief:
        parts += [_devices(one) for one in status["resources"]]
    return "\n\n".join(part for part in parts if part)


def _summary(status: JSON) -> Iterator[str]:
    node = f" on {status['node']}" if status["node"] else ""
    yield f"genplug {status['version']}{node}: {'ready' if status['ready'] else 'NOT READY'}"
    yield from (f"  {reason}" for reason in status["unready"])
    config = status["config"]
    if config["loadedAt"] is not None:
        age = _since(config["loadedAt"])
        yield f"configuration {config['sha256'][:12]}, in force for {age}, from {', '.join(config['files'])}"
        if config["error"]:
            yield "the newest files were refused, and what is above stays in force:"
            yield from (f"  {line}" for line in config["error"].splitlines())
    yield from _health(status["health"])


def _health(health: JSON) -> Iterator[str]:
    if not health["probes"]:
        return
    hung = health["readWorkers"]["hung"] + health["callWorkers"]["hung"]
    hanging = f"; {hung} hang" if hung else ""
    yield f"{health['probes']} probes ask {health['targets']} questions, {health['runs']} answers so far{hanging}"
    for trouble in health["errors"]:
        devices = trouble["devices"]
        more = f" and {len(devices) - _MAX_NAMED} more" if len(devices) > _MAX_NAMED else ""
        named = ", ".join(devices[:_MAX_NAMED]) + more
        yield f"  {trouble['resource']}: probe {trouble['probe']} cannot look at {named}: {trouble['error']}"


def _resources(resources: Sequence[JSON]) -> str:
    if not resources:
        return "no resources"
    rows = [
        (
            one["name"],
            str(one["healthy"]),
            str(one["unhealthy"]),
            _registration(one),
            str(one["streams"]),
            "; ".join(_remarks(one)),
        )
        for one in resources
    ]
    return table(("RESOURCE", "HEALTHY", "UNHEALTHY", "REGISTERED", "STREAMS", "REMARKS"), rows)


def _registration(resource: JSON) -> str:
    if resource["removed"]:
        return "leaving"
    return "yes" if resource["registered"] else "no"


def _remarks(resource: JSON) -> Iterator[str]:
    if resource["removed"]:
        yield "no longer in the configuration; it answers until the last pod that uses it is gone"
    elif not resource["registered"]:
        yield resource["reason"] or f"the kubelet does not listen yet ({resource['phase']})"
    yield from resource["notes"]
    faults = sorted({device["reason"] for device in resource["devices"] if not device["healthy"] and device["reason"]})
    yield from faults[:1]
    if len(faults) > 1:
        yield f"{len(faults) - 1} more reasons with -o wide"


def _devices(resource: JSON) -> str:
    rows = [
        (
            device["id"],
            "healthy" if device["healthy"] else "UNHEALTHY",
            _since(device["since"]),
            ",".join(device["paths"]),
            device["reason"],
        )
        for device in resource["devices"]
    ]
    heads = ("DEVICE", "HEALTH", "SINCE", "PATHS", "REASON")
    return f"{resource['name']}\n{table(heads, rows)}" if rows else ""


def _since(at: str | None) -> str:
    return _age(time.time() - datetime.fromisoformat(at).timestamp()) if at else ""


def _age(seconds: float) -> str:
    """Say a length of time as kubectl does: its two largest units."""
    left = max(int(seconds), 0)
    words: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not words):
            words.append(f"{count}{unit}")
    return "".join(words[:2])
