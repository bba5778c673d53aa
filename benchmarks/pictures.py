"""The pictures and tables of the growth benchmark in docs/explanation/benchmarks.md, made from its record."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

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


Shape = Literal["constant", "straight", "steep"]
MAX_CONSTANT: Final = 0.1
"""The part of a value by which the next value of a constant quantity differs at most."""
MAX_STRAIGHT: Final = 1.25
"""The ratio of the increases per step up to which a line counts as straight, because the values vary between runs."""


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


def classify_growth(series: Series, quantity: str) -> Shape | None:
    """Return how a quantity grows between the last three sizes; None if it was not measured at each of them.

    It is constant if the last two values differ by at most :data:`MAX_CONSTANT`, and steep if the increase per step is
    more than :data:`MAX_STRAIGHT` times that between the two sizes before.
    """
    low, middle, high = series.points[-3:]
    earlier, later = increase(low, middle, quantity, 1), increase(middle, high, quantity, 1)
    before = middle.smallest(quantity)
    if earlier is None or later is None or before is None:
        return None
    if abs(later) * (high.measured - middle.measured) <= MAX_CONSTANT * before:
        return "constant"
    return "steep" if later > MAX_STRAIGHT * max(earlier, 0) else "straight"


def describe_growth(series: Series) -> list[str]:
    """Return a sentence for each shape with the quantities that have it, and with their increase per step."""
    labels = LABELS[series.name]
    middle, high = series.points[-2:]
    named: dict[Shape, list[str]] = {"constant": [], "straight": [], "steep": []}
    for quantity in series.quantities:
        shape = classify_growth(series, quantity)
        if shape == "constant":
            named["constant"].append(quantity)
        elif shape is not None:
            step = _format(increase(middle, high, quantity, labels.step))
            named[shape].append(f"{quantity} ({step} {UNITS[quantity]} per {labels.step_text})")
    sizes = f"from {format_number(middle.measured)} to {format_number(high.measured)} {series.name}"
    meanings: dict[Shape, str] = {
        "constant": f"At most {MAX_CONSTANT:.0%} more",
        "straight": "A straight line or flatter",
        "steep": "Steeper than a straight line",
    }
    return [f"{meaning} {sizes}: {', '.join(named[shape])}." for shape, meaning in meanings.items() if named[shape]]


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
