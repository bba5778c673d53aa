"""The points of docs/internals/kubelet-contract.md, section 10, and the tests whose names have their numbers."""

import re

from tests.support.pages import ROOT

CONTRACT = ROOT / "docs" / "internals" / "kubelet-contract.md"

POINTS_WITHOUT_TEST = {
    80: (
        "`python -m genplug.testing.soak` and `python -m tests.cluster.soak` run for hours, with a seed that replays a "
        "run"
    ),
}
"""Points that no test has in its name, with what covers them instead."""


def read_points() -> dict[int, str]:
    """Return the texts of the points by their numbers, in the order of the page."""
    section = CONTRACT.read_text().partition("\n## 10. ")[2].partition("\n## ")[0]
    points = re.findall(r"^(\d+)\. (.+(?:\n {4}.+)*)", section, re.MULTILINE)
    return {int(number): " ".join(text.split()) for number, text in points}


def find_numbered_tests() -> dict[int, list[str]]:
    """Return the names of the tests of each point, with their files, relative to the directory of all tests."""
    tests: dict[int, list[str]] = {}
    directory = ROOT / "tests"
    for path in sorted(directory.rglob("test_*.py")):
        for name in re.findall(r"^(?:async )?def (test_\d\d_\w+)", path.read_text(), re.MULTILINE):
            # test_15_and_18_... is a test of two points, test_12_300_resources_... of point 12.
            numbers = re.match(r"test_(\d\d)(?:_and_(\d\d))*_", name)
            assert numbers is not None
            for number in filter(None, numbers.groups()):
                tests.setdefault(int(number), []).append(f"{path.relative_to(directory)}::{name}")
    return tests
