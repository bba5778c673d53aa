"""``genplug demo``: the options of the demo. ``demo_live.py`` and ``demo_script.py`` run it on ``demo_node.py``."""

import argparse
import importlib

from genplug.cli.grpc_environment import set_grpc_environment

DESCRIPTION = """\
Try genplug without a cluster, hardware or root. The demo runs the real agent on a simulated node: a temporary directory
with text files that stand for device nodes, and a stand-in for the kubelet. It removes the directory at the end.
"""
EPILOG = """\
examples:
  genplug demo              a live table of devices, with commands to try in a second terminal; Ctrl-C ends the demo
  genplug demo --script     a sequence of events, each with its result

exit codes: 0 success, 1 a step of --script failed
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--script", action="store_true", help="play a sequence of events without interaction, and exit")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit code."""
    set_grpc_environment()
    module = importlib.import_module("genplug.cli.demo_script" if arguments.script else "genplug.cli.demo_live")
    return int(module.play())
