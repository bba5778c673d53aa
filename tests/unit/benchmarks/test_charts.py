"""Scales, ticks and the SVG text of charts with logarithmic axes."""

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.charts import (
    PANEL_WIDTH,
    Chart,
    Line,
    LogScale,
    Panel,
    fit_scale,
    format_number,
    guide_points,
    list_ticks,
    render_chart,
    round_down,
)

SVG = "{http://www.w3.org/2000/svg}"
POSITIVE = st.floats(1e-4, 1e7)


def chart(*lines: Line, panels: int = 1) -> Chart:
    return Chart("Growth", "Two lines.", (Panel("Time", "devices", "ms", lines),) * panels)


def drawn(chart: Chart) -> ET.Element:
    return ET.fromstring(render_chart(chart))


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([10, 20_000], 10, 20_000),
        ([3, 11], 2, 20),
        ([0.055, 3.4], 0.05, 5),
        ([0, 100, 3000], 100, 5000),
        ([51], 50, 100),
        ([10], 5, 20),
        ([], 0.5, 2),
    ],
)
def test_scale_ends_at_round_numbers_around_the_values(values: list[float], low: float, high: float) -> None:
    scale = fit_scale(values, 0, 100)
    assert (scale.low, scale.high) == (low, high)


@given(st.lists(POSITIVE, min_size=1))
def test_scale_contains_its_values(values: list[float]) -> None:
    scale = fit_scale(values, 62, 366)
    assert scale.low < scale.high
    assert all(62 - 1e-6 <= scale.place(value) <= 366 + 1e-6 for value in values)


def test_scale_places_values_by_their_logarithm() -> None:
    scale = LogScale(1, 100, start=200, end=0)
    assert [scale.place(value) for value in (1, 10, 100)] == [200, 100, 0]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (20, 100, (20, 50, 100)),
        (0.05, 2, (0.05, 0.1, 0.2, 0.5, 1, 2)),
        (10, 20_000, (10, 100, 1000, 10_000)),
        (50, 20_000, (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)),
    ],
)
def test_long_scale_has_ticks_at_powers_of_ten_only(low: float, high: float, ticks: tuple[float, ...]) -> None:
    assert list_ticks(low, high) == ticks


@given(POSITIVE)
def test_rounded_number_is_at_most_the_value_and_more_than_half_of_a_step_below(value: float) -> None:
    assert round_down(value) <= value < 2.5 * round_down(value) * (1 + 1e-9)


@pytest.mark.parametrize(("value", "text"), [(0.05, "0.05"), (1, "1"), (500, "500"), (20_000, "20 000")])
def test_number_has_groups_of_three_digits(value: float, text: str) -> None:
    assert format_number(value) == text


@given(st.tuples(POSITIVE, POSITIVE), st.tuples(POSITIVE, POSITIVE))
def test_guide_is_proportional_and_within_the_scales(through: tuple[float, float], other: tuple[float, float]) -> None:
    x, y = (fit_scale(values, 0, 100) for values in zip(through, other, strict=True))
    ends = guide_points(through, x, y)
    assert all(math.isclose(end[1] / end[0], through[1] / through[0]) for end in ends)
    assert ends[0][0] <= through[0] * (1 + 1e-9)
    assert through[0] <= ends[1][0] * (1 + 1e-9)
    assert all(
        -1e-6 <= scale.place(value) <= 100 + 1e-6 for end in ends for scale, value in zip((x, y), end, strict=True)
    )


def test_chart_names_its_axes_lines_and_guide() -> None:
    root = drawn(chart(Line("start to list", ((10, 200), (1000, 900))), Line("a < b", ((10, 5), (1000, 6)))))
    expected = {"Time", "devices", "ms", "start to list", "a < b", "y ∝ x, for comparison", "10", "1 000"}
    assert expected <= set(texts(root))


def test_chart_has_a_title_and_a_description_for_screen_readers() -> None:
    root = drawn(chart(Line("a", ((1, 1), (2, 2)))))
    labels = {element.get("id"): element.text for element in root if element.get("id")}
    assert root.get("role") == "img"
    assert [labels[name] for name in root.get("aria-labelledby", "").split()] == ["Growth", "Two lines."]


def test_chart_has_colors_for_light_and_dark() -> None:
    (style,) = drawn(chart(Line("a", ((1, 1), (2, 2))))).iter(f"{SVG}style")
    light, dark = (style.text or "").split("@media (prefers-color-scheme: dark)")
    for name in (".back", ".grid", ".axis", ".guide", "text", ".s0", ".s1", ".s2", ".m0", ".m1", ".m2"):
        assert all(re.search(rf"{re.escape(name)}[ ,]", part) for part in (light, dark)), name


def test_size_zero_is_beside_the_axis_and_not_connected() -> None:
    root = drawn(chart(Line("a", ((0, 50), (100, 60), (1000, 70)))))
    (line, _legend) = [path for path in root.iter(f"{SVG}path") if path.get("class") == "line s0"]
    markers = [float(circle.get("cx", "")) for circle in root.iter(f"{SVG}circle")][:3]
    assert line.get("d", "").count(" ") == 2
    assert float(line.get("d", "")[1:].split()[0]) == markers[1]
    assert markers == sorted(markers)
    assert "0" in texts(root)


def test_third_panel_is_in_a_second_row() -> None:
    lines = Line("a", ((1, 1), (10, 10)))
    one, three = drawn(chart(lines)), drawn(chart(lines, panels=3))
    assert (one.get("width"), three.get("width")) == (str(PANEL_WIDTH), str(2 * PANEL_WIDTH))
    assert int(three.get("height", "")) == 2 * int(one.get("height", ""))
    moves = [group.get("transform") for group in three.iter(f"{SVG}g")]
    assert moves[1:] == [f"translate({PANEL_WIDTH} 0)", f"translate(0 {one.get('height')})"]
