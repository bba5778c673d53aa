"""The numbers in test names are points of the checklist in docs/internals/kubelet-contract.md, section 10."""

import re

from tests.support.pages import ROOT

CONTRACT = ROOT / "docs" / "internals" / "kubelet-contract.md"

POINTS_WITHOUT_TEST = {
    76: "no test starts the agent as a user who cannot connect to kubelet.sock",
    77: "tests/image runs without capabilities and with a read-only root file system, but without seccomp and SELinux",
    80: "the benchmarks restart the kubelet 50 times; no test runs for hours",
    81: "tests/cluster covers the steps on the versions that tests/cluster/build has built",
    82: "tests/cluster compares the devices of the kubelet with those of genplug status, not with the metrics",
}
"""Points that no test has in its name, with what covers them instead."""


def read_points() -> list[int]:
    """Return the numbers of the points, in the order of the page."""
    section = CONTRACT.read_text().partition("\n## 10. ")[2].partition("\n## ")[0]
    return [int(number) for number in re.findall(r"^(\d+)\. ", section, re.MULTILINE)]


def find_numbered_tests() -> dict[int, list[str]]:
    """Return the names of the tests of each point."""
    tests: dict[int, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(r"^(?:async )?def (test_\d\d_\w+)", path.read_text(), re.MULTILINE):
            # test_15_and_18_... is a test of two points, test_12_300_resources_... of point 12.
            numbers = re.match(r"test_(\d\d)(?:_and_(\d\d))*_", name)
            assert numbers is not None
            for number in filter(None, numbers.groups()):
                tests.setdefault(int(number), []).append(f"{path.relative_to(ROOT)}::{name}")
    return tests


def test_points_are_numbered_without_gaps() -> None:
    points = read_points()
    assert len(points) > 80
    assert points == list(range(1, len(points) + 1))


def test_every_number_in_a_test_name_is_a_point() -> None:
    unknown = {number: names for number, names in find_numbered_tests().items() if number not in read_points()}
    assert unknown == {}


def test_every_point_has_a_test_or_is_listed_without_one() -> None:
    assert sorted(set(read_points()) - find_numbered_tests().keys()) == sorted(POINTS_WITHOUT_TEST)
