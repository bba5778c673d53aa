"""``genplug status``: the status of the running agent, requested from its ``/statusz``."""

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from genplug import __version__
from genplug.cli.documents import JSON
from genplug.cli.options import LISTEN_VARIABLE, Address, add_color, format_address, parse_address
from genplug.cli.output import print_message, use_color
from genplug.spec.json_text import parse_json
from genplug.spec.limits import MAX_STATUS_BYTES
from genplug.spec.printable import escape_line

DESCRIPTION = """\
Show the status of the agent that runs on this node: whether it is ready, which configuration is active, and for each
resource the numbers of healthy, unhealthy, used and free devices, the containers that use them, the reasons for missing
or unhealthy devices, the last change of the device list, and the last refused allocation.
"""
EPILOG = """\
examples:
  genplug status
  genplug status -o wide nvidia.com/gpu                  each device with its health and the reason
  genplug status gpu serial                              the resources whose names contain one of these words
  genplug status --watch                                 a table that follows every change; Ctrl-C ends it
  genplug status --watch -o json                         a document on one line for each change
  genplug status --wait --timeout 2m                     wait until the agent is ready
  genplug status --brief                                 readiness and configuration, without a table
  kubectl exec --namespace genplug daemonset/genplug -- genplug status

The agent must run with --listen. It serves the same status as a page for browsers at / of that address, for clients on
the same host; from elsewhere: kubectl port-forward --namespace genplug POD 9808, then http://localhost:9808/

`genplug schema status` describes the keys of `-o json` and `-o yaml`.

exit codes: 0 ready, or the end of --watch, 1 the agent does not respond or has another version, 2 usage error or
unknown resource, 4 not ready
"""
DEFAULT_ADDRESS = "127.0.0.1:9808"
_ALL_ADDRESSES = {"", "0.0.0.0", "::"}  # noqa: S104 - hosts to replace, nothing is bound
_POLL_SECONDS = 0.5
"""Time between two requests of ``--wait``."""
_TIMEOUT_SECONDS = 5.0
"""Time limit of a request."""
_MIN_INTERVAL_SECONDS = 0.1
_UNREACHABLE, _UNKNOWN, _NOT_READY = 1, 2, 4
_FORBIDDEN = 403
_MAX_WAIT_SECONDS = 168 * 3600
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


class UnreachableError(Exception):
    """The agent does not respond as expected; the text states what was found and suggests what to do."""


@contextmanager
def expect_keys(status: JSON) -> Iterator[None]:
    """Raise UnreachableError if a status lacks what the context reads: the agent can have another version."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        found = f"the status of the agent does not have the expected form ({type(error).__name__}: {error})"
        version = (
            f"the agent has version {status.get('version', 'unknown')}, and this command has version {__version__}"
        )
        raise UnreachableError(f"{found}; {version}; run the command of the same version, or pass -o json") from None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "resources",
        metavar="RESOURCE",
        nargs="*",
        help="name of a resource to show, or a part of it, in upper or lower case; a part selects every resource whose "
        "name contains it, with its claims, and several arguments select what any of them selects (default: all "
        "resources)",
    )
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
    add_color(parser)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--wait", action="store_true", help="wait until the agent responds and is ready")
    modes.add_argument(
        "--watch",
        action="store_true",
        help="show every change until Ctrl-C, also while the agent restarts; without a terminal, print a table or "
        "document for each change",
    )
    parser.add_argument(
        "--interval",
        metavar="DURATION",
        type=_parse_interval,
        default="2s",
        help="time between two requests of --watch, at least 100ms (default: 2s)",
    )
    parser.add_argument(
        "--timeout",
        metavar="DURATION",
        type=_parse_duration,
        default="60s",
        help="time limit of --wait, for example 90s, 1m30s or a number of seconds (default: 60s)",
    )
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Print the status and return the exit code."""
    from genplug.cli.status_text import format_status  # noqa: PLC0415 - --help does not need it

    use_color(arguments.color)
    if arguments.watch:
        return _watch(arguments)
    try:
        status = _wait_until_ready(arguments) if arguments.wait else fetch_status(arguments.address)
        with expect_keys(status):
            error_text = selection_error(status, arguments.resources)
            selected = select_resources(status, arguments.resources)
            text = "" if error_text else format_status(selected, arguments.output, is_brief=arguments.brief)
    except UnreachableError as error:
        print_message("status", str(error))
        return _UNREACHABLE
    if error_text:
        print_message("status", error_text)
        return _UNKNOWN
    print(text)
    return 0 if status.get("ready") is True else _NOT_READY


