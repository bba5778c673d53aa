"""The record of the growth benchmark, and the pictures and tables that are made from it."""

import json
import re
from typing import Any

import pytest

from benchmarks.growth import QUICK, Effort, format_series, share_probes
from benchmarks.growth_record import SUBJECTS, UNITS, Point, Series, Subject, decode_record, encode_record
from benchmarks.pictures import (
    LABELS,
    PANELS,
    build_chart,
    classify_growth,
    describe_growth,
    describe_limit,
    increase,
    render_pictures,
    tabulate_series,
)
from tests.support.pages import ROOT

DOCUMENT = json.loads((ROOT / "docs" / "explanation" / "growth.json").read_text())
RECORD = decode_record(DOCUMENT)
PAGE = (ROOT / "docs" / "explanation" / "benchmarks.md").read_text()

SERIES = Series(
    "resources",
    {"load before": "0.1"},
    (
        Point(1, 1, {"start to list": (310.0, 300.0), "RSS": (50.0,)}),
        Point(100, 100, {"start to list": (1300.0,), "RSS": (60.0,)}),
        Point(1000, 300, {"start to list": (3300.0,), "RSS": (80.0,), "CPU of the workers": (0.0,)}),
    ),
)


def document(**changes: Any) -> dict[str, Any]:
    point = {"requested": 1, "measured": 1, "values": {"RSS": [50.0]}} | changes
    return {"series": [{"name": "devices", "conditions": {}, "points": [point]}]}


def test_size_beyond_a_limit_is_measured_at_the_limit_once() -> None:
    subject = Subject("x", (1, 300, 1000), 300, "MAX")
    assert subject.sizes_to_measure() == ((1, 1), (1000, 300))
    assert subject.sizes_to_measure(highest=300) == ((1, 1), (300, 300))


def test_subject_without_a_limit_is_measured_at_each_size() -> None:
    assert Subject("x", (0, 7)).sizes_to_measure() == ((0, 0), (7, 7))


@pytest.mark.parametrize("effort", [Effort(), QUICK])
def test_each_subject_has_two_sizes_or_more(effort: Effort) -> None:
    assert all(len(subject.sizes_to_measure(effort.highest)) >= 2 for subject in SUBJECTS)


@pytest.mark.parametrize(
    ("size", "shares"), [(0, (0, 0, 0)), (100, (1, 0, 0)), (300, (1, 1, 1)), (1000, (4, 3, 3)), (20_000, (67, 67, 66))]
)
def test_probes_are_shared_by_resources(size: int, shares: tuple[int, ...]) -> None:
    assert share_probes(size, 3) == shares


