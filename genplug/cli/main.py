"""The ``genplug`` command: names and texts of its subcommands. A command's module is imported when it is asked for."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from genplug import __version__
from genplug.capture.archive import RootError

COMMANDS = {
    "run": "serve this node: what the DaemonSet runs",
    "status": "show what the running agent of this node does",
    "validate": "check a configuration or a ConfigMap and print every mistake in it",
    "plan": "show what this node would offer, and why each device is in or out",
    "init": "print a configuration to start from: for a kind of hardware, or for what this machine has",
    "capture": "write what a configuration reads of this node into an archive, to send it or to plan with it elsewhere",
    "schema": "print the JSON Schema of the configuration, or of a JSON document that a command prints",
    "demo": "try it: a make-believe node and kubelet in a temporary directory, no cluster and no root",
}

_EPILOG = """\
exit codes: 0 fine, 1 failed at run time, 2 wrong usage, 4 not ready, 78 invalid configuration
every flag of 'run' can also be given as an environment variable, e.g. GENPLUG_LOG_LEVEL=debug
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="genplug",
        description="One process per Kubernetes node that reads a YAML file and offers any hardware to pods.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"genplug {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((one for one in arguments if not one.startswith("-")), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == asked:
            module = importlib.import_module(f"genplug.cli.{name}")
            module.configure(command)
            command.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except RootError as error:
        print(f"genplug {parsed.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (`| head`) left: no error of ours, and nothing more to say.
        sys.stderr.close()
        return 0
