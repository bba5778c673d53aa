"""Results: samples compared with budgets, as a table and as JSON."""

import datetime as dt
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct

from benchmarks.budgets import BUDGETS, SOURCE, Budget
from genplug import __version__
from genplug.cli.output import format_table

_AGAIN = "measured again"
"""The condition of a record that names the benchmarks that ran later than the others."""

Samples = Mapping[str, Sequence[float]]
"""The values of each figure by its name, one value per run."""


class Figure(Struct, frozen=True):
    """A figure with all its values, in the unit of its budget."""

    name: str
    budget: Budget
    values: tuple[float, ...]

    @property
    def is_met(self) -> bool | None:
        """Whether the median keeps the budget; None without figure."""
        return None if self.budget.maximum is None else median(self.values) <= self.budget.maximum


def figures(samples: Samples) -> list[Figure]:
    return [Figure(name, BUDGETS[name], tuple(values)) for name, values in samples.items() if values]


def machine() -> dict[str, str | int]:
    """Return the date, and the conditions of the machine without the patch level of the kernel."""
    load = " ".join(f"{average:.1f}" for average in os.getloadavg())
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "genplug": __version__,
        "python": platform.python_version(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "load before": load,
    }


def as_table(found: Iterable[Figure]) -> str:
    rows = [
        (
            figure.name,
            f"{format_value(median(figure.values))} {figure.budget.unit}".rstrip(),
            f"{format_value(min(figure.values))} .. {format_value(max(figure.values))}",
            str(len(figure.values)),
            "-" if figure.budget.maximum is None else f"{figure.budget.maximum:g}",
            {None: "-", True: "met", False: "MISSED"}[figure.is_met],
        )
        for figure in found
    ]
    return format_table(("FIGURE", "MEDIAN", "MIN .. MAX", "RUNS", "BUDGET", ""), rows)


def as_json(found: Iterable[Figure], conditions: Mapping[str, str | int]) -> dict[str, Any]:
    return {
        "conditions": dict(conditions),
        "budgets": SOURCE,
        "figures": [
            {
                "name": figure.name,
                "unit": figure.budget.unit,
                "median": median(figure.values),
                "min": min(figure.values),
                "max": max(figure.values),
                "values": figure.values,
                "budget": figure.budget.maximum,
                "met": figure.is_met,
            }
            for figure in found
        ],
    }


def replace_figures(record: Mapping[str, Any], measured: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return a record with the figures that some benchmarks measured again; the conditions state which and when."""
    again = {figure["name"]: figure for figure in measured["figures"]}
    figures = {figure["name"]: figure for figure in record["figures"]} | again
    conditions = measured["conditions"]
    note = f"{', '.join(names)} on {conditions['date']} at load {conditions['load before']}"
    previous = record["conditions"].get(_AGAIN)
    notes = f"{previous}; {note}" if previous else note
    return {**record, "conditions": {**record["conditions"], _AGAIN: notes}, "figures": list(figures.values())}


def format_value(value: float) -> str:
    return (
        f"{value:.0f}"
        if abs(value) >= 100 or value == int(value)
        else f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.3g}"
    )
