"""Compare two records of benchmarks: which figures became worse or better by more than the noise."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Final, Literal

from msgspec import Struct

from benchmarks.figures import format_value
from genplug.cli.output import format_table, table_width

YARDSTICK = "yardstick: python -c 'import asyncio, grpc.aio'"

MIN_CHANGE: Final = 0.10
"""The part of the earlier median by which the medians differ at least, if both records have ranges."""
MIN_CHANGE_WITHOUT_RANGE: Final = 0.25
"""The same for a figure that a record measured too few times: unchanged code differed by a quarter between runs."""
MIN_RUNS: Final = 3
"""The number of runs from which a range describes the noise."""
STEADY_UNITS: Final = frozenset({"MiB", "KiB", "bytes", ""})
"""Units of memory and of counts, which do not depend on other programs: for them a range is not needed."""
MIN_DIFFERENCE: Final[Mapping[str, float]] = MappingProxyType(
    {"MiB": 0.5, "KiB": 0.1, "calls": 300, "% of a core": 0.02, "/s": 0.1}
)
"""The smallest difference of medians that counts, by unit: figures of these units can be close to 0."""

MAX_NAMES: Final = 5
"""The number of figures that are named if only one of the records contains them; a larger number is only counted."""

RULE = (
    f"A figure changed if the ranges do not overlap and the medians differ by more than {MIN_CHANGE:.0%} of the "
    f"earlier median; times with fewer than {MIN_RUNS} runs, by more than {MIN_CHANGE_WITHOUT_RANGE:.0%}."
)

Verdict = Literal["worse", "better", "same"]


class Measured(Struct, frozen=True):
    """A figure in a record: its median and range, infinite for a list that the kubelet did not receive in time."""

    name: str
    unit: str
    median: float
    least: float
    greatest: float
    runs: int


class Record(Struct, frozen=True):
    """A record of benchmarks; the figures have their names as keys."""

    conditions: Mapping[str, object]
    figures: Mapping[str, Measured]


class Change(Struct, frozen=True):
    """A figure that both records contain. Every figure is better if it is smaller."""

    earlier: Measured
    later: Measured

    @property
    def relative(self) -> float:
        """The difference of the medians as a part of the earlier median; infinite for an earlier median of 0."""
        earlier, later = self.earlier.median, self.later.median
        if earlier == later:
            return 0.0
        if earlier == 0 or math.isinf(later):
            return math.copysign(math.inf, later - earlier)
        return -1.0 if math.isinf(earlier) else (later - earlier) / abs(earlier)

    @property
    def verdict(self) -> Verdict:
        """Whether the figure changed by more than the noise (:data:`RULE`)."""
        earlier, later = self.earlier, self.later
        has_range = min(earlier.runs, later.runs) >= MIN_RUNS or earlier.unit in STEADY_UNITS
        enough = MIN_CHANGE if has_range else MIN_CHANGE_WITHOUT_RANGE
        overlap = earlier.least <= later.greatest and later.least <= earlier.greatest
        if overlap or abs(self.relative) <= enough:
            return "same"
        if abs(later.median - earlier.median) < MIN_DIFFERENCE.get(earlier.unit, 0):
            return "same"
        return "worse" if self.relative > 0 else "better"


class Comparison(Struct, frozen=True):
    """The figures of both records, and the names of the figures that only one of the records contains."""

    changes: tuple[Change, ...]
    conditions: tuple[str, ...]
    """The conditions that differ, as ``name: earlier, later``."""
    only_earlier: tuple[str, ...]
    only_later: tuple[str, ...]

    def select(self, verdict: Verdict) -> tuple[Change, ...]:
        """Return the figures with a verdict, except the yardstick, which measures the machine."""
        return tuple(
            change for change in self.changes if change.verdict == verdict and change.earlier.name != YARDSTICK
        )

    @property
    def yardstick(self) -> Change | None:
        """The yardstick; None if a record does not contain it."""
        return next((change for change in self.changes if change.earlier.name == YARDSTICK), None)


def read_record(path: Path) -> Record:
    """Return the record in a file of ``--json``.

    Raises:
        ValueError: the file cannot be read, or is not a record of benchmarks.
    """
    try:
        return parse_record(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}; python -m benchmarks --json FILE writes a record") from error


def parse_record(document: Any) -> Record:  # noqa: ANN401 - a document of any shape
    """Return the record in a decoded document.

    Raises:
        ValueError: the document is not a record of benchmarks.
    """
    try:
        figures = [_parse_figure(entry) for entry in document["figures"]]
        return Record(dict(document["conditions"]), {figure.name: figure for figure in figures})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected a record of benchmarks, found {type(error).__name__} {error}") from error


def compare_records(earlier: Record, later: Record) -> Comparison:
    """Return the changes of the figures that have the same name and unit in both records."""
    common = [
        name
        for name, figure in later.figures.items()
        if name in earlier.figures and earlier.figures[name].unit == figure.unit
    ]
    return Comparison(
        tuple(Change(earlier.figures[name], later.figures[name]) for name in common),
        tuple(
            f"{name}: {value}, {later.conditions[name]}"
            for name, value in earlier.conditions.items()
            if name in later.conditions and str(later.conditions[name]) != str(value)
        ),
        tuple(name for name in earlier.figures if name not in common),
        tuple(name for name in later.figures if name not in common),
    )


def format_comparison(found: Comparison) -> str:
    """Return the yardstick, the figures that became worse, those that became better, and the numbers of the others."""
    marked: list[tuple[str, Change]] = [("yardstick", found.yardstick)] if found.yardstick else []
    verdicts: tuple[Verdict, ...] = ("worse", "better")
    marked += [(verdict.upper(), change) for verdict in verdicts for change in found.select(verdict)]
    lines = [_format_changes(marked)] if marked else []
    lines.append(
        f"{len(found.select('worse'))} figures became worse, {len(found.select('better'))} better, "
        f"{len(found.select('same'))} are within the noise."
    )
    if found.yardstick is None:
        lines.append("No yardstick: a record does not contain it, so the speeds of the machines are unknown.")
    elif found.yardstick.verdict != "same":
        lines.append(
            f"The yardstick itself became {found.yardstick.verdict}: the speed of the machine changed, "
            "and with it all times. Repeat the run."
        )
    lines += [f"The conditions differ: {condition}" for condition in found.conditions]
    lines += [
        f"Only in the {which} record: {'; '.join(names) if len(names) <= MAX_NAMES else f'{len(names)} figures'}"
        for which, names in (("earlier", found.only_earlier), ("later", found.only_later))
        if names
    ]
    return "\n".join([*lines, RULE])


def _format_changes(marked: Iterable[tuple[str, Change]]) -> str:
    rows = [
        (
            change.earlier.name,
            *_format_measured(change.earlier),
            *_format_measured(change.later),
            "-" if math.isinf(change.relative) else f"{change.relative:+.0%}",
            mark,
        )
        for mark, change in marked
    ]
    headings = ("FIGURE", "EARLIER", "MIN .. MAX", "LATER", "MIN .. MAX", "CHANGE", "")
    return format_table(headings, rows, table_width())


def _format_measured(figure: Measured) -> tuple[str, str]:
    if math.isinf(figure.median):
        return "not reported", "-"
    greatest = "not reported" if math.isinf(figure.greatest) else format_value(figure.greatest)
    return f"{format_value(figure.median)} {figure.unit}".rstrip(), f"{format_value(figure.least)} .. {greatest}"


def _parse_figure(entry: Mapping[str, Any]) -> Measured:
    """Return a figure from its values, or from its median and range if the record has no values."""
    name, unit = str(entry["name"]), str(entry["unit"])
    if "values" not in entry:
        return Measured(
            name, unit, float(entry["median"]), float(entry["min"]), float(entry["max"]), int(entry["runs"])
        )
    values = [math.inf if value is None else float(value) for value in entry["values"]]
    return Measured(name, unit, median(values), min(values), max(values), len(values))