def _watch(arguments: argparse.Namespace) -> int:
    from genplug.cli.status_watch import StatusWatch  # noqa: PLC0415 - only --watch needs it

    if arguments.output == "name":
        arguments.usage_error("--watch: expected -o table, wide, json or yaml, found -o name")
    watch = StatusWatch(arguments.output, arguments.interval, is_brief=arguments.brief)
    try:
        while watch.has_reader():
            error_text = ""
            try:
                status = fetch_status(arguments.address)
                with expect_keys(status):
                    # A resource that was selected once can be removed and return.
                    error_text = "" if watch.has_status else selection_error(status, arguments.resources)
                    if not error_text:
                        watch.show(select_resources(status, arguments.resources))
            except UnreachableError as error:
                watch.show_error(str(error))
            if error_text:
                watch.close()
                print_message("status", error_text)
                return _UNKNOWN
            watch.wait()
    except KeyboardInterrupt:
        pass
    finally:
        watch.close()
    return 0


def select_resources(status: JSON, words: Sequence[str]) -> JSON:
    """Return a status with the resources that any of the words selects; all without words.

    The state of the driver of Dynamic Resource Allocation is that of the agent, and is not selected.
    """
    if not words:
        return status
    names = _list_names(status)
    selected = {name for word in words for name in find_names(word, names)}
    resources = [resource for resource in status["resources"] if resource["name"] in selected]
    if not (dra := status.get("dra")):
        return {**status, "resources": resources}
    published = [resource for resource in dra["resources"] if resource["resource"] in selected]
    claims = [claim for claim in dra["claims"] if any(device["resource"] in selected for device in claim["devices"])]
    return {**status, "resources": resources, "dra": {**dra, "resources": published, "claims": claims}}


def _list_names(status: JSON) -> list[str]:
    """Return the names of all resources. A claim can have devices of a resource that was removed."""
    dra = status.get("dra") or {"resources": (), "claims": ()}
    claimed = (device["resource"] for claim in dra["claims"] for device in claim["devices"])
    published = (resource["resource"] for resource in dra["resources"])
    return [*dict.fromkeys((*(resource["name"] for resource in status["resources"]), *published, *claimed))]


def find_names(word: str, names: Sequence[str]) -> list[str]:
    """Return the name that equals a word, or else the names that contain it, in upper or lower case."""
    if word in names:
        return [word]
    return [name for name in names if word.lower() in name.lower()]


def selection_error(status: JSON, words: Sequence[str]) -> str:
    """Return which words select no resource, with the closest name and all names; empty if each of them selects one."""
    names = _list_names(status)
    unknown = [word for word in words if not find_names(word, names)]
    if not unknown:
        return ""
    from genplug.config.schema import did_you_mean  # noqa: PLC0415 - only an error needs it

    closest = (did_you_mean(word, (*names, *(name.rpartition("/")[2] for name in names))) for word in unknown)
    found = "; ".join((*filter(None, closest), f"the agent has {', '.join(names) or 'no resources'}"))
    return f"no resource has {' or '.join(map(repr, unknown))} in its name; {found}"


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
            text = response.read(MAX_STATUS_BYTES + 1).decode(errors="replace")
    except (OSError, HTTPException, ValueError) as error:
        hint = "check that the agent runs on this node with --listen, or pass its address with --address"
        raise UnreachableError(f"no response from {url}: {error}; {hint}") from None
    if response.status == _FORBIDDEN:
        hint = f"run this command on the node of the agent with --address 127.0.0.1:{port}"
        listen = f"the agent must listen there: --listen 127.0.0.1:{port} or --listen :{port}"
        raise UnreachableError(f"{url} responds only to requests from the loopback address; {hint} ({listen})")
    status = decode_status(text) if len(text) <= MAX_STATUS_BYTES else None
    if status is None:
        raise UnreachableError(
            f"unexpected response from {url}, which is not a genplug agent: {response.status} {text[:100].strip()}"
        )
    return status


def decode_status(text: str) -> JSON | None:
    """Return the document of ``/statusz`` in a text, or None if the text is another."""
    try:
        status = parse_json(text)
    except ValueError:
        return None
    return status if isinstance(status, dict) and "resources" in status else None


def _parse_duration(text: str) -> float:
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+|\d+(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected a duration, for example 90s or 1m30s, found {text!r}")
    seconds = sum(float(count) * _UNIT_SECONDS[unit] for count, unit in re.findall(r"([\d.]+)(ms|s|m|h|)", text))
    if seconds > _MAX_WAIT_SECONDS:
        hours = _MAX_WAIT_SECONDS // 3600
        raise argparse.ArgumentTypeError(f"expected a duration of at most {hours}h, found {text[:40]!r}")
    return seconds


def _parse_interval(text: str) -> float:
    seconds = _parse_duration(text)
    if seconds < _MIN_INTERVAL_SECONDS:
        raise argparse.ArgumentTypeError(f"expected a duration of at least 100ms, found {text[:40]!r}")
    return seconds


def _wait_until_ready(arguments: argparse.Namespace) -> JSON:
    """Request the status until the agent is ready or the time is over; print the reasons whenever they change."""
    deadline = time.monotonic() + arguments.timeout
    printed = ""
    while True:
        status: JSON | None = None
        try:
            status = fetch_status(arguments.address)
            with expect_keys(status):
                reason = "" if status["ready"] else "; ".join(status["unready"])
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
