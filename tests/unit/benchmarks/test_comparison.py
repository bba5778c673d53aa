"""The comparison of two records of benchmarks: what is worse than the noise."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.comparison import YARDSTICK, Record, compare_records, format_comparison, parse_record, read_record

Values = Sequence[float | None]


def make_document(figures: Mapping[str, Values], unit: str = "ms", cores: int = 2) -> dict[str, object]:
    entries = [{"name": name, "unit": unit, "values": values} for name, values in figures.items()]
    return {"conditions": {"cores": cores}, "figures": entries}


def make_record(values: Values, unit: str = "ms") -> Record:
    return parse_record(make_document({"x": values}, unit))


@pytest.mark.parametrize(
    ("earlier", "later", "unit", "verdict"),
    [
        pytest.param((10, 11, 12), (13, 14, 15), "ms", "worse", id="ranges apart and 27 %"),
        pytest.param((13, 14, 15), (10, 11, 12), "ms", "better", id="ranges apart and -21 %"),
        pytest.param((10, 11, 14), (13, 14, 15), "ms", "same", id="ranges overlap"),
        pytest.param((10, 11, 13), (13, 14, 15), "ms", "same", id="ranges touch"),
        pytest.param((13, 14, 15), (10, 11, 13), "ms", "same", id="ranges touch from above"),
        pytest.param((100, 100, 101), (110, 110, 110), "ms", "same", id="exactly 10 %"),
        pytest.param((100, 100, 101), (111, 111, 111), "ms", "worse", id="more than 10 %"),
        pytest.param((100,), (120,), "ms", "same", id="single runs and 20 %"),
        pytest.param((100, 100, 100), (120, 120), "ms", "same", id="two runs later and 20 %"),
        pytest.param((100,), (126,), "ms", "worse", id="single runs and 26 %"),
        pytest.param((100,), (112,), "ms", "same", id="a time of a single run and 12 %"),
        pytest.param((100,), (112,), "MiB", "worse", id="memory of a single run and 12 %"),
        pytest.param((100,), (109,), "MiB", "same", id="memory of a single run and 9 %"),
        pytest.param((100,), (112,), "", "worse", id="a count of a single run and 12 %"),
        pytest.param((560,), (727,), "calls", "same", id="system calls of a single run and 30 %"),
        pytest.param((560,), (900,), "calls", "worse", id="system calls of a single run and 61 %"),
        pytest.param((0, 0, 0), (1, 1, 1), "", "worse", id="earlier median of 0"),
        pytest.param((0, 0, 0), (0, 0, 0), "", "same", id="both 0"),
        pytest.param((0, 0, 0), (0.4, 0.4, 0.4), "MiB", "same", id="less than the smallest difference"),
        pytest.param((0, 0, 0), (0.6, 0.6, 0.6), "MiB", "worse", id="more than the smallest difference"),
        pytest.param((0.1, 0.1, 0.1), (0.19, 0.19, 0.19), "KiB", "same", id="less than the smallest KiB"),
        pytest.param((0.1, 0.1, 0.1), (0.21, 0.21, 0.21), "KiB", "worse", id="more than the smallest KiB"),
        pytest.param((10, 11, 12), (None, None, None), "ms", "worse", id="not reported any more"),
        pytest.param((None, None, None), (10, 11, 12), "ms", "better", id="reported now"),
        pytest.param((None, None, None), (None, None, None), "ms", "same", id="never reported"),
    ],
)
def test_verdict_needs_distinct_ranges_and_a_large_change(
    earlier: Values, later: Values, unit: str, verdict: str
) -> None:
    (change,) = compare_records(make_record(earlier, unit), make_record(later, unit)).changes
    assert change.verdict == verdict


@pytest.mark.parametrize(
    ("earlier", "later", "relative"),
    [((4,), (5,), 0.25), ((4,), (3,), -0.25), ((0,), (1,), math.inf), ((None,), (1,), -1), ((None,), (None,), 0)],
)
def test_change_is_a_part_of_the_earlier_median(earlier: Values, later: Values, relative: float) -> None:
    (change,) = compare_records(make_record(earlier), make_record(later)).changes
    assert change.relative == relative


def test_record_without_values_is_compared_by_its_range() -> None:
    entry = {"name": "x", "unit": "ms", "median": 5, "min": 4, "max": 6, "runs": 20}
    earlier = parse_record({"conditions": {}, "figures": [entry]})
    (change,) = compare_records(earlier, make_record((7, 8, 9))).changes
    assert change.verdict == "worse"


def test_figures_of_one_record_are_named_and_not_compared() -> None:
    earlier = parse_record(make_document({"gone": (1,), "both": (1,)}))
    later = parse_record(make_document({"both": (1,), "new": (1,)}))
    found = compare_records(earlier, later)
    assert [change.earlier.name for change in found.changes] == ["both"]
    assert (found.only_earlier, found.only_later) == (("gone",), ("new",))


def test_yardstick_is_shown_and_no_verdict_about_genplug() -> None:
    earlier = parse_record(make_document({YARDSTICK: (80, 81, 82), "x": (1, 1, 1)}, cores=2))
    later = parse_record(make_document({YARDSTICK: (180, 181, 182), "x": (1, 1, 1)}, cores=4))
    found = compare_records(earlier, later)
    assert found.select("worse") == ()
    text = format_comparison(found)
    assert "+123%" in text
    assert "The yardstick itself became worse" in text
    assert "The conditions differ: cores: 2, 4" in text


def test_comparison_lists_worse_and_better_figures_with_the_rule() -> None:
    earlier = parse_record(make_document({"slow": (1, 1, 1), "fast": (9, 9, 9), "even": (5, 5, 5)}))
    later = parse_record(make_document({"slow": (2, 2, 2), "fast": (3, 3, 3), "even": (5, 5, 5)}))
    lines = format_comparison(compare_records(earlier, later)).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["slow", "fast"]
    assert lines[1].split()[-2:] == ["+100%", "WORSE"]
    assert lines[2].split()[-2:] == ["-67%", "BETTER"]
    assert lines[3] == "1 figures became worse, 1 better, 1 are within the noise."
    assert lines[-1].startswith("A figure changed if the ranges do not overlap")


@pytest.mark.parametrize("document", [[], {}, {"conditions": {}, "figures": [{"name": "x"}]}, {"figures": 1}])
def test_other_document_is_not_a_record(document: object, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(document))
    with pytest.raises(
        ValueError, match=r"expected a record of benchmarks, found .*; python -m benchmarks --json FILE"
    ):
        read_record(path)


@pytest.mark.parametrize(("later", "code"), [((2, 2, 2), 4), ((1, 1, 1), 0), ((0.5, 0.5, 0.5), 0)])
def test_exit_code_is_4_if_a_figure_became_worse(
    later: Values, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "earlier.json", tmp_path / "later.json"]
    for path, values in zip(paths, ((1, 1, 1), later), strict=True):
        path.write_text(json.dumps(make_document({"x": values})))
    monkeypatch.setattr("sys.argv", ["benchmarks", "--compare", *map(str, paths)])
    assert main() == code


def test_missing_record_is_refused_before_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "--only", "help", "--compare", str(tmp_path / "no.json")])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
