"""``genplug record``: the governance record of this node."""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genplug
from genplug import __version__
from genplug.cli.options import (
    CONFIG_HELP,
    DEFAULT_CDI_SEARCH_DIRS,
    LISTEN_VARIABLE,
    NODE_NAME_VARIABLES,
    POLICY_VARIABLE,
    ROOT_HELP,
    Address,
    add_cdi_search_dirs,
    parse_address,
)
from genplug.cli.output import format_json, format_yaml, print_lines, print_message

if TYPE_CHECKING:
    from genplug.hardware.host import Host
    from genplug.hardware.inventory import Inventory
    from genplug.record.agent_process import AgentProcess
    from genplug.record.facts import JSON, Unknown
    from genplug.record.node import NodeSources
    from genplug.spec.model import Config

DESCRIPTION = """\
Print the governance record of this node: the plugin with its version and deployment, the resources, the found versions
of drivers and firmware, the mounts and rights of the agent, the health monitoring of each resource, what happens at
upgrades and restarts, the configuration and the policy with their digests, and the present status. A fact that cannot
be read from here is marked as not known, with the reason.

Options that are not set are those of the agent that runs on this node, as its command line and environment have them.
"""
EPILOG = """\
examples:
  genplug record                                         as Markdown
  genplug record -o yaml > record.yaml                   to compare two records
  genplug record --config genplug.yaml --root node.tar.gz    of a node that 'genplug capture' captured
  kubectl exec --namespace genplug daemonset/genplug -- genplug record

`genplug schema record` describes the keys of `-o json` and `-o yaml`. All formats have the same content.
Only the key `generated` contains a time.

exit codes: 0 success, 1 no agent runs and --config is not set, 2 usage error
"""
DEFAULT_ADDRESS = "127.0.0.1:9808"
_UNREACHABLE = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--config", action="extend", nargs="+", metavar="PATH", default=[], help=CONFIG_HELP)
    parser.add_argument("--policy", metavar="FILE", type=Path, help="policy of the agent")
    parser.add_argument("--root", metavar="DIR", help=ROOT_HELP.replace("(default: /)", "(default: that of the agent)"))
    add_cdi_search_dirs(parser)
    parser.set_defaults(cdi_search_dirs=None)
    parser.add_argument("--node-name", metavar="NAME", help="name of the Kubernetes node")
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        type=parse_address,
        help=f"address of the agent (default: that of the agent, else {DEFAULT_ADDRESS})",
    )
    parser.add_argument(
        "-o",
        "--output",
        choices=("markdown", "yaml", "json"),
        default="markdown",
        help="format of the output (default: markdown)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the record and return the exit code."""
    from genplug.capture.archive import open_root  # noqa: PLC0415 - --help does not need it
    from genplug.record.agent_process import describe_method, find_agent, shares_files  # noqa: PLC0415
    from genplug.record.facts import Unknown  # noqa: PLC0415
    from genplug.record.node import build_node_record  # noqa: PLC0415

    agent = find_agent()
    if arguments.root is not None and Path(arguments.root).is_file():
        agent = Unknown("an archive has no processes")
    if isinstance(agent, Unknown) and not arguments.config:
        print_message(
            "record", f"{agent.reason}; start the agent, run this command in its container, or pass --config PATH"
        )
        return _UNREACHABLE
    if not isinstance(agent, Unknown):
        if not arguments.config and not shares_files(agent, describe_method(agent)):
            print_message("record", "the agent runs in a container: run this command there, or pass --config PATH")
            return _UNREACHABLE
        add_agent_options(arguments, agent)
    add_defaults(arguments)
    with open_root(arguments.root) as root:
        document = build_node_record(_collect_sources(arguments, root, agent)).as_json()
    print_record(document, arguments.output)
    return 0


def print_record(document: Mapping[str, Any], output: str) -> None:
    """Print a record in the format of ``--output``."""
    from genplug.record.formats import format_markdown  # noqa: PLC0415 - --help does not need it

    match output:
        case "json":
            print(format_json(document))
        case "yaml":
            print(format_yaml(document), end="")
        case _:
            print(format_markdown(document), end="")


def add_agent_options(arguments: argparse.Namespace, agent: "AgentProcess") -> None:
    """Set the options that are not set to those of the agent."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--config", action="extend", nargs="+", default=[])
    for option in ("--policy", "--root", "--node-name", "--listen", "--cdi-search-dirs"):
        parser.add_argument(option)
    try:
        found, _ = parser.parse_known_args(agent.arguments)
    except argparse.ArgumentError:
        return
    variables = agent.environment
    if not arguments.config:
        arguments.config = found.config or [path for path in variables.get("GENPLUG_CONFIG", "").split(":") if path]
        policy = found.policy or variables.get(POLICY_VARIABLE)
        arguments.policy = arguments.policy or (Path(policy) if policy else None)
    arguments.root = arguments.root or found.root or variables.get("GENPLUG_ROOT")
    names = (variables.get(name) for name in NODE_NAME_VARIABLES)
    arguments.node_name = arguments.node_name or found.node_name or next(filter(None, names), None)
    directories = found.cdi_search_dirs or variables.get("GENPLUG_CDI_SEARCH_DIRS")
    if arguments.cdi_search_dirs is None and directories:
        arguments.cdi_search_dirs = tuple(directories.split(":"))
    listen = found.listen or variables.get(LISTEN_VARIABLE)
    arguments.address = arguments.address or (_parse_listen(listen) if listen else None)


def add_defaults(arguments: argparse.Namespace) -> None:
    """Set the options that neither the command line nor the agent has."""
    if arguments.policy is None and os.environ.get(POLICY_VARIABLE):
        arguments.policy = Path(os.environ[POLICY_VARIABLE])
    arguments.root = arguments.root or "/"
    names: Sequence[str | None] = [os.environ.get(name) for name in NODE_NAME_VARIABLES]
    arguments.node_name = arguments.node_name or next(filter(None, names), None)
    arguments.cdi_search_dirs = arguments.cdi_search_dirs or tuple(DEFAULT_CDI_SEARCH_DIRS.split(":"))
    arguments.address = arguments.address or parse_address(os.environ.get(LISTEN_VARIABLE) or DEFAULT_ADDRESS)


def _parse_listen(text: str) -> Address | None:
    try:
        return parse_address(text)
    except argparse.ArgumentTypeError:
        return None


def _collect_sources(arguments: argparse.Namespace, root: Path, agent: "AgentProcess | Unknown") -> "NodeSources":
    """Return the sources of the record, with the reason in place of a source that cannot be read."""
    from genplug.hardware.host import Host  # noqa: PLC0415 - --help does not need it
    from genplug.observe.text import format_time  # noqa: PLC0415
    from genplug.record.facts import Unknown  # noqa: PLC0415
    from genplug.record.node import Generation, NodeSources  # noqa: PLC0415
    from genplug.record.package import find_package  # noqa: PLC0415

    host = Host.at(root, node_name=arguments.node_name, cdi_dirs=arguments.cdi_search_dirs)
    config = _load_config(arguments)
    return NodeSources(
        generation=Generation(format_time(time.time()), "genplug record", __version__),
        host=host,
        agent=agent,
        config=config,
        inventory=_scan(config, host),
        status=_fetch_status(arguments.address, host),
        policy_file=arguments.policy,
        package=Unknown("an archive does not contain the database of packages")
        if host.is_archive
        else find_package(Path(genplug.__file__)),
    )


def _load_config(arguments: argparse.Namespace) -> "Config | Unknown":
    from genplug.config.diagnostics import ConfigInvalidError, format_diagnostics  # noqa: PLC0415 - see above
    from genplug.config.load import load  # noqa: PLC0415
    from genplug.record.facts import Unknown  # noqa: PLC0415

    try:
        return load([Path(path) for path in arguments.config], arguments.node_name, arguments.policy).config
    except ConfigInvalidError as error:
        print_lines(format_diagnostics(error.diagnostics))
        codes = sorted({f"{found.code}" for found in error.diagnostics})
        return Unknown(f"the configuration or its policy is invalid ({', '.join(codes)}): run 'genplug validate'")


def _scan(config: "Config | Unknown", host: "Host") -> "Inventory | Unknown":
    from genplug.hardware.discovery import discover  # noqa: PLC0415 - see above
    from genplug.hardware.scan_errors import HangError  # noqa: PLC0415
    from genplug.record.facts import Unknown  # noqa: PLC0415

    if isinstance(config, Unknown):
        return config
    try:
        return discover(config, host)
    except HangError as error:
        return Unknown(f"the scan of the devices does not finish: {error}")


def _fetch_status(address: Address, host: "Host") -> "JSON | Unknown":
    from genplug.cli.status import UnreachableError, fetch_status  # noqa: PLC0415 - see above
    from genplug.record.facts import Unknown  # noqa: PLC0415
    from genplug.spec.printable import escape_document  # noqa: PLC0415

    if host.is_archive:
        return Unknown("an archive has no agent")
    try:
        status: Mapping[str, Any] = escape_document(fetch_status(address))
    except UnreachableError as error:
        return Unknown(str(error))
    return status
