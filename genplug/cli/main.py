"""The ``genplug`` command: its commands with their summaries. Only the module of the requested command is imported."""

import importlib
import sys
from collections.abc import Collection, Sequence

from genplug import __version__
from genplug.lean_imports import postpone_patterns

# A command uses few of the patterns of the modules that it imports.
with postpone_patterns():
    import argparse

    from genplug.capture.errors import RootError
    from genplug.cli.output import HelpFormatter, escape_output, ignore_closed_readers, print_message

COMMANDS = {
    "run": "run the agent of this node, as the DaemonSet does",
    "status": "show the status of the agent that runs on this node",
    "reload": "make the agent that runs on this node read its configuration and scan for devices now",
    "validate": "check a configuration, a policy, values of the chart or a manifest",
    "diff": "show what a change of the configuration does to resources, devices and pods",
    "plan": "show which devices this node would offer, and why",
    "doctor": "check this machine, and the configuration against it",
    "init": "print a configuration to start from, for a kind of hardware or for this machine",
    "record": "print the governance record of this node: versions, rights, drivers, health monitoring, digests",
    "convert": "print the configuration of another device plugin as a configuration of genplug",
    "audit": "show who had a device, which devices a pod had, or the records of audit logs",
    "capture": "write what a configuration reads from this node into an archive",
    "bundle": "write everything for a bug report into an archive, without secrets",
    "schema": "print the JSON Schema of the configuration or of another document",
    "explain": "print the documentation of a key, an error code, an alert, an event or a metric",
    "completion": "print the completion script of a shell",
    "demo": "try genplug on a simulated node, without a cluster, hardware or root",
}

_EPILOG = """\
exit codes: 0 success, 1 runtime error, 2 usage error, 3 warnings with --strict, 4 not ready or a check
failed, 78 invalid configuration

'genplug COMMAND --help' describes a command and its options.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    ignore_closed_readers()
    with escape_output(), postpone_patterns():
        return _run(arguments)


def build_parser(configured: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser of the command line; only the commands in ``configured`` have their options."""
    parser = argparse.ArgumentParser(
        prog="genplug",
        description="A Kubernetes device plugin that offers any hardware to pods, described by a YAML file.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"genplug {__version__}")
    # Without ``prog``, argparse formats its usage to get the same text.
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog="genplug")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=HelpFormatter)
        if name in configured:
            module = importlib.import_module(f"genplug.cli.{name}")
            module.configure(command)
            command.set_defaults(run=module.run)
    return parser


def _run(arguments: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    requested = [argument for argument in arguments if not argument.startswith("-")][:1]
    parsed = build_parser(requested).parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except RootError as error:
        print_message(parsed.command, str(error))
        return 2
    except KeyboardInterrupt:
        return 130
