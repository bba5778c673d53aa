"""Flags that several commands have."""

import argparse
import os
from pathlib import Path

POLICY = "GENPLUG_POLICY"
ROOT_HELP = "where the host's file system is seen, or an archive that 'genplug capture' wrote (default: /)"


def add_root(parser: argparse.ArgumentParser) -> None:
    """Add ``--root``; what is given is a text for :func:`genplug.capture.archive.open_root`."""
    parser.add_argument("--root", metavar="DIR", default="/", help=ROOT_HELP)


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Add ``--policy``; what is given is a path, or None for the default policy."""
    parser.add_argument(
        "--policy",
        metavar="FILE",
        type=Path,
        default=Path(os.environ[POLICY]) if os.environ.get(POLICY) else None,
        help=f"what the configuration may do at most (default: {POLICY} of the environment; without either, "
        "no mounts, no block devices, nodes under /dev only)",
    )
