"""``python -m tests.fuzz``: run the fuzzing targets, print a table, and keep inputs and statistics in a directory."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fuzz.inputs import limit_size, write_corpus
from tests.fuzz.instrument import load_instrumented
from tests.fuzz.runner import Limits, fuzz, minimize
from tests.fuzz.state import State, Statistics
from tests.fuzz.target import Target


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--target", metavar="NAME", action="append", default=[], help="run this target only; repeatable"
    )
    parser.add_argument(
        "--minutes",
        metavar="N",
        type=float,
        help="time of all targets together (default: 60); 0 runs nothing, for --record",
    )
    parser.add_argument("--runs", metavar="N", type=int, help="inputs of each target, instead of a time")
    parser.add_argument("--short", action="store_true", help="the number of inputs that each target has for CI")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="makes two runs equal (default: random)")
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        default=Path("build/fuzz"),
        help="directory with inputs, findings and statistics, which a later run continues (default: build/fuzz)",
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        type=Path,
        help="write the statistics of the directory as JSON; FILE keeps those of targets without a run",
    )
    parser.add_argument(
        "--minimize",
        action="store_true",
        help="write the smallest set of inputs to tests/fuzz/corpus, instead of a run",
    )
    parser.add_argument("--list", action="store_true", help="print the names of the targets")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse_arguments(arguments)
    targets = load_instrumented()
    if unknown := {*options.target} - {target.name for target in targets}:
        print(f"unknown target: {', '.join(sorted(unknown))}; --list prints the names", file=sys.stderr)
        return 2
    selected = [target for target in targets if target.name in options.target] if options.target else targets
    if options.list:
        print("\n".join(target.name for target in selected))
        return 0
    state = State.open(options.state)
    if options.minimize:
        for target in selected:
            write_corpus(target, limit_size(minimize(target, state)))
        return 0
    shares = sum(target.share for target in selected)
    minutes = options.minutes if options.minutes is not None else 60.0
    failed = 0
    if minutes == 0:
        selected = []
    for target in selected:
        if options.short or options.runs is not None:
            limits = Limits(inputs=options.runs or target.short_runs, seed=options.seed)
        else:
            limits = Limits(seconds=minutes * 60 * target.share / shares, seed=options.seed)
        run = fuzz(target, state, limits)
        findings = state.list_findings(target)
        failed += len(findings)
        print(describe_run(target, run, findings), flush=True)
    from tests.fuzz.record import build_record, format_record, write_record  # noqa: PLC0415 - imports genplug

    record = build_record(targets, state, options.record)
    if not options.short:
        print(f"\nAll runs in {options.state}:\n\n{format_record(record)}")
    if options.record is not None:
        write_record(options.record, record)
    return 1 if failed else 0


def describe_run(target: Target, run: Statistics, findings: Mapping[str, str]) -> str:
    """Return a line about a run, and a line for each finding that is not fixed."""
    speed = run.inputs / run.seconds if run.seconds else 0.0
    text = (
        f"{target.name:24} {run.inputs:>10} inputs {run.seconds:>7.1f} s {speed:>8.0f}/s "
        f"{run.edges:>6} edges {run.features:>6} features {len(findings):>3} findings"
    )
    return "\n".join((text, *(f"  {path}: {summary}" for path, summary in findings.items())))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
