"""The page of guarantees names tests that exist, and each promise has a test, a figure and a limit."""

import re

import pytest

from tests.support.pages import ROOT, inline_code, table_rows

PAGE = (ROOT / "docs" / "explanation" / "guarantees.md").read_text()
PROMISES = table_rows(PAGE, "Promise")
RECORDS = sorted(path.stem for path in (ROOT / "docs" / "explanation" / "proof").glob("*.json"))


def test_page_has_promises() -> None:
    assert len(PROMISES) >= 9


@pytest.mark.parametrize("row", PROMISES, ids=lambda row: row[0])
def test_promise_has_tests_a_figure_and_a_limit(row: list[str]) -> None:
    _promise, tests, figure, limit = row
    assert inline_code(tests)
    assert figure
    assert limit


@pytest.mark.parametrize("reference", sorted({name for row in PROMISES for name in inline_code(row[1])}))
def test_test_of_a_promise_exists(reference: str) -> None:
    file, _, name = reference.partition("::")
    path = ROOT / "tests" / file
    assert path.exists()
    if name:
        assert re.search(rf"^(?:async )?def {name}\(", path.read_text(), re.MULTILINE)
    elif path.is_dir():
        assert list(path.glob("test_*.py"))


@pytest.mark.parametrize("record", RECORDS)
def test_record_of_a_run_is_on_the_page(record: str) -> None:
    assert f"<!-- figures: proof {record} -->" in PAGE
