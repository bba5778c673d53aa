"""Charts with two logarithmic axes as SVG text: pure functions without a plotting library.

A chart has its own background, in light and dark, so that it can be read on a page of any color. Lines differ in color
and in the shape of their markers.
"""

import html
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

from msgspec import Struct

PANEL_WIDTH: Final = 380
PANELS_PER_ROW: Final = 2
_LEFT, _RIGHT, _BOTTOM = 62, 14, 46
_TITLE_HEIGHT, _LEGEND_LINE, _PLOT_HEIGHT = 30, 17, 210
_ZERO_SLOT = 30
"""Pixels between the size 0, which a logarithmic axis does not have, and the axis."""
_MARKER = 3.5
MAX_FINE_RATIO: Final = 500
"""Ratio of the ends of an axis up to which it has ticks at 1, 2 and 5, not only at powers of ten."""

# The colors of Okabe and Ito, which people with a color vision deficiency can distinguish.
_STYLE = """\
  .back { fill: #ffffff } .grid { stroke: #d9dde2 } .axis { stroke: #5b6570; fill: none }
  text { fill: #1f2328; font: 12px system-ui, sans-serif } .title { font-weight: 600; font-size: 13px }
  .guide { stroke: #5b6570; stroke-dasharray: 5 4; fill: none; stroke-width: 1.3 }
  .line { fill: none; stroke-width: 1.8 }
  .s0 { stroke: #0072b2 } .s1 { stroke: #b34700 } .s2 { stroke: #00795a } .m0 { fill: #0072b2 } .m1 { fill: #b34700 }
  .m2 { fill: #00795a }
  @media (prefers-color-scheme: dark) {
    .back { fill: #14171a } .grid { stroke: #343a41 } .axis, .guide { stroke: #9aa4af } text { fill: #e6e9ec }
    .s0 { stroke: #56b4e9 } .s1 { stroke: #f0a04b } .s2 { stroke: #3fc79a } .m0 { fill: #56b4e9 } .m1 { fill: #f0a04b }
    .m2 { fill: #3fc79a }
  }
"""
MAX_LINES: Final = 3
"""Lines of a panel: each has a color and a shape of its markers."""


class Line(Struct, frozen=True):
    """Points (x, y) with a name. y is positive; x is positive or 0."""

    name: str
    points: tuple[tuple[float, float], ...]


class Panel(Struct, frozen=True):
    """A plot with its axes and the labels of these, with units."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]


class Chart(Struct, frozen=True):
    """Panels side by side; the description is for readers who do not see them."""

    title: str
    description: str
    panels: tuple[Panel, ...]


class LogScale(Struct, frozen=True):
    """A logarithmic scale from ``low`` to ``high``, drawn from pixel ``start`` to pixel ``end``."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return the pixel of a positive value."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def list_ticks(self) -> tuple[float, ...]:
        """Return the values with a label: the powers of ten, and their multiples by 2 and 5 on a short scale."""
        return list_ticks(self.low, self.high)


def fit_scale(values: Iterable[float], start: float, end: float) -> LogScale:
    """Return the scale whose ends are the closest numbers 1, 2 or 5 times a power of ten around positive values."""
    known = sorted(value for value in values if value > 0) or [1.0]
    low, high = round_down(known[0]), -1.0
    exponent = math.floor(math.log10(known[-1]))
    high = next(step for step in _steps(exponent, exponent + 1, (1, 2, 5)) if step >= known[-1])
    if low == high:
        low, high = low / 2, high * 2
    return LogScale(low, high, start, end)


def round_down(value: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is at most a positive value."""
    exponent = math.floor(math.log10(value))
    return max(step for step in _steps(exponent - 1, exponent, (1, 2, 5)) if step <= value)


def list_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return the ticks from ``low`` to ``high``, both included."""
    mantissas = (1, 2, 5) if high / low <= MAX_FINE_RATIO else (1,)
    steps = _steps(math.floor(math.log10(low)), math.ceil(math.log10(high)), mantissas)
    return tuple(step for step in steps if low <= step <= high)


def _steps(first: int, last: int, mantissas: Sequence[int]) -> list[float]:
    """Return multiples of the powers of ten from ``first`` to ``last``, exact as decimal numbers."""
    return [float(f"{mantissa}e{exponent}") for exponent in range(first, last + 1) for mantissa in mantissas]


def format_number(value: float) -> str:
    """Return a number with spaces between groups of digits, as on the pages: 10 000."""
    return f"{value:,.0f}".replace(",", " ") if value >= 1 else f"{value:g}"


def guide_points(through: tuple[float, float], x: LogScale, y: LogScale) -> tuple[tuple[float, float], ...]:
    """Return the ends of the line y ∝ x through a point, within the scales."""
    ratio = through[1] / through[0]
    low, high = max(x.low, y.low / ratio), min(x.high, y.high / ratio)
    return ((low, low * ratio), (high, high * ratio))


def render_chart(chart: Chart) -> str:
    """Return the text of the SVG file of a chart."""
    legend = max(len(panel.lines) for panel in chart.panels) + 1
    height = _TITLE_HEIGHT + legend * _LEGEND_LINE + _PLOT_HEIGHT + _BOTTOM
    rows = math.ceil(len(chart.panels) / PANELS_PER_ROW)
    width = PANEL_WIDTH * min(PANELS_PER_ROW, len(chart.panels))
    size = f"{width} {rows * height}"
    attributes = f'width="{width}" height="{rows * height}" role="img" aria-labelledby="title description"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" {attributes}>',
        f'<title id="title">{html.escape(chart.title)}</title>',
        f'<desc id="description">{html.escape(chart.description)}</desc>',
        f"<style>\n{_STYLE}</style>",
        f'<rect class="back" width="{width}" height="{rows * height}"/>',
    ]
    for number, panel in enumerate(chart.panels):
        row, column = divmod(number, PANELS_PER_ROW)
        parts.append(f'<g transform="translate({column * PANEL_WIDTH} {row * height})">')
        parts += _Plot(panel, _TITLE_HEIGHT + legend * _LEGEND_LINE).render()
        parts.append("</g>")
    return "\n".join((*parts, "</svg>\n"))


