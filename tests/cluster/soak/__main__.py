"""The command ``python -m tests.cluster.soak``."""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from genplug import __version__
from tests.cluster import images
from tests.cluster.cluster import Cluster
from tests.cluster.machine import Machine
from tests.cluster.soak.actions import ACTIONS
from tests.cluster.soak.run import Figures, Soak, SoakError
from tests.cluster.tools import TOOLS
from tests.cluster.transcript import build_image

_DESCRIPTION = """\
Install genplug on a real cluster of one node, change the node at random, and compare it with a model after each step:
the status of the node, the devices in each container, the lists and the checkpoint of the kubelet, and the metrics of
the agent.
"""
_EPILOG = """\
examples:
  python -m tests.cluster.soak --minutes 30 --record docs/explanation/proof/soak-cluster.json
  python -m tests.cluster.soak --seed 7 --steps 25      the first 25 steps of seed 7

The same seed gives the same steps. Requires root, .ci/tools and tests/cluster/build.

exit codes: 0 every check passed, 1 a check failed, 2 usage error
"""
IMAGE = "registry.example/genplug:test"
VALUES = {"image": {"repository": "registry.example/genplug", "tag": "test", "pullPolicy": "Never"}}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.soak",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30, metavar="N", help="duration (default: 30)")
    parser.add_argument("--steps", type=int, metavar="N", help="run this number of steps instead")
    parser.add_argument(
        "--second-half",
        type=int,
        metavar="STEP",
        help="begin the second half after this step, to replay a run of some minutes",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="seed of the steps (default: a random seed, printed)")
    parser.add_argument("--kubernetes", default="", metavar="MINOR", help="version, e.g. 1.34 (default: the newest)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the figures for the documentation")
    parser.add_argument(
        "--sabotage",
        type=int,
        default=0,
        metavar="STEP",
        help="remove a device in this step without the knowledge of the model; the soak must fail",
    )
    options = parser.parse_args(arguments)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    binaries = _find_binaries(options.kubernetes)
    print(f"seed {seed}, Kubernetes {binaries.name}", flush=True)
    with Machine(Path(tempfile.mkdtemp(prefix="gpc", dir="/tmp"))) as machine:
        cluster = Cluster(machine, binaries, TOOLS)
        cluster.start(images.build_busybox(machine.directory), build_image(machine.directory, IMAGE))
        soak = Soak(cluster, seed, lambda text: print(text, flush=True))
        soak.sabotaged_step = options.sabotage
        try:
            soak.prepare(VALUES)
            if options.steps is None:
                soak.run_minutes(options.minutes)
            else:
                soak.run_steps(options.steps, options.second_half)
        except SoakError as error:
            print(error, file=sys.stderr)
            return 1
    record = build_record(soak.figures, binaries.name)
    print("\n".join(": ".join(row) for row in record["rows"]))
    if options.record is not None:
        options.record.write_text(json.dumps(record, indent=2) + "\n")
    return 0


def _find_binaries(minor: str) -> Path:
    found = [program.parent for program in TOOLS.glob(f"kubernetes/{minor or '*'}*/kube-apiserver")]
    if not found:
        sys.exit(f"expected a Kubernetes {minor} in {TOOLS}/kubernetes, found none; run tests/cluster/build {minor}")
    return max(found, key=lambda directory: [int(part) for part in directory.name.split(".")])


def build_record(figures: Figures, kubernetes: str) -> dict[str, Any]:
    """Return the figures in the form of the files in docs/explanation/proof."""

    def number(value: float) -> str:
        return f"{value:,.0f}".replace(",", " ")

    seconds = sorted(figures.settle_seconds)
    rows = [
        ["Duration", f"{figures.minutes:.0f} min"],
        ["Seed", str(figures.seed)],
        ["Actions", number(figures.actions.total())],
        *([f"Actions: {name}", number(figures.actions[name])] for name in ACTIONS if figures.actions[name]),
        ["Pods created", number(figures.pods)],
        ["Pods that ran", number(figures.ran)],
        *([f"Pods that the kubelet refused: {cause}", number(count)] for cause, count in figures.refused.items()),
        ["Pods that a started kubelet rejected because of a finished init container", number(figures.rejected)],
        ["Observations of the node, each with every check", number(figures.observations)],
        ["Violations", "0"],
        ["Settles", number(len(seconds))],
        [
            "From the last action until the node agrees with the model",
            f"p50 {statistics.median(seconds):.1f} s, maximum {seconds[-1]:.1f} s",
        ],
    ]
    rows += [
        [f"Agent, second half, before and after: {name}", f"{number(before)}, {number(figures.after[name])}"]
        for name, before in figures.before.items()
    ]
    conditions = {
        "date": time.strftime("%Y-%m-%d"),
        "genplug": __version__,
        "kubernetes": kubernetes,
        "python": platform.python_version(),
        "kernel": platform.release().partition("-")[0],
        "cores": os.cpu_count(),
    }
    return {"conditions": conditions, "columns": ["Figure", "Value"], "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
