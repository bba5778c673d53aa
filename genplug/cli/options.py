"""Flags that several commands have."""

import argparse
import os
from pathlib import Path

POLICY = "GENPLUG_POLICY"


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
