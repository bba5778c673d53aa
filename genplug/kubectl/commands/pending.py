"""``kubectl genplug pending``: why a pod waits for devices."""

import argparse
import asyncio
import time
from typing import TYPE_CHECKING

from genplug.kubectl.options import build_client, print_message

if TYPE_CHECKING:
    from genplug.kubectl.analysis import Analysis

DESCRIPTION = """\
Show why a pod waits for devices: for each resource that it requests, which nodes have it, and why the pod cannot have
it there. POD is a pod, or a workload as TYPE/NAME: a ResourceQuota refuses the creation of pods, so that only the
workload exists. Without POD, the command lists all pods that request extended resources and wait.
"""
EPILOG = """\
examples:
  kubectl genplug pending                                 each waiting pod with its cause
  kubectl genplug pending --namespace ml train-0
  kubectl genplug pending deployment/web                  also if the API server refuses its pods
  kubectl genplug pending train-0 -o json

The command reads pods, nodes and events. It asks agents only for the reasons of missing and unhealthy devices.

`genplug schema pending` describes the keys of `-o json` and `-o yaml`.

exit codes: 0 the causes are shown, 1 the cluster cannot be queried or the pod does not exist, 2 usage error, 4 a pod
waits and no cause was found
"""
NAMESPACE_HELP = "namespace of the pod (default: that of the context; without POD: all namespaces)"
_NO_CAUSE = 4


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("pod", metavar="POD", nargs="?", default="", help="name of a pod, or TYPE/NAME of a workload")
    parser.add_argument(
        "-o", "--output", choices=("text", "json", "yaml"), default="text", help="format of the output (default: text)"
    )
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Print the analysis and return the exit code."""
    from genplug.cli.output import format_json, format_yaml  # noqa: PLC0415 - --help does not need it
    from genplug.kubectl.pending_text import build_document, format_analysis, format_list  # noqa: PLC0415

    explained = asyncio.run(_explain(arguments))
    analyses = [analysis for analysis, _ in explained]
    if arguments.output == "json":
        print(format_json(build_document(analyses)))
    elif arguments.output == "yaml":
        print(format_yaml(build_document(analyses)), end="")
    elif arguments.pod:
        print(format_analysis(analyses[0], time.time()))
    elif analyses:
        ages = [created for _, created in explained]
        print(format_list(analyses, ages, time.time(), with_namespace=not arguments.namespace))
    else:
        print_message("pending", "no pod that requests extended resources waits")
    return _NO_CAUSE if any(analysis.cause is None for analysis in analyses) else 0


async def _explain(arguments: argparse.Namespace) -> "list[tuple[Analysis, str]]":
    from genplug.kubectl.pending_query import KINDS, explain_all, explain_pod, explain_workload  # noqa: PLC0415

    kubectl = build_client(arguments)
    if not arguments.pod:
        return await explain_all(kubectl, arguments.namespace or "")
    namespace = (f"--namespace={arguments.namespace}",) if arguments.namespace else ()
    kind, separator, name = arguments.pod.rpartition("/")
    resource = KINDS.get(kind.lower().partition(".")[0]) if separator else "pod"
    if resource is None or not name or name.startswith("-"):
        kinds = ", ".join(sorted({known.partition(".")[0] for known in KINDS.values()}))
        arguments.usage_error(f"expected POD or TYPE/NAME with a TYPE of {kinds}; found {arguments.pod!r}")
    if resource == "pod":
        return [await explain_pod(kubectl, namespace, name)]
    return [await explain_workload(kubectl, namespace, str(resource), name)]
