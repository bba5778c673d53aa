"""A search for a glob ends soon, however the glob and the directories are made, or with an error that has the limit."""

import time

import pytest
from msgspec.structs import replace

from genplug.hardware.candidate_budget import CandidateBudget
from genplug.hardware.discovery import discover, scan_resource
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from genplug.hardware.scan_errors import HangError, SearchLimitError
from genplug.spec.globs import Glob, Segment
from genplug.spec.limits import MAX_CANDIDATES, MAX_COMPARISONS, MAX_MATCHES, MAX_NODES_PER_DEVICE, MAX_SEARCHED_ENTRIES
from tests.support.configs import load_resource
from tests.support.hardware import NodeTree, build_config


def make_loop(tree: NodeTree, links: int) -> None:
    """Create a directory with symlinks to itself, through which ``*`` leads without an end."""
    tree.write("/sys/loop/file", "")
    for number in range(links):
        tree.link(f"/sys/loop/l{number}", ".")


@pytest.mark.parametrize(
    "pattern", ["/sys/**/**/**/**/**/**/**/**/zz", "/sys/**/*/**/*/**/*/**/*/**/*/**/zz", "/sys/**/d/**/d/**/d/**/d/**"]
)
def test_search_with_many_double_stars_visits_each_directory_a_few_times(tree: NodeTree, pattern: str) -> None:
    tree.write("/sys/" + "d/" * 60 + "file", "")
    started = time.process_time()
    found = Host.at(tree.root).cached().glob(Glob.parse(pattern))
    assert time.process_time() - started < 1
    assert all("file" in path or path.endswith("/d") for path in found.paths)


