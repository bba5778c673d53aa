"""Partial scans: they find what a full scan finds, and their work is in proportion to what changed."""

import shutil
from collections import Counter
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.hardware.candidate_users import CandidateKey
from genplug.hardware.dependencies import Changes, ChangeSet, is_affected
from genplug.hardware.discovery import scan_resource
from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.hardware.inventory import ResourceScan
from genplug.hardware.partial_scan import update_scan
from tests.support.configs import load_resource
from tests.support.hardware import NodeTree, open_tree
from tests.support.work import count_lines

Step: TypeAlias = tuple[str, str]
"""A path, and what happens there: the text of a file, ``-> target`` of a link, or nothing to remove it."""

PLAIN = load_resource("devices: [{glob: /dev/x*}]\nallocate: {env: {X: '${path}'}}")
SEVERAL = load_resource(
    """
    devices:
      - {glob: [/dev/x1, '/dev/x*', '/dev/d/x*'], exclude: /dev/x3}
      - {glob: ['/dev/y*', '/dev/d/y?', /dev/x2], type: char}
    """
)
WITH_ATTRIBUTE = load_resource(
    """
    devices:
      - glob: [/dev/x*, /dev/d/x*]
        attributes: {state: {path: '/sys/x/${name}'}}
        where: {state: ok*}
        id: x-${state}
    """
)
WITH_COMPANION = load_resource("devices: [{glob: '/dev/x*', with: ['/dev/y${index}']}]")
ANYTHING = load_resource("devices: [{glob: '/dev/**/x*', type: any}]\nallocate: {env: {X: '${path}'}}")
GROUPED = load_resource("devices: [{glob: '/dev/{x,y}*', groupBy: '${index}'}]")
RESOURCES = {
    "plain": PLAIN,
    "several": SEVERAL,
    "attribute": WITH_ATTRIBUTE,
    "companion": WITH_COMPANION,
    "anything": ANYTHING,
    "grouped": GROUPED,
}

NODES = ["/dev/x1", "/dev/x2", "/dev/x3", "/dev/x10", "/dev/y1", "/dev/d/x1", "/dev/d/y2"]
nodes = st.tuples(st.sampled_from(NODES), st.sampled_from(["", "char 240:1", "char 240:2", "block 8:1", "-> x1"]))
files = st.tuples(st.sampled_from(["/sys/x/x1", "/sys/x/x2", "/sys/x/x10"]), st.sampled_from(["", "ok", "ok2", "bad"]))
directories = st.tuples(st.just("/dev/d"), st.sampled_from(["", "-> ../run"]))
histories = st.lists(st.lists(nodes | nodes | files | directories, min_size=1, max_size=3), max_size=6)


def apply(tree: NodeTree, steps: list[Step]) -> Changes:
    """Change paths, and return what inotify reports for the directories that existed before."""
    changes: dict[str, frozenset[str]] = {}
    for path, content in steps:
        at = tree.at(path)
        existing = at.parent
        while not existing.exists():
            existing = existing.parent
        directory = str("/" / existing.resolve().relative_to(tree.root.resolve()))
        changes[directory] = changes.get(directory, frozenset()) | {at.relative_to(existing).parts[0]}
        if at.is_dir() and not at.is_symlink():
            shutil.rmtree(at)
            changes[path] = frozenset()
        at.unlink(missing_ok=True)
        if content:
            at.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            at.symlink_to(content.removeprefix("-> "))
        elif content:
            at.write_text(content)
    return changes


def list_users(scan: ResourceScan) -> dict[str, frozenset[CandidateKey]]:
    """Return the candidates that depend on each path; their order depends on the hashes of names."""
    return {path: frozenset(keys) for path, keys in scan.users.by_path.items()}


def is_selected(scan: ResourceScan, changes: Changes) -> bool:
    return is_affected(scan.dependencies, changes) or scan.users.may_affect_files(ChangeSet.of(changes))


@pytest.mark.parametrize("name", RESOURCES)
@given(histories)
@settings(max_examples=40, deadline=None)
def test_partial_scans_agree_with_a_full_scan(name: str, history: list[list[Step]]) -> None:
    resource = RESOURCES[name]
    with open_tree(NodeTree) as tree:
        tree.write("/dev/d/z", "")
        tree.write("/run/x1", "char 240:7")
        tree.plug("/dev/x1", "240:1")
        tree.plug("/dev/y1", "240:2")
        for file in ("x1", "x2", "x10"):
            tree.write(f"/sys/x/{file}", "ok")
        scan = scan_resource(resource, tree.host.cached())
        for steps in history:
            changes = apply(tree, steps)
            if is_selected(scan, changes):
                scan = scan_resource(resource, tree.host.cached(), scan, changes)
            full = scan_resource(resource, tree.host.cached())
            # Dependencies of what was removed can remain until the next full scan.
            assert scan.dependencies.keys() >= full.dependencies.keys()
            assert list_users(scan) == list_users(full)
            assert scan.is_plain == full.is_plain
            assert scan.searches == full.searches
            assert replace(scan, dependencies={}) == replace(full, dependencies={})


def count_work(count: int) -> tuple[Counter[Access], int]:
    """Return the file operations and the executed lines of a scan after a device is added to ``count`` devices."""
    accesses: Counter[Access] = Counter()
    with open_tree(NodeTree) as tree:
        for number in range(count):
            tree.plug(f"/dev/x{number}", f"240:{number}")
        host = Host.at(tree.root, recorder=lambda access, _: accesses.update([access]))
        before = scan_resource(PLAIN, host.cached())
        tree.plug(f"/dev/x{count}", f"240:{count}")
        accesses.clear()
        changes = {"/dev": frozenset({f"x{count}"})}
        lines, after = count_lines(lambda: scan_resource(PLAIN, host.cached(), before, changes))
    assert len(after.devices) == count + 1
    assert all(new is old for new, old in zip(after.devices, before.devices, strict=False))
    return accesses, lines


def test_work_of_a_partial_scan_does_not_grow_with_the_devices() -> None:
    few, many = count_work(50), count_work(1000)
    assert many[0] == few[0]
    assert not many[0][Access.LIST]
    # A binary search among 20 times as many devices has five steps more.
    assert many[1] <= few[1] + 150


def test_change_of_a_name_that_no_glob_matches_keeps_the_scan(tree: NodeTree) -> None:
    tree.plug("/dev/x1", "240:1")
    before = scan_resource(PLAIN, tree.host.cached())
    tree.plug("/dev/y1", "240:2")
    assert update_scan(before, tree.host.cached(), {"/dev": frozenset({"y1"})}) is before
