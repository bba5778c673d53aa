"""The command ``python -m genplug.testing.soak``."""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from pathlib import Path

from genplug.testing.soak.actions import ACTIONS
from genplug.testing.soak.clock import find_compiler
from genplug.testing.soak.model import ALL_FAMILIES, World
from genplug.testing.soak.mounts import can_mount
from genplug.testing.soak.report import Report, add_run, record_object, report_object, summarize
from genplug.testing.soak.run import Plan, run_soak, select_kinds

_DESCRIPTION = """\
Run the agent on a fake node, change and break the node at random, and compare the agent with a model after each change:
the device lists of the kubelet, the status, the results of Allocate, and the descriptors, threads, worker processes and
memory of the agent.
"""
_EPILOG = """\
examples:
  python -m genplug.testing.soak --minutes 10
  python -m genplug.testing.soak --minutes 120 --seed 7 --record soak.json
  python -m genplug.testing.soak --seed 7 --steps 250 --verbose      the first 250 steps of seed 7
  python -m genplug.testing.soak --minutes 5 --only flap --only reload

The same seed with the same kinds of steps gives the same steps. SIGINT or SIGTERM ends the soak, and the result covers
the steps until then. Without root, the kinds of steps that mount file systems are left out and listed.

exit codes: 0 every check passed, 1 a check failed, 2 usage error
"""


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m genplug.testing.soak",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=2.0, metavar="N", help="duration (default: 2)")
    parser.add_argument("--seed", type=int, metavar="S", help="seed of the steps (default: a random seed, printed)")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="end after this number of steps")
    kinds = {"choices": sorted(ACTIONS), "action": "append", "default": [], "metavar": "KIND"}
    parser.add_argument("--only", help="execute only this kind of step; can be repeated", **kinds)  # type: ignore[arg-type]
    parser.add_argument("--without", help="leave out this kind of step; can be repeated", **kinds)  # type: ignore[arg-type]
    parser.add_argument("--list-kinds", action="store_true", help="print the kinds of steps and exit")
    parser.add_argument(
        "--settle-seconds",
        type=float,
        default=90.0,
        metavar="SECONDS",
        help="time within which the device lists must be as expected after the last change (default: 90)",
    )
    parser.add_argument(
        "--sabotage",
        type=int,
        default=0,
        metavar="STEP",
        help="remove a device without the knowledge of the model from this step on; the soak must fail",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the log of the agent to this file")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write the figures for the documentation; an existing file gets a further column",
    )
    parser.add_argument("--commit", default="", metavar="ID", help="commit that the record states")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="format (default: text)")
    parser.add_argument("--verbose", action="store_true", help="print each step to stderr")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parse(arguments)
    if options.list_kinds:
        for kind, action in sorted(ACTIONS.items()):
            print(f"{kind:18} {(action.__doc__ or '').splitlines()[0]}{' Requires root.' if action.needs_root else ''}")
        return 0
    seed = random.randrange(10**6) if options.seed is None else options.seed
    has_mounts, has_clock = can_mount(), find_compiler() is not None
    kinds, left_out = select_kinds(options.only, options.without, can_mount=has_mounts, can_change_clock=has_clock)
    if not kinds:
        print("no kind of step is left; remove an option --only or --without", file=sys.stderr)
        return 2
    families = [family for family in ALL_FAMILIES if has_mounts or not family.needs_root]
    print(f"seed {seed}, {len(kinds)} kinds of steps", file=sys.stderr)
    for kind, reason in left_out.items():
        print(f"left out: {kind} ({reason})", file=sys.stderr)
    report = Report(seed, options.minutes, kinds, left_out)
    with tempfile.TemporaryDirectory(prefix="gp") as directory:
        replay = f"python -m genplug.testing.soak --seed {seed} --minutes {options.minutes:g} --verbose"
        replay += "".join(f" --only {kind}" for kind in options.only)
        replay += "".join(f" --without {kind}" for kind in options.without)
        replay += f" --sabotage {options.sabotage}" if options.sabotage else ""
        plan = Plan(
            options.minutes,
            seed,
            World.initial(families),
            kinds,
            left_out,
            options.steps,
            options.sabotage,
            options.settle_seconds,
            options.log or Path(directory) / "log",
            replay,
            options.verbose,
            has_mounts,
        )
        asyncio.run(run_soak(plan, report))
    if options.record is not None:
        record = record_object(report, options.commit)
        if options.record.exists():
            record = add_run(json.loads(options.record.read_text()), record)
        options.record.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(report_object(report), indent=2) if options.output == "json" else summarize(report))
    return 1 if report.failure is not None else 0


if __name__ == "__main__":
    sys.exit(main())
