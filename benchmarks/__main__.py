"""``python -m benchmarks``: run all or selected benchmarks and compare the figures with the budgets."""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from benchmarks import commands, core, files, fleet, footprint, health, latency, scale
from benchmarks.agent import as_installed
from benchmarks.figures import Figure, Samples, as_json, as_table, figures, machine
from benchmarks.runs import QUICK, Runs

BENCHMARKS: Mapping[str, Callable[[Runs], Awaitable[Samples]]] = MappingProxyType(
    {
        "yardstick": commands.yardstick,
        "start": latency.start,
        "allocate": latency.allocate,
        "changes": latency.changes,
        "reload": latency.reload,
        "restart": latency.restart,
        "losses": latency.losses,
        "memory": footprint.memory,
        "idle": footprint.idle,
        "devices": scale.devices,
        "resources": scale.resources,
        "restarts": scale.restarts,
        "scans": core.scans,
        "preferences": core.preferences,
        "probes": health.probes,
        "hanging": health.hanging,
        "files": files.files,
        "help": commands.usage,
        "validate": commands.validate,
        "fleet": fleet.fleet,
    }
)


def main() -> int:
    """Return 1 if a benchmark could not run; a missed budget is a finding, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure genplug against its budgets.")
    parser.add_argument("--quick", action="store_true", help="few runs: shows that everything works, not how fast")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=f"of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write conditions, figures and all values here")
    arguments = parser.parse_args()
    conditions = machine()
    print(", ".join(f"{name} {value}" for name, value in conditions.items()), file=sys.stderr)
    try:
        found, failed = asyncio.run(_measured(arguments.only or BENCHMARKS, QUICK if arguments.quick else Runs()))
    except RuntimeError as error:
        print(f"nothing could be measured: {error}", file=sys.stderr)
        return 1
    print(as_table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(found, conditions), indent=1) + "\n")
    return int(failed)


async def _measured(names: Iterable[str], runs: Runs) -> tuple[list[Figure], bool]:
    """Return the figures, and whether a benchmark failed."""
    found: list[Figure] = []
    failed = False
    async with as_installed():
        for name in names:
            print(f"measuring {name}", file=sys.stderr)
            try:
                found += figures(await BENCHMARKS[name](runs))
            except (RuntimeError, TimeoutError) as error:
                failed = True
                print(f"{name} could not be measured: {error}", file=sys.stderr)
    return found, failed


if __name__ == "__main__":
    sys.exit(main())
