"""The command ``python -m tests.cluster.dra_trial``."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from genplug import __version__
from tests.cluster import images
from tests.cluster.claims import EXTENDED_MINOR
from tests.cluster.cluster import Cluster
from tests.cluster.dra_trial.figures import Figure, find_misses
from tests.cluster.dra_trial.force_deletion import delete_by_force
from tests.cluster.dra_trial.kubelet import restart_kubelet
from tests.cluster.dra_trial.migration import migrate_to_device_plugin, migrate_to_dra
from tests.cluster.dra_trial.outage import stop_api_server
from tests.cluster.dra_trial.prepare import measure_prepare
from tests.cluster.dra_trial.trial import Trial
from tests.cluster.dra_trial.unplug import flap_device, unplug_device
from tests.cluster.machine import Machine
from tests.cluster.node import read_minor
from tests.cluster.tools import TOOLS
from tests.cluster.transcript import build_image

_DESCRIPTION = """\
Install genplug on a real cluster of one node, serve resources by Dynamic Resource Allocation (DRA), and measure it over
many repeats: restarts of the kubelet, force deletions, an absent API server, unplugged devices, and a migration.
"""
_EPILOG = """\
examples:
  python -m tests.cluster.dra_trial --record docs/explanation/proof/dra.json
  python -m tests.cluster.dra_trial kubelet --kubernetes 1.34

Requires root, .ci/tools and tests/cluster/build.

exit codes: 0 every figure is within its limit, 1 a figure is not, 2 usage error
"""
_IMAGE = "registry.example/genplug:test"


Run = Callable[[Trial], list[Figure]]


class Kind(Struct, frozen=True):
    """A kind of trial. ``short`` has few repeats. ``needs_limits``: its pods request devices of DRA with ``limits``."""

    title: str
    run: Run
    short: Run
    needs_limits: bool = False


KINDS = {
    "prepare": Kind("200 pods with a device of 1 000", measure_prepare, partial(measure_prepare, pods=4)),
    "kubelet": Kind("Killed kubelet", restart_kubelet, partial(restart_kubelet, repeats=1)),
    "force": Kind("Force deletion", delete_by_force, partial(delete_by_force, pods=5)),
    "unplug": Kind("Unplugged device", unplug_device, partial(unplug_device, repeats=1, pause=0)),
    "flap": Kind("Flapping device", flap_device, partial(flap_device, flaps=30, seconds=3, settle=2)),
    "hang": Kind(
        "Hanging API server",
        # A kubelet whose requests hang admits one static pod after the other slowly.
        partial(stop_api_server, seconds=60, hangs=True, pods=2),
        partial(stop_api_server, seconds=4, hangs=True, pods=1),
    ),
    "outage": Kind("API server away", stop_api_server, partial(stop_api_server, seconds=4, pods=1)),
    "to-dra": Kind("Migration to DRA", migrate_to_dra, partial(migrate_to_dra, pods=8, seconds=0), needs_limits=True),
    "back": Kind(
        "Migration back", migrate_to_device_plugin, partial(migrate_to_device_plugin, pods=4), needs_limits=True
    ),
}
"""The trials by the name that selects them, in their order: ``back`` begins with the state that ``to-dra`` leaves."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.dra_trial",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "trials", nargs="*", metavar="TRIAL", help=f"run only these trials: {', '.join(KINDS)} (default: all)"
    )
    parser.add_argument("--kubernetes", default="", metavar="MINOR", help="version, e.g. 1.34 (default: the newest)")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="write the figures to this file; it keeps those of other trials"
    )
    parser.add_argument("--short", action="store_true", help="repeat only as often as the tests; do not record this")
    parser.add_argument("--image", type=Path, metavar="FILE", help="use this archive of the image instead of a new one")
    options = parser.parse_args(arguments)
    if unknown := set(options.trials) - KINDS.keys():
        parser.error(f"expected trials of {', '.join(KINDS)}, found {', '.join(sorted(unknown))}")
    binaries = _find_binaries(options.kubernetes)
    has_limits = read_minor(binaries) >= EXTENDED_MINOR
    names = [
        name
        for name, kind in KINDS.items()
        if name in (options.trials or KINDS) and (has_limits or not kind.needs_limits)
    ]
    misses = []
    for name, figures in run_trials(binaries, names, options.image, is_short=options.short):
        misses += [f"{KINDS[name].title}: {miss}" for miss in find_misses(figures)]
        if options.record is not None:
            # A later trial can fail, and the file can be of several runs.
            previous = json.loads(options.record.read_text())["rows"] if options.record.exists() else []
            record = build_record({name: figures}, binaries.name, previous)
            options.record.write_text(json.dumps(record, indent=2) + "\n")
    for miss in misses:
        print(f"outside its limit: {miss}", file=sys.stderr)
    return 1 if misses else 0


def run_trials(
    binaries: Path, names: Sequence[str], image: Path | None, *, is_short: bool = False
) -> Iterator[tuple[str, list[Figure]]]:
    """Run trials on a cluster, and yield the name and the figures of each."""
    with Machine(Path(tempfile.mkdtemp(prefix="gpc", dir="/tmp"))) as machine:
        cluster = Cluster(machine, binaries, TOOLS)
        trial = Trial(cluster, lambda text: print(f"  {text}", flush=True))
        try:
            archive = image or build_image(machine.directory, _IMAGE)
            cluster.start(images.build_busybox(machine.directory), archive)
            trial.prepare()
            for name in names:
                started = time.monotonic()
                print(f"{KINDS[name].title}, Kubernetes {binaries.name}", flush=True)
                figures = (KINDS[name].short if is_short else KINDS[name].run)(trial)
                # Two cores with a load of more than 2 are slower than the limits assume.
                figures.append(Figure("Load average of the machine, 5 minutes", os.getloadavg()[1]))
                for figure in figures:
                    print(f"  {figure}")
                print(f"  ({time.monotonic() - started:.0f} s)", flush=True)
                yield name, figures
        except BaseException:
            print(machine.read_logs(), *trial.read_log()[-40:], sep="\n", file=sys.stderr)
            raise


def _find_binaries(minor: str) -> Path:
    found = [program.parent for program in TOOLS.glob(f"kubernetes/{minor or '*'}*/kube-scheduler")]
    if not found:
        sys.exit(f"expected a Kubernetes {minor} in {TOOLS}/kubernetes, found none; run tests/cluster/build {minor}")
    return max(found, key=lambda directory: [int(part) for part in directory.name.split(".")])


def build_record(
    found: dict[str, list[Figure]], kubernetes: str, previous: Sequence[Sequence[str]] = ()
) -> dict[str, Any]:
    """Return the figures in the form of the files in docs/explanation/proof, with the previous rows of other trials."""
    rows = [
        [f"{KINDS[name].title}, {kubernetes}", figure.name, figure.text, figure.limit]
        for name, figures in found.items()
        for figure in figures
    ]
    replaced = {row[0] for row in rows}
    order = [kind.title for kind in KINDS.values()]
    rows += [list(row) for row in previous if row[0] not in replaced]
    # The sort keeps the order of the figures of a trial.
    rows.sort(key=lambda row: (order.index(row[0].rpartition(",")[0]), row[0]))
    conditions = {
        "date": time.strftime("%Y-%m-%d"),
        "genplug": __version__,
        "python": platform.python_version(),
        "kernel": platform.release().partition("-")[0],
        "cores": os.cpu_count(),
    }
    return {"conditions": conditions, "columns": ["Trial", "Figure", "Value", "Limit"], "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
