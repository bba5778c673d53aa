"""``genplug demo``: flags; what it does is in ``demo_node.py``, ``demo_live.py`` and ``demo_script.py``."""

import argparse
import importlib
import os

DESCRIPTION = """\
Try genplug without a cluster, hardware or root: a make-believe node with devices that are plain files and a stand-in
for the kubelet, in a temporary directory that is removed at the end. The agent on it is the real one.
"""
EPILOG = """\
examples:
  genplug demo              a live table; it says what to try from a second terminal. Ctrl-C ends it
  genplug demo --script     play all of that unattended, with a visible result at each step; exit code 0 or 1
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--script", action="store_true", help="play everything unattended and exit 0 or 1")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit code."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    module = importlib.import_module("genplug.cli.demo_script" if arguments.script else "genplug.cli.demo_live")
    return int(module.play())
