"""The checklists under docs/contributing name files that exist."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

PAGES = sorted((ROOT / "docs" / "contributing").glob("*.md"))
TOPS = ("benchmarks/", "deploy/", "docs/", "examples/", "genplug/", "schemas/", "tests/")
PLACEHOLDER = re.compile(r"[A-Z]{3,}|\+")
"""A name that the reader replaces (``KIND.yaml``), and a changelog fragment (``+KIND.added.md``)."""


def named_paths(page: Path) -> set[str]:
    words = re.findall(r"[\w.+/-]+", page.read_text())
    return {word.rstrip(".") for word in words if word.startswith(TOPS)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_named_files_exist(page: Path) -> None:
    expected = {path for path in named_paths(page) if not PLACEHOLDER.search(path)}
    assert [path for path in sorted(expected) if not (ROOT / path).exists()] == []


def test_checklists_name_files() -> None:
    assert sum(len(named_paths(page)) for page in PAGES) > len(PAGES)
