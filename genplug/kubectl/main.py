"""The ``kubectl genplug`` command: its commands with their summaries.

kubectl runs the program ``kubectl-genplug`` in PATH for ``kubectl genplug``, and passes the arguments that follow.
Only the module of the requested command is imported.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from genplug import __version__
from genplug.cli.output import escape_output, ignore_closed_readers
from genplug.kubectl.client import KubectlError
from genplug.kubectl.options import NAMESPACE_HELP, add_kubectl_arguments, print_message

COMMANDS = {
    "status": "show the agents and devices of all nodes",
    "pending": "show why a pod waits for devices",
    "why": "show why the kubelet refused a pod",
    "record": "print the governance record of a release",
}

_EPILOG = """\
exit codes: 0 success, 1 the cluster cannot be queried, 2 usage error, 4 not ready or a check failed

'kubectl genplug COMMAND --help' describes a command and its options.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    ignore_closed_readers()
    with escape_output():
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def configure_command(parser: argparse.ArgumentParser, module: ModuleType) -> None:
    """Add the arguments of a command, and those that all commands have."""
    module.configure(parser)
    add_kubectl_arguments(parser, getattr(module, "NAMESPACE_HELP", NAMESPACE_HELP))


def _run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="kubectl genplug",
        description="Show and explain the devices that genplug offers in a cluster, with the rights of your kubectl.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"genplug {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    requested = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == requested:
            module = importlib.import_module(f"genplug.kubectl.commands.{name}")
            configure_command(command, module)
            command.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except KubectlError as error:
        print_message(parsed.command, str(error))
        return 1
    except KeyboardInterrupt:
        return 130