def test_search_compares_only_the_names_with_the_first_letters_of_the_glob(
    tree: NodeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        tree.write(f"/dev/x{number:02}", "")
    compared: list[str] = []
    matches = Segment.matches

    def record(segment: Segment, name: str) -> bool:
        compared.append(name)
        return matches(segment, name)

    monkeypatch.setattr(Segment, "matches", record)
    found = Host.at(tree.root).cached().glob(Glob.parse("/dev/x4*"))
    assert found.paths == tuple(f"/dev/{name}" for name in compared)
    assert compared == [f"x4{digit}" for digit in range(10)]


def test_search_that_follows_symlinks_without_an_end_is_an_error_with_the_limit(tree: NodeTree) -> None:
    make_loop(tree, 60)
    with pytest.raises(SearchLimitError, match=f"more than {MAX_SEARCHED_ENTRIES} directory entries") as caught:
        Host.at(tree.root).cached().glob(Glob.parse("/sys/loop/*/*/*/*/*/*/zz"))
    assert "'/sys/loop/*/*/*/*/*/*/zz'" in str(caught.value)


def test_glob_with_too_many_matches_is_an_error_with_the_limit(tree: NodeTree) -> None:
    make_loop(tree, 30)
    with pytest.raises(SearchLimitError, match=f"matches more than {MAX_MATCHES} paths"):
        Host.at(tree.root).cached().glob(Glob.parse("/sys/loop/*/*/*"))


def test_globs_with_too_many_matches_together_are_an_error_with_the_limit(tree: NodeTree) -> None:
    make_loop(tree, 25)
    resource = load_resource("devices: [{glob: [/sys/loop/*/*/*, /sys/./loop/l0/*/*/*]}]")
    with pytest.raises(SearchLimitError, match=f"more than {MAX_MATCHES} paths"):
        scan_resource(resource, Host.at(tree.root).cached())


def test_entries_with_too_many_matches_together_are_an_error_with_the_limit(tree: NodeTree) -> None:
    make_loop(tree, 25)
    resource = load_resource("devices: [{glob: /sys/loop/*/*/*}, {glob: /sys/loop/l0/*/*/*}]")
    with pytest.raises(SearchLimitError, match=f"match more than {MAX_MATCHES} paths together"):
        scan_resource(resource, Host.at(tree.root).cached())


def test_search_in_known_directories_has_the_time_limit_of_its_thread(tree: NodeTree) -> None:
    make_loop(tree, 60)
    paths = HungPaths()
    host = Host.at(tree.root, recorder=paths.record).cached()
    host.glob(Glob.parse("/sys/loop/*"))
    paths.begin(0.0)
    with pytest.raises(HangError, match="has not finished within"):
        host.glob(Glob.parse("/sys/loop/*"))
    paths.end()


def test_device_with_too_many_nodes_is_unhealthy_with_the_limit(tree: NodeTree) -> None:
    for number in range(MAX_NODES_PER_DEVICE + 1):
        tree.plug(f"/dev/y{number}")
    tree.plug("/dev/x0")
    inventory = discover(
        build_config(load_resource("devices: [{glob: /dev/x0, with: ['/dev/y*']}]")), Host.at(tree.root)
    )
    ((device,),) = inventory.devices.values()
    assert f"more than {MAX_NODES_PER_DEVICE} device nodes" in device.faults[0]
    grouped = discover(
        build_config(load_resource("devices: [{glob: '/dev/y*', groupBy: '${type}'}]")), Host.at(tree.root)
    )
    assert not any(grouped.devices.values())
    assert f"at most {MAX_NODES_PER_DEVICE} are allowed in a device" in grouped.outcomes[0].reason


PATTERNS = "['{0}0-{{0..999}}*', '{0}1-{{0..999}}*', '{0}2-{{0..999}}*']"


@pytest.mark.parametrize(
    "entry",
    [
        "{glob: '/dev/x*', exclude: " + PATTERNS.format("/dev/a") + "}",
        "{glob: '/dev/x*', where: {name: " + PATTERNS.format("a") + "}}",
        "{glob: '/dev/x*', where: {name: {notIn: " + PATTERNS.format("a") + "}}}",
        "{glob: '/dev/x?', attributes: {many: {path: /sys/many, find: '.+', all: true}}, where: {many: "
        + PATTERNS.format("a")
        + "}}",
    ],
    ids=["exclude", "where", "notIn", "attribute with many values"],
)
def test_comparisons_with_patterns_are_limited_before_they_are_made(tree: NodeTree, entry: str) -> None:
    tree.write("/sys/many", "\n".join(map(str, range(300))))
    for number in range(MAX_COMPARISONS // 3000 + 1):
        tree.plug(f"/dev/x{number}")
    resource = load_resource(f"devices: [{entry}]")
    with pytest.raises(SearchLimitError, match=f"more than {MAX_COMPARISONS} times"):
        scan_resource(resource, Host.at(tree.root).cached())
    for number in range(1, MAX_COMPARISONS // 3000 + 1):
        tree.unplug(f"/dev/x{number}")
    scan_resource(resource, Host.at(tree.root).cached())


def test_candidates_of_all_resources_together_are_limited(tree: NodeTree) -> None:
    make_loop(tree, 15)
    # Each resource has less than the limit of a resource.
    resource = load_resource("devices: [{glob: /sys/loop/*/*/*}]")
    resources = [replace(resource, name=f"a.io/r{number}") for number in range(MAX_CANDIDATES // 3000 + 1)]
    with pytest.raises(SearchLimitError, match=f"of all resources match more than {MAX_CANDIDATES} paths together"):
        discover(build_config(*resources), Host.at(tree.root))


def test_resource_has_its_share_although_others_have_many_candidates() -> None:
    budget = CandidateBudget(["a", "b", "c"], limit=30)
    budget.take("a", 25)
    budget.take("b", 10)
    with pytest.raises(SearchLimitError, match="more than its share of 10"):
        budget.take("c", 11)
    budget.take("c", 10)
    with pytest.raises(SearchLimitError):
        budget.take("a", 25)
    budget.take("a", 10)


def test_removed_resource_leaves_its_candidates_to_the_others() -> None:
    budget = CandidateBudget(["a", "b"], limit=30)
    budget.take("a", 30)
    with pytest.raises(SearchLimitError):
        budget.take("b", 20)
    budget.set_resources(["b"])
    budget.take("b", 20)
