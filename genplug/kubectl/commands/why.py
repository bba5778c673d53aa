"""``kubectl genplug why``: why the kubelet refused a pod."""

import argparse
import asyncio
from typing import TYPE_CHECKING

from genplug.kubectl.options import build_client, namespace_options, print_message

if TYPE_CHECKING:
    from genplug.kubectl.client import Kubectl

DESCRIPTION = """\
Show why the kubelet refused a pod after the scheduler had chosen a node (UnexpectedAdmissionError, OutOfX,
TopologyAffinityError and others), or why a container with devices does not start: what the text of the kubelet or of
genplug means, what the node and its agent report now, and what to do. Without POD, the command lists all refused pods.
"""
EPILOG = """\
examples:
  kubectl genplug why                                     all refused pods
  kubectl genplug why --namespace ml train-0
  kubectl genplug why train-0 -o json

`genplug schema refusal` describes the keys of `-o json` and `-o yaml`.

exit codes: 0 the cause is shown, 1 the cluster cannot be queried or the pod does not exist, 2 usage error, 4 the pod
was not refused or the text is not known
"""
NAMESPACE_HELP = "namespace of the pod (default: that of the context; without POD: all namespaces)"
_NO_CAUSE = 4


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("pod", metavar="POD", nargs="?", default="", help="name of a pod")
    parser.add_argument(
        "-o", "--output", choices=("text", "json", "yaml"), default="text", help="format of the output (default: text)"
    )
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation and return the exit code."""
    from genplug.cli.output import format_json, format_yaml  # noqa: PLC0415 - --help does not need it
    from genplug.kubectl.refusal import build_refusal_document, format_refusal  # noqa: PLC0415
    from genplug.kubectl.refusal_query import explain_pod_refusal  # noqa: PLC0415

    kubectl = build_client(arguments)
    if not arguments.pod:
        if arguments.output != "text":
            arguments.usage_error(f"expected POD with -o {arguments.output}")
        return _list_all(kubectl, namespace_options(arguments))
    name = arguments.pod.removeprefix("pod/")
    if not name or "/" in name or name.startswith("-"):
        arguments.usage_error(f"expected the name of a pod, found {arguments.pod!r}")
    namespace = (f"--namespace={arguments.namespace}",) if arguments.namespace else ()
    refusal = asyncio.run(explain_pod_refusal(kubectl, namespace, name))
    if arguments.output == "json":
        print(format_json(build_refusal_document(refusal)))
    elif arguments.output == "yaml":
        print(format_yaml(build_refusal_document(refusal)), end="")
    else:
        print(format_refusal(refusal))
    return 0 if refusal.explanation else _NO_CAUSE


def _list_all(kubectl: "Kubectl", namespaces: tuple[str, ...]) -> int:
    from genplug.cli.output import format_table, table_width  # noqa: PLC0415 - see run
    from genplug.kubectl.refusal_query import list_refusals  # noqa: PLC0415

    refusals = asyncio.run(list_refusals(kubectl, namespaces))
    if not refusals:
        print_message("why", "no failed pod was refused by the kubelet")
        return 0
    rows = [(refusal.pod.namespace, refusal.pod.name, refusal.pod.node, refusal.summary) for refusal in refusals]
    print(format_table(("NAMESPACE", "POD", "NODE", "CAUSE"), rows, table_width()))
    return _NO_CAUSE if any(refusal.explanation is None for refusal in refusals) else 0