class _Plot(Struct, frozen=True, dict=True):
    """A panel with its scales; ``top`` is the upper end of the plot."""

    panel: Panel
    top: float

    @cached_property
    def x(self) -> LogScale:
        """The scale of the horizontal axis."""
        xs = [x for line in self.panel.lines for x, _ in line.points]
        return fit_scale(xs, _LEFT + (_ZERO_SLOT if 0 in xs else 0), PANEL_WIDTH - _RIGHT)

    @cached_property
    def y(self) -> LogScale:
        """The scale of the vertical axis."""
        ys = [y for line in self.panel.lines for _, y in line.points]
        return fit_scale(ys, self.top + _PLOT_HEIGHT, self.top)

    def render(self) -> list[str]:
        """Return the elements of the panel: grid, axes, labels, guide, lines, legend."""
        parts = [_text(_LEFT, 20, self.panel.title, 'class="title"')]
        parts += self._render_axes()
        main = [point for point in self.panel.lines[0].points if point[0] > 0]
        if main:
            ends = guide_points(main[-1], self.x, self.y)
            parts.append(f'<path class="guide" d="{self._path(ends)}"/>')
        for number, line in enumerate(self.panel.lines):
            drawn = [point for point in line.points if point[0] > 0]
            parts.append(f'<path class="line s{number}" d="{self._path(drawn)}"/>')
            parts += [_marker(number, self._place_x(x), self.y.place(y)) for x, y in line.points]
        return [*parts, *self._render_legend()]

    def _render_axes(self) -> list[str]:
        bottom, right = self.top + _PLOT_HEIGHT, PANEL_WIDTH - _RIGHT
        parts = []
        for tick in self.y.list_ticks():
            y = _round(self.y.place(tick))
            parts.append(f'<path class="grid" d="M{_LEFT} {y}H{right}"/>')
            parts.append(_text(_LEFT - 7, float(y) + 4, format_number(tick), 'text-anchor="end"'))
        ticks = [tick for tick in self.x.list_ticks() if math.log10(tick).is_integer()] or list(self.x.list_ticks())
        has_zero = self.x.start > _LEFT
        for tick in (*([0.0] if has_zero else []), *ticks):
            x = _round(self._place_x(tick))
            parts.append(f'<path class="grid" d="M{x} {_round(self.top)}V{_round(bottom)}"/>')
            parts.append(_text(float(x), bottom + 17, format_number(tick) if tick else "0", 'text-anchor="middle"'))
        middle = (_LEFT + right) / 2
        parts.append(f'<path class="axis" d="M{_LEFT} {_round(self.top)}V{_round(bottom)}H{right}"/>')
        parts.append(_text(middle, bottom + 36, self.panel.x_label, 'text-anchor="middle"'))
        middle = self.top + _PLOT_HEIGHT / 2
        parts.append(
            _text(14, middle, self.panel.y_label, f'text-anchor="middle" transform="rotate(-90 14 {_round(middle)})"')
        )
        return parts

    def _render_legend(self) -> list[str]:
        parts = []
        for number, line in enumerate(self.panel.lines):
            y = _TITLE_HEIGHT + number * _LEGEND_LINE + 4
            parts.append(f'<path class="line s{number}" d="M{_LEFT} {y}h24"/>')
            parts += [_marker(number, _LEFT + 12, y), _text(_LEFT + 32, y + 4, line.name)]
        y = _TITLE_HEIGHT + len(self.panel.lines) * _LEGEND_LINE + 4
        parts.append(f'<path class="guide" d="M{_LEFT} {y}h24"/>')
        parts.append(_text(_LEFT + 32, y + 4, "y ∝ x, for comparison"))
        return parts

    def _place_x(self, x: float) -> float:
        return self.x.place(x) if x else _LEFT + 8

    def _path(self, points: Iterable[tuple[float, float]]) -> str:
        places = [f"{_round(self._place_x(x))} {_round(self.y.place(y))}" for x, y in points]
        return f"M{'L'.join(places)}" if places else ""


def _marker(number: int, x: float, y: float) -> str:
    """Return the marker of a line: a circle, a square or a triangle."""
    size = _MARKER
    if number == 0:
        return f'<circle class="m0" cx="{_round(x)}" cy="{_round(y)}" r="{size}"/>'
    if number == 1:
        return (
            f'<rect class="m1" x="{_round(x - size)}" y="{_round(y - size)}" width="{2 * size}" height="{2 * size}"/>'
        )
    return f'<path class="m2" d="M{_round(x)} {_round(y - size - 1)}l{size + 1} {2 * size}h{-2 * size - 2}z"/>'


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    start = f'<text x="{_round(x)}" y="{_round(y)}"'
    return f"{start}{f' {attributes}' if attributes else ''}>{html.escape(text)}</text>"


def _round(value: float) -> str:
    """Return a coordinate with at most one decimal, so that small differences of floats do not change a file."""
    return f"{value:.1f}".removesuffix(".0")
