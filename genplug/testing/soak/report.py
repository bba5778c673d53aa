"""The result of a soak: the document ``SoakReport``, a summary as text, and the record of the proof."""

import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, field

from genplug import __version__
from genplug.testing.soak.footprint import Footprint, footprint_object
from genplug.testing.soak.settles import Group, Settle, SettleTimes

_NO_VALUE: Final = "-"
_SHOWN_PREVIOUS_STEPS: Final = 4
_MAX_CHARACTERS: Final = 240
"""Characters of a line about a settle; a step can name all devices."""
_GROUP_TEXTS: Final = {
    Group.DEVICE_CHANGES: "changes of devices without probes",
    Group.PROBE_RESULTS: "changes of devices with probes and of results",
    Group.OTHERS: "other steps",
    Group.MOVES: "moves of devices to another resource",
}


class Failure(Struct, frozen=True):
    """The check that failed, and the steps before it."""

    step: int
    steps: tuple[str, ...]
    message: str
    replay: str


class Report(Struct):
    """The figures of a soak; they grow while it runs."""

    seed: int
    minutes: float
    kinds: tuple[str, ...]
    left_out: Mapping[str, str]
    steps: Counter[str] = field(default_factory=Counter)
    inner_steps: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    settles: dict[Group, SettleTimes] = field(default_factory=lambda: {group: SettleTimes() for group in Group})
    footprints: dict[str, Footprint] = {}
    maximum: Footprint | None = None
    seconds: float = 0.0
    stopped_by: str = ""
    failure: Failure | None = None

    def add(self, settle: Settle) -> None:
        """Add the times of a settle."""
        self.settles[settle.group].add(settle)

    @property
    def result(self) -> str:
        """``passed``, ``failed``, or ``stopped`` before the end of the time."""
        if self.failure is not None:
            return "failed"
        return "stopped" if self.stopped_by else "passed"


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the maximum of times."""
    if not seconds:
        return {"p50": 0.0, "p95": 0.0, "max": 0.0}
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return {"p50": round(statistics.median(ordered), 3), "p95": round(p95, 3), "max": round(ordered[-1], 3)}


def report_object(report: Report) -> dict[str, Any]:
    """Return the document ``SoakReport``."""
    failure = report.failure
    return {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "SoakReport",
        "result": report.result,
        "stoppedBy": report.stopped_by or None,
        "seed": report.seed,
        "seconds": round(report.seconds, 1),
        "kinds": list(report.kinds),
        "leftOut": [{"kind": kind, "reason": reason} for kind, reason in report.left_out.items()],
        "steps": dict(sorted(report.steps.items())),
        "innerSteps": dict(sorted(report.inner_steps.items())),
        "checks": dict(sorted(report.checks.items())),
        "calls": dict(sorted(report.calls.items())),
        "settles": {
            group.value: {
                "count": len(times.seconds),
                "seconds": quantiles(times.seconds),
                "slowest": [_settle_object(settle) for settle in times.slowest],
            }
            for group, times in report.settles.items()
        },
        "footprints": {name: footprint_object(sample) for name, sample in report.footprints.items()},
        "maximum": None if report.maximum is None else footprint_object(report.maximum),
        "failure": None
        if failure is None
        else {
            "step": failure.step,
            "steps": list(failure.steps),
            "message": failure.message,
            "replay": failure.replay,
        },
    }


def _settle_object(settle: Settle) -> dict[str, Any]:
    return {
        "seconds": round(settle.seconds, 3),
        "time": settle.time,
        "step": settle.step,
        "steps": list(settle.steps),
        "previousSteps": list(settle.previous_steps),
        "awaited": settle.awaited,
    }


def record_object(report: Report, commit: str) -> dict[str, Any]:
    """Return the record of the proof: conditions, columns and rows of text; a run is a column."""

    def number(value: float) -> str:
        return f"{value:,}".replace(",", " ")

    def seconds(values: Sequence[float]) -> str:
        figures = quantiles(values)
        times = ", ".join(f"{name} {figures[name]:.2f} s" for name in ("p50", "p95", "max"))
        return f"{number(len(values))} times: {times}"

    rows = [
        ["Commit", commit or "not stated"],
        ["Duration", f"{report.seconds / 60:.0f} min"],
        ["Result", report.result],
        ["Seed", str(report.seed)],
        ["Steps", number(report.steps.total() + report.inner_steps.total())],
        ["Settles", number(sum(len(times.seconds) for times in report.settles.values()))],
    ]
    changes, probes, others, moves = (report.settles[group].seconds for group in Group)
    rows += [
        ["Time to the true list after changes of devices without probes", seconds(changes)],
        ["Time to the true list after changes of devices with probes and of results", seconds(probes)],
        ["Time to the true list after all steps except moves", seconds([*changes, *probes, *others])],
        ["Time to the true list after moves of devices to another resource", seconds(moves)],
    ]
    rows += [[f"Checks: {name}", number(count)] for name, count in sorted(report.checks.items())]
    rows += [[f"Calls at once: {name}", number(count)] for name, count in sorted(report.calls.items())]
    rows += [[f"Steps: {kind}", number(count)] for kind, count in sorted((report.steps + report.inner_steps).items())]
    samples = dict(report.footprints)
    if report.maximum is not None:
        samples["maximum after the warm-up"] = report.maximum
    for name, sample in samples.items():
        time_text = f" (at {sample.seconds / 60:.0f} min)" if name in report.footprints else ""
        rows.append([f"Use {name}", f"{_describe_use(sample)}{time_text}"])
    rows += [["Kinds of steps that were left out", ", ".join(report.left_out) or "none"]]
    conditions = {
        "date": time.strftime("%Y-%m-%d"),
        "genplug": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "user": "root" if os.geteuid() == 0 else "not root",
        "platform": sys.platform,
    }
    return {"conditions": conditions, "columns": ["Figure", "Run 1"], "rows": rows}


def add_run(previous: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the runs of a previous record and a further run."""
    runs = len(previous["columns"]) - 1
    added: dict[str, str] = dict(record["rows"])
    rows = [[*row, added.pop(row[0], _NO_VALUE)] for row in previous["rows"]]
    rows += [[name, *[_NO_VALUE] * runs, value] for name, value in added.items()]
    columns = [*previous["columns"], f"Run {runs + 1}"]
    return {"conditions": record["conditions"], "columns": columns, "rows": rows}