def test_record_is_decoded_as_it_was_encoded() -> None:
    record = {"resources": SERIES}
    assert decode_record(json.loads(json.dumps(encode_record(record)))) == record


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (document(values={"speed": [1.0]}), "expected a quantity of start to list, .*, found speed"),
        (document(values={"RSS": []}), "RSS: expected a value, found an empty list"),
        ({"series": [{"name": "kubelets", "conditions": {}, "points": []}]}, "expected a series of .*, found kubelets"),
        (
            {"series": [{**document()["series"][0], "points": document()["series"][0]["points"] * 2}]},
            r"devices: expected each size once, in ascending order, found \[1, 1\]",
        ),
    ],
)
def test_broken_record_is_an_error(broken: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        decode_record(broken)


def test_smallest_value_of_a_quantity_is_shown() -> None:
    assert SERIES.points[0].smallest("start to list") == 300
    assert SERIES.points[0].smallest("change to list") is None


def test_each_quantity_is_in_a_panel_with_its_unit() -> None:
    assert sorted(name for names in PANELS.values() for name in names) == sorted(UNITS)
    assert [len({UNITS[name] for name in names}) for names in PANELS.values()] == [1] * len(PANELS)
    assert LABELS.keys() == {subject.name for subject in SUBJECTS}


def test_chart_has_a_panel_for_each_measured_group_without_values_of_zero() -> None:
    chart = build_chart(SERIES)
    assert [(panel.title, panel.y_label, [line.name for line in panel.lines]) for panel in chart.panels] == [
        ("Time", "ms", ["start to list"]),
        ("Memory", "MiB", ["RSS"]),
    ]
    assert chart.panels[0].lines[0].points == ((1, 300), (100, 1300), (300, 3300))


def test_increase_is_stated_per_step() -> None:
    assert increase(SERIES.points[1], SERIES.points[2], "start to list", 10) == 100
    assert increase(SERIES.points[0], SERIES.points[2], "CPU of the workers", 10) is None


def test_table_has_values_and_the_last_two_increases() -> None:
    head, rows = tabulate_series(SERIES)
    assert head == ("Resources", "Start to list (ms)", "RSS (MiB)", "CPU of the workers (% of a core)")
    assert rows == [
        ("1", "300", "50", ""),
        ("100", "1300", "60", ""),
        ("300", "3300", "80", "0"),
        ("Increase per 10 resources, from 1 to 100", "101", "1.01", ""),
        ("Increase per 10 resources, from 100 to 300", "100", "1", ""),
    ]


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ((100, 100, 100), "constant"),
        ((100, 100, 110), "constant"),
        ((100, 200, 222), "straight"),
        ((0, 100, 350), "steep"),
        ((0, 100, 225), "straight"),
        ((100, 50, 60), "steep"),
        ((100, 90, 60), "straight"),
    ],
)
def test_growth_is_classified_by_the_last_two_increases(values: tuple[float, ...], shape: str) -> None:
    points = tuple(Point(size, size, {"RSS": (value,)}) for size, value in zip((0, 10, 20), values, strict=True))
    assert classify_growth(Series("devices", {}, points), "RSS") == shape


def test_growth_is_described_by_its_shape_with_the_increase() -> None:
    (sentence,) = describe_growth(SERIES)
    assert sentence == (
        "A straight line or flatter from 100 to 300 resources: start to list (100 ms per 10 resources), "
        "RSS (1 MiB per 10 resources)."
    )


@pytest.mark.parametrize("series", RECORD.values(), ids=RECORD)
def test_each_steep_quantity_has_a_reason_on_the_page(series: Series) -> None:
    (section,) = re.findall(rf"^### Growth with {series.name}\n(.*?)^<!-- figures", PAGE, re.MULTILINE | re.DOTALL)
    named = {name.lower() for names in re.findall(r"^- (.*?):", section, re.MULTILINE) for name in names.split(", ")}
    steep = {name.lower() for name in series.quantities if classify_growth(series, name) == "steep"}
    assert steep - named == set(), "a quantity that grows more than in proportion needs a reason"
    assert named - steep == set(), "a quantity that does not grow more than in proportion needs no reason"


def test_limit_is_described_only_for_a_size_beyond_it() -> None:
    assert describe_limit(SERIES) == (
        "1 000 resources exceed the limit `MAX_RESOURCES`, so the agent is measured at the limit."
    )
    assert describe_limit(Series("resources", {}, SERIES.points[:2])) == ""


def test_table_of_the_command_has_the_measured_quantities() -> None:
    head, first, *_ = format_series(SERIES).splitlines()
    assert head.split("  ")[0] == "RESOURCES"
    assert "CHANGE TO LIST" not in head
    assert first.split() == ["1", "300", "50", "-"]


def test_record_of_the_documentation_has_each_subject_with_its_conditions() -> None:
    assert list(RECORD) == [subject.name for subject in SUBJECTS]
    for series in RECORD.values():
        assert {"date", "genplug", "load before", "load after"} <= series.conditions.keys()
        assert {"start to list", "change to list", "RSS", "anonymous memory"} <= set(series.quantities)


@pytest.mark.parametrize("name", RECORD)
def test_picture_equals_what_the_record_gives(name: str) -> None:
    file = f"growth-{name}.svg"
    assert (ROOT / "docs" / "images" / file).read_text() == render_pictures(RECORD)[file]
    assert f"](../images/{file})" in PAGE
    assert f"<!-- figures: growth {name} -->" in PAGE
