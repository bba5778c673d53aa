"""``genplug diff``: what a change of the configuration does to the resources, devices and pods of nodes."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from genplug.cli.options import (
    LISTEN_VARIABLE,
    add_cdi_search_dirs,
    add_node_name,
    add_policy,
    add_root,
    parse_address,
)
from genplug.cli.output import format_json, format_yaml, print_lines, print_message
from genplug.cli.status import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from genplug.cli.diff_document import Report
    from genplug.cli.diff_inputs import NodeInput, Side
    from genplug.comparison.plan import Plan
    from genplug.spec.model import Config

DESCRIPTION = """\
Show what a change of the configuration does before you make it: which resources and keys differ, which devices are
added, removed, moved to another resource or get another ID, what containers receive, and which running pods are
affected. The command registers nothing and changes nothing.

OLD and NEW are what `genplug validate` takes: a file, a directory such as a mounted ConfigMap, a directory with a
directory for each pool, a manifest such as the output of `helm template`, or '-' for the standard input. --old-values
and --values are values files of the chart. Without OLD, the command compares with the files of the agent that runs on
this node.

The devices are those of this node, of --root, or of the archives of `genplug capture` in --node and --nodes. If there
are several pools, the name of an archive assigns it to a pool: POOL.tar.gz, or any name in a directory POOL.
"""
EPILOG = """\
examples:
  genplug diff new.yaml                                        compared with the files of the running agent
  genplug diff old.yaml new.yaml --root node.tar.gz            on a node that 'genplug capture' captured
  genplug diff --old-values old.yaml --values new.yaml --nodes nodes    an archive for each pool
  genplug diff old.yaml new.yaml --no-node                     only the configurations, in a pipeline
  genplug diff old.yaml new.yaml --old-policy old-policy.yaml --policy policy.yaml
  genplug diff old.yaml new.yaml --no-node -o markdown         a comment for a pull request
  kubectl get pods -A --field-selector spec.nodeName=node-1 -o json | genplug diff old.yaml new.yaml --pods -

`genplug schema diff` describes the keys of `-o json` and `-o yaml`.

exit codes: 0 success, 1 the configurations differ (with --exit-code), 2 usage error or a node cannot be read, 78 NEW is
invalid
"""
_DIFFERENT = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "old", nargs="?", metavar="OLD", help="configuration before the change; a single argument is NEW"
    )
    parser.add_argument("new", nargs="?", metavar="NEW", help="configuration after the change; also a single argument")
    parser.add_argument(
        "--old-values", action="append", metavar="FILE", default=[], help="values file of the chart before the change"
    )
    parser.add_argument(
        "--values",
        action="append",
        metavar="FILE",
        default=[],
        help="values file of the chart after the change, or '-'; later files override earlier files, as with helm",
    )
    parser.add_argument("--pool", metavar="NAME", help="pool to compare (default: all pools)")
    add_policy(parser)
    parser.add_argument(
        "--old-policy", metavar="FILE", help="policy before the change (default: the policy after the change)"
    )
    add_root(parser)
    parser.add_argument(
        "--node",
        action="append",
        metavar="[POOL=]ARCHIVE",
        default=[],
        help="archive or root directory of a node to compare on; can be repeated",
    )
    parser.add_argument(
        "--nodes", metavar="DIR", help="directory with archives of nodes: POOL.tar.gz, or archives in a directory POOL"
    )
    parser.add_argument(
        "--no-node", action="store_true", help="compare only resources and keys, without the devices of a node"
    )
    add_cdi_search_dirs(parser)
    add_node_name(parser)
    parser.add_argument(
        "--pods",
        metavar="FILE",
        help="running pods: the output of 'genplug status -o json' or 'kubectl get pods -o json', or '-' (default on "
        "this node: the pod-resources API of the kubelet)",
    )
    parser.add_argument(
        "--pod-resources-dir",
        metavar="DIR",
        default=os.environ.get("GENPLUG_POD_RESOURCES_DIR") or "/var/lib/kubelet/pod-resources",
        help="directory with the kubelet's socket of the pod-resources API (default: GENPLUG_POD_RESOURCES_DIR from "
        "the environment, else /var/lib/kubelet/pod-resources)",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        type=parse_address,
        default=os.environ.get(LISTEN_VARIABLE) or DEFAULT_ADDRESS,
        help=f"address of the agent that supplies OLD (default: {LISTEN_VARIABLE} from the environment, else "
        f"{DEFAULT_ADDRESS})",
    )
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "json", "yaml", "markdown"),
        default="table",
        help="format of the output (default: table)",
    )
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 if the configurations differ")
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Print the differences and return the exit code."""
    from genplug.cli.diff_document import build_document  # noqa: PLC0415 - as above
    from genplug.cli.diff_inputs import InputError, read_sides  # noqa: PLC0415 - --help does not need it
    from genplug.config.diagnostics import format_diagnostics  # noqa: PLC0415 - as above
    from genplug.hardware.scan_errors import HangError  # noqa: PLC0415 - as above

    try:
        old, new = read_sides(arguments)
        if new.errors:
            print_lines(format_diagnostics(new.errors))
            return 78
        if old.errors:
            print_lines(format_diagnostics(old.errors))
            print_message("diff", "OLD is invalid: the comparison is with no resources instead")
        reports = list(_compare(arguments, old, new))
    except (InputError, HangError) as error:
        print_message("diff", str(error))
        return 2
    match arguments.output:
        case "json":
            print(format_json(build_document(reports)))
        case "yaml":
            print(format_yaml(build_document(reports)), end="")
        case "markdown":
            from genplug.cli.diff_markdown import format_markdown  # noqa: PLC0415 - only this format needs it

            print(format_markdown(reports))
        case _:
            from genplug.cli.diff_text import format_text  # noqa: PLC0415 - as above

            print(format_text(reports))
    is_different = any(not report.comparison.is_empty for report in reports)
    return _DIFFERENT if arguments.exit_code and is_different else 0