def _describe_use(sample: Footprint) -> str:
    return (
        f"{sample.descriptors} descriptors, {sample.threads} threads, {sample.workers} workers, "
        f"RSS {sample.rss_kib / 1024:.0f} MiB"
    )


def summarize(report: Report) -> str:
    """Return the result as text."""
    lines = [
        f"result: {report.result}",
        *(": ".join(row) for row in record_object(report, "")["rows"] if row[0] != "Result"),
    ]
    for group, times in report.settles.items():
        if times.slowest:
            lines += ["", f"slowest after {_GROUP_TEXTS[group]}:"]
            lines += [line for settle in times.slowest for line in _describe_settle(settle)]
    if (failure := report.failure) is not None:
        lines += ["", f"check failed at step {failure.step}: {failure.message}", "last steps:"]
        lines += [f"  {step}" for step in failure.steps]
        lines += [f"replay: {failure.replay}"]
    return "\n".join(lines)


def _describe_settle(settle: Settle) -> list[str]:
    lines = [
        f"  {settle.seconds:.2f} s after {settle.time}: {settle.awaited or 'the lists were true at once'}",
        *(f"    {step}" for step in settle.previous_steps[-_SHOWN_PREVIOUS_STEPS:]),
        *(f"  > {step}" for step in settle.steps),
    ]
    return [line if len(line) <= _MAX_CHARACTERS else f"{line[: _MAX_CHARACTERS - 3]}..." for line in lines]
