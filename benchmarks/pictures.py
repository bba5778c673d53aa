"""The pictures and tables of the growth benchmark in docs/explanation/benchmarks.md, made from its record."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from benchmarks.charts import Chart, Line, Panel, format_number, render_chart
from benchmarks.growth_record import SUBJECTS, UNITS, Point, Record, Series

PANELS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Time": ("start to list", "change to list", "status request"),
        "Processor time of the agent": ("processor time of a start", "processor time of a change"),
        "Memory": ("RSS", "anonymous memory", "anonymous memory of the workers"),
        "Continuous processor time": ("CPU of the agent", "CPU of the workers"),
    }
)
"""The quantities of each panel; all of a panel have the same unit."""


class Labels(Struct, frozen=True):
    """The x axis of a subject, and the step for which the tables state the increase."""

    x: str
    step: int
    step_text: str


LABELS: Final[Mapping[str, Labels]] = MappingProxyType(
    {
        "devices": Labels("devices in one resource", 1000, "1 000 devices"),
        "resources": Labels("resources of ten devices each", 10, "10 resources"),
        "probes": Labels("probes of 1 000 devices", 1000, "1 000 probes"),
        "pods": Labels("pods with a device each", 100, "100 pods"),
    }
)


def render_pictures(record: Record) -> dict[str, str]:
    """Return the text of each SVG file by its name."""
    return {f"growth-{name}.svg": render_chart(build_chart(series)) for name, series in record.items()}


def build_chart(series: Series) -> Chart:
    """Return the chart of a series, with a panel for each group of quantities that was measured."""
    panels = []
    for title, names in PANELS.items():
        lines = tuple(Line(name, points) for name in names if (points := _points(series, name)))
        if lines:
            panels.append(Panel(title, LABELS[series.name].x, UNITS[names[0]], lines))
    described = ", ".join(series.quantities)
    first, last = series.points[0].measured, series.points[-1].measured
    description = f"{described} at {format_number(first)} to {format_number(last)} {series.name}, on logarithmic axes."
    return Chart(f"Growth with {series.name}", description, tuple(panels))


def _points(series: Series, quantity: str) -> tuple[tuple[float, float], ...]:
    """Return the points of a quantity; a logarithmic axis has no value 0."""
    values = ((point.measured, point.smallest(quantity)) for point in series.points)
    return tuple((size, value) for size, value in values if value)


def tabulate_series(series: Series) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the head and the rows of the table of a series: its values, and the last two increases per step.

    Equal increases per step are a straight line.
    """
    names = series.quantities
    head = (series.name.capitalize(), *(f"{name[0].upper()}{name[1:]} ({UNITS[name]})" for name in names))
    rows = [
        (format_number(point.measured), *(_format(point.smallest(name)) for name in names)) for point in series.points
    ]
    for before, after in list(zip(series.points, series.points[1:], strict=False))[-2:]:
        sizes = f"from {format_number(before.measured)} to {format_number(after.measured)}"
        label = f"Increase per {LABELS[series.name].step_text}, {sizes}"
        rows.append((label, *(_format(increase(before, after, name, LABELS[series.name].step)) for name in names)))
    return head, rows


def increase(before: Point, after: Point, quantity: str, step: int) -> float | None:
    """Return by how much a quantity increases per ``step`` between two sizes; None without both values."""
    low, high = before.smallest(quantity), after.smallest(quantity)
    if low is None or high is None:
        return None
    return step * (high - low) / (after.measured - before.measured)


def describe_limit(series: Series) -> str:
    """Return a sentence about the size beyond a limit of genplug, or an empty text if there is none."""
    limits = {subject.name: subject.limit for subject in SUBJECTS}
    return "".join(
        f"{format_number(point.requested)} {series.name} exceed the limit `{limits[series.name]}`, "
        f"so the agent is measured at the limit."
        for point in series.points
        if point.measured < point.requested
    )


def _format(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