def _compare(arguments: argparse.Namespace, old: "Side", new: "Side") -> "Iterator[Report]":
    """Yield the differences of each pool on each of its nodes."""
    from genplug.cli.diff_document import Report  # noqa: PLC0415 - see run
    from genplug.cli.diff_inputs import NodeInput, find_nodes, match_nodes, read_pods  # noqa: PLC0415 - as above
    from genplug.comparison.compare import compare  # noqa: PLC0415 - as above
    from genplug.comparison.pods import find_affected_pods  # noqa: PLC0415 - as above

    pools = [*dict.fromkeys((*new.configs, *old.configs))]
    nodes = find_nodes(arguments)
    is_here = not nodes and not arguments.no_node
    is_live = is_here and len(pools) == 1 and Path(arguments.root).is_dir()
    if is_here and len(pools) == 1:
        nodes = [NodeInput(arguments.root, "" if arguments.root == "/" else arguments.root, option="--root")]
    elif is_here:
        message = (
            f"the input has {len(pools)} pools, and this node belongs to one of them, so only the configurations are "
            f"compared; select a pool with --pool, or pass archives with --nodes"
        )
        print_message("diff", message)
    uses = read_pods(arguments, is_live=is_live)
    for pool in pools:
        found: Sequence[NodeInput | None] = match_nodes(nodes, pool, pools) or (None,)
        if found == (None,) and nodes:
            print_message("diff", f"no archive is of the pool {pool!r}: only its configurations are compared")
        for node in found:
            comparison = compare(*_plan_sides(arguments, old.configs.get(pool), new.configs.get(pool), node))
            affected = None if uses is None else find_affected_pods(comparison, uses)
            yield Report(pool, node.label if node is not None else "", comparison, affected)


def _plan_sides(
    arguments: argparse.Namespace, old: "Config | None", new: "Config | None", node: "NodeInput | None"
) -> "tuple[Plan, Plan]":
    """Return the plans of both sides on a node, or without a node; a side without a configuration offers nothing."""
    from genplug.capture.archive import open_root  # noqa: PLC0415 - see run
    from genplug.cli.diff_plan import plan_config, plan_node  # noqa: PLC0415 - as above
    from genplug.comparison.plan import Plan  # noqa: PLC0415 - as above
    from genplug.hardware.host import Host  # noqa: PLC0415 - as above

    if node is None:
        first, second = (plan_config(config) if config else Plan(has_node=False) for config in (old, new))
        return first, second
    with open_root(node.root, node.option) as root:
        host = Host.at(root, node_name=arguments.node_name, cdi_dirs=arguments.cdi_search_dirs)
        first, second = (plan_node(config, host) if config else Plan() for config in (old, new))
        return first, second
