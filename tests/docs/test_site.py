"""The documentation builds without a warning, and its figures are those of the benchmarks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT

MAX_README_WORDS = 640

OTHER_PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("changelog.d/README.md"), *ROOT.glob("deploy/**/*.md")])
"""Pages outside ``docs``: Sphinx does not check their links."""

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]+))?\)")


# A build uses 25 s of processor time, a third of it for the sidebars of the pages; a busy machine takes much longer.
@pytest.mark.timeout(300)
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


@pytest.mark.parametrize("page", OTHER_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_outside_the_site_lead_to_existing_headings(page: Path) -> None:
    for target, anchor in RELATIVE_LINK.findall(FENCE.sub("", page.read_text())):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", FENCE.sub("", file.read_text()), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-").lower() for heading in headings]
            assert anchor in slugs, f"{target}#{anchor}"


def test_marked_regions_are_closed() -> None:
    for page in PAGES:
        text = page.read_text()
        assert text.count("<!-- figures: ") == text.count("<!-- end of figures -->"), page
