"""``kubectl genplug status``: the agents and devices of all nodes."""

import argparse
import asyncio
from dataclasses import replace

from genplug.cli.options import add_color
from genplug.cli.output import format_json, format_yaml, use_color
from genplug.kubectl.client import Kubectl
from genplug.kubectl.discovery import Cluster, discover_cluster
from genplug.kubectl.fleet import FleetStatus, build_fleet
from genplug.kubectl.fleet_document import build_document
from genplug.kubectl.fleet_query import query_agents
from genplug.kubectl.fleet_text import format_fleet
from genplug.kubectl.objects import POOL_LABEL
from genplug.kubectl.options import build_client, namespace_options, parse_seconds, print_message
from genplug.kubectl.progress import ProgressBar

DESCRIPTION = """\
Show the agents and devices of all nodes of a cluster: the totals of each pool, then a line for each node and resource.
The command names nodes without an agent, agents that do not respond, and agents whose configuration or version differs
from that of their pool. It lists DaemonSets, pods and nodes with your kubectl, and runs `genplug status` in the pod of
each agent. Without the right to run programs in pods, the numbers are those of the Kubernetes nodes.
"""
EPILOG = """\
examples:
  kubectl genplug status
  kubectl genplug status gpu                             resources whose names contain a word
  kubectl genplug status --pool gpu -o wide              all remarks, versions and configurations of a pool
  kubectl genplug status -l topology.kubernetes.io/zone=a
  kubectl genplug status -o json | jq -r '.pools[].nodes[] | select(.agent.state != "Ready") | .name'

`genplug schema fleet-status` describes the keys of `-o json` and `-o yaml`.

exit codes: 0 all agents and nodes are ready, 1 the cluster cannot be queried, 2 usage error or unknown resource, pool
or node, 4 an agent or a node is missing or not ready
"""
_UNKNOWN, _NOT_READY = 2, 4
_MAX_NAMES = 10
"""Resource names in an error."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "words",
        metavar="WORD",
        nargs="*",
        help="show only resources whose names contain one of these words (default: all)",
    )
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "wide", "json", "yaml"),
        default="table",
        help="format of the output (default: table)",
    )
    parser.add_argument(
        "--pool", metavar="NAME", action="append", default=[], help="pool to show; the option can be repeated"
    )
    parser.add_argument(
        "--node", metavar="NAME", action="append", default=[], help="node to show; the option can be repeated"
    )
    parser.add_argument("-l", "--selector", metavar="SELECTOR", default="", help="label selector of the nodes to show")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=parse_seconds,
        default=20.0,
        help="time limit of the response of an agent (default: 20)",
    )
    add_color(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the status and return the exit code."""
    use_color(arguments.color)
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    kubectl = build_client(arguments)
    cluster = await discover_cluster(kubectl, namespace_options(arguments), arguments.selector)
    if not cluster.pools:
        where = f"the namespace {arguments.namespace}" if arguments.namespace else "any namespace"
        hint = "install genplug, or check the context with 'kubectl config current-context'"
        print_message("status", f"found no DaemonSet with the label {POOL_LABEL} in {where}; {hint}")
        return _NOT_READY
    if error := _selection_error(cluster, arguments):
        print_message("status", error)
        return _UNKNOWN
    fleet = await _fetch_fleet(kubectl, _select(cluster, arguments), arguments.timeout)
    known = sorted({name for pool in fleet.pools for name in pool.resources})
    fleet = _select_resources(fleet, arguments.words)
    if known and not any(pool.resources for pool in fleet.pools):
        found = f"found {', '.join(known[:_MAX_NAMES])}{' and others' if len(known) > _MAX_NAMES else ''}"
        print_message("status", f"expected words of resource names, {found}")
        return _UNKNOWN
    match arguments.output:
        case "json":
            print(format_json(build_document(fleet)))
        case "yaml":
            print(format_yaml(build_document(fleet)).rstrip())
        case output:
            print(format_fleet(fleet, is_wide=output == "wide"))
    return 0 if fleet.is_ready else _NOT_READY


async def _fetch_fleet(kubectl: Kubectl, cluster: Cluster, seconds: float) -> FleetStatus:
    with ProgressBar("agents") as bar:
        answers = await query_agents(kubectl, cluster, seconds, bar.report)
    return build_fleet(cluster, answers.by_pod, answers.forbidden)


def _selection_error(cluster: Cluster, arguments: argparse.Namespace) -> str:
    pools = sorted({pool.name for pool in cluster.pools})
    if unknown := [name for name in arguments.pool if name not in pools]:
        return f"unknown pool {', '.join(unknown)}; the cluster has {', '.join(pools)}"
    nodes = {node for pool in cluster.pools for node in pool.nodes}
    if unknown := [name for name in arguments.node if name not in nodes]:
        return f"no pool has the node {', '.join(unknown)}; check the labels and taints of the node"
    return ""


def _select(cluster: Cluster, arguments: argparse.Namespace) -> Cluster:
    """Return the cluster with the requested pools and nodes only."""
    pools = [pool for pool in cluster.pools if not arguments.pool or pool.name in arguments.pool]
    if arguments.node:
        nodes = set(arguments.node)
        pools = [
            replace(
                pool,
                nodes=tuple(node for node in pool.nodes if node in nodes),
                pods={node: pod for node, pod in pool.pods.items() if node in nodes},
            )
            for pool in pools
            if nodes.intersection(pool.nodes)
        ]
    return replace(cluster, pools=tuple(pools))


def _select_resources(fleet: FleetStatus, words: list[str]) -> FleetStatus:
    """Return the status with the resources whose names contain a word; pools that have only others are left out."""
    if not words:
        return fleet
    lowered = [word.lower() for word in words]
    pools = []
    for pool in fleet.pools:
        nodes = [
            replace(
                node,
                resources=tuple(
                    resource for resource in node.resources if any(word in resource.name.lower() for word in lowered)
                ),
            )
            for node in pool.nodes
        ]
        if not pool.resources or any(node.resources for node in nodes):
            pools.append(replace(pool, nodes=tuple(nodes)))
    return replace(fleet, pools=tuple(pools))
