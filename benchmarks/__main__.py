"""``python -m benchmarks``: run benchmarks and compare them with the budgets, another plugin or an earlier record."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec.structs import replace

from benchmarks import commands, core, dra, files, fleet, footprint, health, latency, load, scale, work
from benchmarks.agent import as_installed
from benchmarks.comparison import RULE, Record, compare_records, format_comparison, parse_record, read_record
from benchmarks.figures import Figure, Samples, as_json, as_table, figures, machine, replace_figures
from benchmarks.peer import QUICK_ROUNDS, Rounds, measure_peer
from benchmarks.placeholders import PLACEHOLDERS, split_command
from benchmarks.ratios import encode_pairs, format_pairs, pair_rounds
from benchmarks.runs import QUICK, Runs

BENCHMARKS: Mapping[str, Callable[[Runs], Awaitable[Samples]]] = MappingProxyType(
    {
        "yardstick": commands.yardstick,
        "start": latency.start,
        "allocate": latency.allocate,
        "scanning": load.scanning,
        "reloading": load.reloading,
        "changes": latency.changes,
        "reload": latency.reload,
        "restart": latency.restart,
        "losses": latency.losses,
        "memory": footprint.memory,
        "idle": footprint.idle,
        "devices": scale.devices,
        "resources": scale.resources,
        "restarts": scale.restarts,
        "dra-memory": dra.memory,
        "dra-publish": dra.publish,
        "dra-prepare": dra.prepare,
        "dra-idle": dra.idle,
        "dra-away": dra.away,
        "dra-changes": dra.changes,
        "dra-deletions": dra.deletions,
        "dra-restart": dra.restart,
        "work": work.work,
        "scans": core.scans,
        "preferences": core.preferences,
        "probes": health.probes,
        "hanging": health.hanging,
        "files": files.files,
        "help": commands.usage,
        "validate": commands.validate,
        "plan": commands.plan,
        "status": commands.status,
        "fleet": fleet.fleet,
    }
)


def main() -> int:
    """Return 1 if a benchmark could not run, 4 if ``--compare`` found a worse figure, otherwise 0.

    A missed budget is a finding and does not change the exit code.
    """
    parser = _parser()
    arguments = parser.parse_args()
    try:
        records = [read_record(path) for path in arguments.compare]
        command = None if arguments.peer is None else split_command(arguments.peer)
    except ValueError as error:
        parser.error(str(error))
    if len(records) == 2:
        if arguments.quick or arguments.only or arguments.json or command:
            parser.error("with two files, --compare measures nothing; expected no other option")
        return _compare(*records)
    if arguments.outage is not None and not 0 < arguments.outage < float("inf"):
        parser.error(f"expected a positive number of seconds for --outage, found {arguments.outage:g}")
    if len(records) > 2 or (command and arguments.only):
        parser.error("expected at most two files for --compare, and --only or --peer, not both")
    conditions = machine()
    print(", ".join(f"{name} {value}" for name, value in conditions.items()), file=sys.stderr)
    try:
        if command:
            document, failed = asyncio.run(_measure_with_peer(command, arguments, conditions)), False
        else:
            document, failed = _measure_alone(arguments, conditions, has_yardstick=bool(records))
    except RuntimeError as error:
        print(f"nothing could be measured: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        kept = json.loads(arguments.json.read_text()) if arguments.only and arguments.json.exists() else None
        written = document if kept is None else replace_figures(kept, document, arguments.only)
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")
    code = 0
    if records:
        print()
        code = _compare(records[0], parse_record(document))
    return 1 if failed else code


def _parser() -> argparse.ArgumentParser:
    placeholders = "; ".join(f"{{{name}}}: {meaning}" for name, meaning in PLACEHOLDERS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure genplug against its budgets, against another device plugin, or against an earlier record.",
        epilog="exit codes: 0 measured; 1 a benchmark could not run; 2 wrong usage; 4 --compare found a worse figure. "
        "A missed budget does not change the exit code.",
    )
    parser.add_argument("--quick", action="store_true", help="few runs: shows that everything works, not how fast")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=f"of: {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--outage",
        type=float,
        metavar="SECONDS",
        help=f"how long the API server is away in dra-away (default: {Runs().outage:g})",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write conditions, figures and all values here; with --only, the other figures of the file are kept",
    )
    parser.add_argument(
        "--peer",
        metavar="COMMAND",
        help="measure genplug and another device plugin in alternating rounds; the program and its arguments, "
        f"with {placeholders}",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help="compare this run with a record of --json, or compare two records without a run. "
        + RULE.replace("%", "%%"),
    )
    return parser


def _measure_alone(
    arguments: argparse.Namespace, conditions: Mapping[str, str | int], *, has_yardstick: bool
) -> tuple[dict[str, object], bool]:
    """Run the selected benchmarks; return the record, and whether a benchmark failed."""
    names = list(arguments.only or BENCHMARKS)
    if has_yardstick and "yardstick" not in names:
        names.insert(0, "yardstick")
    runs = QUICK if arguments.quick else Runs()
    if arguments.outage is not None:
        runs = replace(runs, outage=arguments.outage)
    found, failed = asyncio.run(_measured(names, runs))
    print(as_table(found))
    return as_json(found, conditions), failed


async def _measure_with_peer(
    command: list[str], arguments: argparse.Namespace, conditions: Mapping[str, str | int]
) -> dict[str, object]:
    """Measure genplug and a peer; return the record.

    Raises:
        RuntimeError: a plugin does not list the devices at all.
    """
    rounds = QUICK_ROUNDS if arguments.quick else Rounds()
    async with as_installed():
        yardstick = figures(await commands.yardstick(QUICK if arguments.quick else Runs()))
        pairs = pair_rounds(*await measure_peer(command, rounds))
    print(f"{as_table(yardstick)}\n\n{format_pairs(pairs)}")
    print(f"Rounds: {rounds.number}. The ratio is genplug divided by the peer.")
    document = as_json(yardstick, conditions)
    encoded = [*document["figures"], *encode_pairs(pairs)]
    return document | {"peer": {"command": arguments.peer, "rounds": rounds.number}, "figures": encoded}


def _compare(earlier: Record, later: Record) -> int:
    """Print the changes; return 4 if a figure became worse."""
    found = compare_records(earlier, later)
    print(format_comparison(found))
    return 4 if found.select("worse") else 0


async def _measured(names: Iterable[str], runs: Runs) -> tuple[list[Figure], bool]:
    """Return the figures, and whether a benchmark failed."""
    found: list[Figure] = []
    failed = False
    async with as_installed():
        for name in names:
            started = time.monotonic()
            try:
                found += figures(await BENCHMARKS[name](runs))
            except (RuntimeError, TimeoutError) as error:
                failed = True
                print(f"{name} could not be measured: {error}", file=sys.stderr)
            else:
                print(f"measured {name} in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return found, failed


if __name__ == "__main__":
    sys.exit(main())
