"""The budgets, and the figures that docs/explanation/benchmarks.json has for them."""

import json

from benchmarks.budgets import BUDGETS
from benchmarks.figures import Figure, as_json, as_table, figures, replace_figures
from tests.support.pages import ROOT

RECORD = json.loads((ROOT / "docs" / "explanation" / "benchmarks.json").read_text())


def test_each_budget_has_a_recorded_figure() -> None:
    recorded = {figure["name"] for figure in RECORD["figures"]}
    assert [name for name, budget in BUDGETS.items() if budget.maximum is not None and name not in recorded] == []


def test_figure_meets_its_budget_with_its_median() -> None:
    met, missed = figures({"RSS": (40, 48, 90), "anonymous memory": (1, 26.1, 27)})
    assert (met.is_met, missed.is_met) == (True, False)
    assert [line.split()[-1] for line in as_table([met, missed]).splitlines()[1:]] == ["met", "MISSED"]
    assert [entry["met"] for entry in as_json([met, missed], {})["figures"]] == [True, False]


def test_figure_without_a_budget_is_neither_met_nor_missed() -> None:
    (figure,) = figures({"threads": (9,)})
    assert figure == Figure("threads", BUDGETS["threads"], (9,))
    assert figure.is_met is None


def test_figures_that_were_measured_again_replace_those_of_a_record() -> None:
    earlier = as_json(figures({"RSS": (40,), "threads": (9,)}), {"load before": "0.1", "python": "3.11"})
    later = as_json(figures({"RSS": (30,)}), {"load before": "0.2", "date": "2026-12-01"})
    merged = replace_figures(earlier, later, ["memory"])
    assert [(figure["name"], figure["median"]) for figure in merged["figures"]] == [("RSS", 30), ("threads", 9)]
    assert merged["conditions"] == {
        "load before": "0.1",
        "python": "3.11",
        "measured again": "memory on 2026-12-01 at load 0.2",
    }
    again = replace_figures(merged, later, ["memory"])
    assert again["conditions"]["measured again"].count("memory on 2026-12-01 at load 0.2") == 2
