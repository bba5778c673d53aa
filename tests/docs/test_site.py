"""The documentation builds without a warning, and its figures are those of the benchmarks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT

MAX_README_WORDS = 640


@pytest.mark.docs
def test_site_builds_without_warnings(tmp_path: Path) -> None:
    """A missing page, a missing heading and a page outside every table of contents are warnings of Sphinx."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html", "docs", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    loaded = [
        url
        for page in tmp_path.glob("**/*.html")
        for url in re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(\w+:?//[^"]+)"', page.read_text())
    ]
    assert loaded == [], "the pages must not load anything from other servers"


def test_figures_equal_their_source() -> None:
    command = [sys.executable, "docs/generate_figures.py", "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= MAX_README_WORDS


def test_readme_links_to_existing_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text()) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_marked_regions_are_closed() -> None:
    for page in PAGES:
        text = page.read_text()
        assert text.count("<!-- figures: ") == text.count("<!-- end of figures -->"), page
