"""Results: samples compared with budgets, as a table and as JSON."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from attrs import frozen

from benchmarks.budgets import BUDGETS, SOURCE, Budget
from genplug import __version__
from genplug.cli.output import format_table

Samples = Mapping[str, Sequence[float]]
"""Values by the name of their figure, one of each run."""


@frozen
class Figure:
    """A figure with all its values, in the budget's unit."""

    name: str
    budget: Budget
    values: tuple[float, ...]

    @property
    def is_met(self) -> bool | None:
        """Whether the median keeps the budget; None without one."""
        return None if self.budget.most is None else median(self.values) <= self.budget.most


def figures(samples: Samples) -> list[Figure]:
    return [Figure(name, BUDGETS[name], tuple(values)) for name, values in samples.items() if values]


def machine() -> dict[str, str | int]:
    """Return what the figures depend on."""
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "genplug": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "load before": load,
    }


def as_table(found: Iterable[Figure]) -> str:
    rows = [
        (
            one.name,
            f"{_shown(median(one.values))} {one.budget.unit}".rstrip(),
            f"{_shown(min(one.values))} .. {_shown(max(one.values))}",
            str(len(one.values)),
            "-" if one.budget.most is None else f"{one.budget.most:g}",
            {None: "-", True: "met", False: "MISSED"}[one.is_met],
            one.budget.peer or "-",
        )
        for one in found
    ]
    return format_table(("FIGURE", "MEDIAN", "MIN .. MAX", "RUNS", "BUDGET", "", "BEST PEER"), rows)


def as_json(found: Iterable[Figure], conditions: Mapping[str, str | int]) -> dict[str, object]:
    return {
        "conditions": dict(conditions),
        "budgets": SOURCE,
        "figures": [
            {
                "name": one.name,
                "unit": one.budget.unit,
                "median": median(one.values),
                "min": min(one.values),
                "max": max(one.values),
                "values": one.values,
                "budget": one.budget.most,
                "met": one.is_met,
                "peer": one.budget.peer,
            }
            for one in found
        ],
    }


def _shown(value: float) -> str:
    return (
        f"{value:.0f}"
        if abs(value) >= 100 or value == int(value)
        else f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.3g}"
    )
