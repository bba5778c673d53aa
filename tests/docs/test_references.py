"""References in the repository to pages, headings and sections of the documentation lead somewhere."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.docs.blocks import ROOT

CONTRACT = ROOT / "docs/internals/kubelet-contract.md"
SECTIONS = set(re.findall(r"^#+ (\d+(?:\.\d+)?)\.? ", CONTRACT.read_text(), re.MULTILINE))
TEXT_SUFFIXES = {".cfg", ".json", ".md", ".py", ".service", ".sh", ".toml", ".tpl", ".txt", ".yaml", ".yml"}


def tracked_files() -> Iterator[tuple[Path, str]]:
    """Yield the path and the text of each text file that git tracks."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listing.rstrip("\0").split("\0"):
        path = ROOT / name
        if path.suffix in TEXT_SUFFIXES and path.is_file() and not path.is_symlink():
            yield path, path.read_text(errors="replace")


def heading_anchors(page: Path) -> set[str]:
    """Return the anchors of a page: those of its headings as GitHub makes them, and the explicit anchors."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


def test_references_to_pages_exist() -> None:
    missing = []
    for path, text in tracked_files():
        for name, anchor in re.findall(r"\bdocs/([\w./-]+\.md)(#[\w-]+)?", text):
            page = ROOT / "docs" / name
            if page.stem.isupper():
                continue  # a placeholder
            if not page.exists() or (anchor and anchor[1:] not in heading_anchors(page)):
                missing.append(f"{path.relative_to(ROOT)}: docs/{name}{anchor}")
    assert missing == []


def test_references_to_sections_of_the_contract_exist() -> None:
    assert SECTIONS
    missing = [
        f"{path.relative_to(ROOT)}: §{number}"
        for path, text in tracked_files()
        for number in re.findall(r"§(\d+(?:\.\d+)?)", text)
        if number not in SECTIONS
    ]
    assert missing == []
