"""The threat model in SECURITY.md names files and tests that exist."""

import re

from tests.docs.blocks import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
LINKS = re.findall(r"\[([^\]]+)\]\(([^)\s]+)\)", PAGE)
TESTS = [(text.strip("`"), target) for text, target in LINKS if target.startswith("tests/")]


def test_linked_files_exist() -> None:
    files = [target.split("#")[0] for _, target in LINKS if not target.startswith(("http", "#"))]
    assert files
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_linked_tests_exist() -> None:
    assert len(TESTS) > 10
    missing = [
        f"{target}::{name}"
        for name, target in TESTS
        if not re.search(rf"^(async )?def {re.escape(name)}\(", (ROOT / target).read_text(), re.MULTILINE)
    ]
    assert missing == []
