"""The options that all commands of ``kubectl genplug`` have: those of kubectl, and the kubectl program."""

import argparse
import os
import sys
from collections.abc import Iterator

from genplug.kubectl.client import Kubectl
from genplug.spec.limits import MAX_KUBECTL_CALLS
from genplug.spec.printable import escape_line

KUBECTL_VARIABLE = "KUBECTL"
_MAX_SECONDS = 3600
"""The maximum of a time limit."""
_PASSED = (
    ("--kubeconfig", "FILE", "kubeconfig file (default: that of kubectl)"),
    ("--context", "NAME", "context of the kubeconfig"),
    ("--cluster", "NAME", "cluster of the kubeconfig"),
    ("--user", "NAME", "user of the kubeconfig"),
    ("--server", "URL", "address of the API server"),
    ("--as", "NAME", "user name to impersonate"),
    ("--as-uid", "UID", "user ID to impersonate"),
    ("--request-timeout", "DURATION", "time limit of a request to the API server, for example 10s (default: none)"),
)
"""Options that are passed to kubectl: name, value and description."""


NAMESPACE_HELP = "namespace of the releases (default: all namespaces)"
"""The description of ``--namespace`` for commands about agents; a command about other objects has its own."""


def add_kubectl_arguments(parser: argparse.ArgumentParser, namespace_help: str = NAMESPACE_HELP) -> None:
    """Add the options of kubectl to the parser of a command."""
    group = parser.add_argument_group("options of kubectl")
    for option, value, text in _PASSED:
        group.add_argument(option, metavar=value, dest=_destination(option), help=text)
    group.add_argument(
        "--as-group",
        metavar="NAME",
        dest=_destination("--as-group"),
        action="append",
        default=[],
        help="group to impersonate; the option can be repeated",
    )
    group.add_argument(
        "-n",
        "--namespace",
        metavar="NAME",
        help=namespace_help,
    )
    group.add_argument(
        "--kubectl",
        metavar="PATH",
        default=os.environ.get(KUBECTL_VARIABLE) or "kubectl",
        help=f"path of kubectl (default: {KUBECTL_VARIABLE} from the environment, else kubectl in PATH)",
    )
    group.add_argument(
        "--concurrency",
        metavar="N",
        type=_parse_concurrency,
        default=32,
        help="maximum number of kubectl processes at the same time (default: 32)",
    )


def build_client(arguments: argparse.Namespace) -> Kubectl:
    """Return the client for the options of :func:`add_kubectl_arguments`."""
    return Kubectl(arguments.kubectl, tuple(_passed_options(arguments)), arguments.concurrency)


def namespace_options(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the options of ``kubectl get`` for the requested namespace, or for all namespaces."""
    return (f"--namespace={arguments.namespace}",) if arguments.namespace else ("--all-namespaces",)


def print_message(command: str, text: str) -> None:
    """Print a message of one line to stderr; stdout is for the result of a command."""
    print(f"kubectl genplug {command}: {escape_line(text)}", file=sys.stderr)


def parse_seconds(text: str) -> float:
    """Return a time limit.

    Raises:
        argparse.ArgumentTypeError: the text is not a positive number, or exceeds the maximum.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"expected a number of seconds from 0 to {_MAX_SECONDS}, found {text[:40]!r}")
    return seconds


def _passed_options(arguments: argparse.Namespace) -> Iterator[str]:
    for option, _, _ in _PASSED:
        if (value := getattr(arguments, _destination(option))) is not None:
            yield f"{option}={value}"
    yield from (f"--as-group={group}" for group in getattr(arguments, _destination("--as-group")))


def _destination(option: str) -> str:
    """Return the attribute of an option; `as` is a keyword of Python, and `server` may be an option of a command."""
    return f"kubectl_{option.removeprefix('--').replace('-', '_')}"


def _parse_concurrency(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_KUBECTL_CALLS:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {MAX_KUBECTL_CALLS}, found {text[:40]!r}")
    return int(text)
