"""``kubectl genplug status``: the agents and devices of all nodes."""

import argparse
import asyncio

from genplug.kubectl.options import build_client, namespace_options

DESCRIPTION = """\
Show the agents and devices of all nodes of the cluster.
"""
EPILOG = """\
examples:
  kubectl genplug status

exit codes: 0 ready, 1 the cluster cannot be queried, 2 usage error, 4 not ready
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG


def run(arguments: argparse.Namespace) -> int:
    """Print the status and return the exit code."""
    from genplug.kubectl.discovery import discover_cluster  # noqa: PLC0415 - --help does not need it

    cluster = asyncio.run(discover_cluster(build_client(arguments), namespace_options(arguments)))
    for pool in cluster.pools:
        print(f"{pool.name}: {len(pool.pods)} of {len(pool.nodes)} nodes have an agent")
    return 0
