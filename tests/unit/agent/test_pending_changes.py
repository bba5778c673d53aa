"""Changes between two scans: how they are merged, and which of them concern a scan."""

from genplug.agent.pending_changes import EVERYTHING, PendingChanges, ScanRelevance
from genplug.hardware.discovery import scan_resource
from genplug.spec.model import Resource
from tests.support.configs import load_resource
from tests.support.hardware import NodeTree, open_tree


def names(*found: str) -> frozenset[str]:
    return frozenset(found)


def test_names_of_a_directory_are_merged() -> None:
    changes = PendingChanges().add("/dev", names("a")).add("/dev", names("b")).add("/sys", names("c"))
    assert changes.limit == {"/dev": names("a", "b"), "/sys": names("c")}


def test_no_names_mean_that_anything_in_the_directory_may_have_changed() -> None:
    changes = PendingChanges().add("/dev", names("a")).add("/dev", names()).add("/dev", names("b"))
    assert changes.limit == {"/dev": names()}


def test_merged_changes_have_the_names_of_both() -> None:
    first = PendingChanges().add("/dev", names("a")).add("/sys", names("c"))
    second = PendingChanges().add("/dev", names("b")).add("/run", names())
    expected = PendingChanges({"/dev": names("a", "b"), "/sys": names("c"), "/run": names()})
    assert first.merge(second) == second.merge(first) == expected
    assert first.merge(EVERYTHING) == EVERYTHING.merge(first) == PendingChanges(first.by_directory, is_everything=True)


def test_scan_is_not_limited_after_everything_may_have_changed() -> None:
    assert EVERYTHING.limit is None
    assert EVERYTHING.add("/dev", names("a")).limit is None


def test_changes_are_pending_once_there_are_any() -> None:
    assert not PendingChanges()
    assert PendingChanges().add("/dev", names("a"))
    assert EVERYTHING


def test_changes_concern_a_scan_by_its_directories_and_by_what_it_read() -> None:
    with open_tree(NodeTree) as tree:
        relevance = ScanRelevance([scan_resource(spec(tree), tree.host.cached())])
        assert relevance.is_affected({"/dev": names("x1")})
        assert relevance.is_affected({"/sys/x": names("x0")})
        assert relevance.is_affected({"/sys": names("x")})
        assert not relevance.is_affected({"/dev": names("y1")})
        assert not relevance.is_affected({"/sys/class/net": names("eth0")})


def test_files_of_sysfs_and_procfs_are_unreported() -> None:
    with open_tree(NodeTree) as tree:
        assert ScanRelevance([scan_resource(spec(tree), tree.host.cached())]).has_unreported_files
        tree.write("/run/x/x0", "ok")
        reported = load_resource(
            "devices: [{glob: '/dev/x*', attributes: {state: {path: '/run/x/${name}'}}, where: {state: ok}}]"
        )
        assert not ScanRelevance([scan_resource(reported, tree.host.cached())]).has_unreported_files
        assert not ScanRelevance([]).has_unreported_files


def spec(tree: NodeTree) -> Resource:
    tree.plug("/dev/x0")
    tree.write("/sys/x/x0", "ok")
    return load_resource(
        "devices: [{glob: '/dev/x*', attributes: {state: {path: '/sys/x/${name}'}}, where: {state: ok}}]"
    )
