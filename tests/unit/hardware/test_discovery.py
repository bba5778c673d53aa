"""Discovery: the inventory of a full scan, of partial scans, and after changes in any order."""

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.hardware.discovery import arrange_devices, build_inventory, discover, scan_resource
from genplug.hardware.host import Host
from genplug.hardware.inventory import Device, UnmatchedGlob, sort_devices
from genplug.spec.model import CandidateType
from tests.support.hardware import (
    LOCATION,
    NAME,
    NodeTree,
    build_config,
    build_node_spec,
    build_resource,
    build_source,
    discover_sources,
    find_reason,
    list_devices,
    list_ids,
    open_tree,
    rescan,
)


def test_devices_are_in_natural_order(tree: NodeTree) -> None:
    for number in (10, 2, 1):
        tree.plug(f"/dev/nvidia{number}", f"195:{number}")
    found = discover_sources(tree, build_source("/dev/nvidia[0-9]*"))
    assert list_ids(found) == ["nvidia1", "nvidia2", "nvidia10"]
    [node] = list_devices(found)[0].nodes
    assert (node.path, node.container_path, node.permissions) == ("/dev/nvidia1", "/dev/nvidia1", "rw")
    assert (node.info.major, node.info.minor) == (195, 1)
    assert find_reason(found, "/dev/nvidia1") == "in nvidia1: found by '/dev/nvidia[0-9]*'"


def test_values_of_a_device_share_its_numbers_and_texts(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:300")
    resource = build_resource(NAME, build_source("/dev/x*"))
    scan = scan_resource(resource, tree.host.cached())
    _, ledger = build_inventory(build_config(resource), {NAME: scan})
    [candidate], [device], [holder] = scan.candidates, scan.devices, ledger.holders.values()
    assert candidate.info is not None
    numbers = candidate.info.numbers
    assert all(each is numbers for each in (device.nodes[0].info.numbers, device.identities[0], holder.things[0]))
    assert device.attributes is candidate.attributes
    assert all(each is device.id for each in (device.key, holder.owner.id, holder.things[1]))
    paths = (candidate.info.resolved, *device.candidates, device.nodes[0].path, device.nodes[0].container_path)
    assert all(each is candidate.path for each in paths)


def test_resource_without_devices_is_in_the_inventory(tree: NodeTree) -> None:
    found = discover_sources(tree, build_source("/dev/none*", "/dev/also-none"))
    assert found.devices == {NAME: ()}
    assert found.unmatched_globs == (
        UnmatchedGlob("/dev/none*", NAME, LOCATION),
        UnmatchedGlob("/dev/also-none", NAME, LOCATION),
    )
    assert found.directories == {"/dev"}


paths = st.sampled_from(
    ["/dev/x0", "/dev/x1", "/dev/x10", "/dev/y1", "/dev/dri/card0", "/dev/dri/card1", "/dev/by-id/a", "/dev/ctl"]
)
targets = st.sampled_from(["", "", "", "../x0", "../dri/card0", "dri", "gone", "/dev/x1"])
Step = tuple[str, str, int]
steps = st.lists(st.tuples(paths, targets, st.integers(0, 3)), max_size=8)

CONFIG = build_config(
    build_resource("a.example/a", build_source("/dev/x*", companions=(build_node_spec("/dev/ctl"),))),
    build_resource(
        "a.example/b", build_source("/dev/{x1,y*}", "/dev/by-id/*"), build_source("/dev/**/card*", group_by="c${index}")
    ),
    build_resource(
        "a.example/c",
        build_source(
            "/dev/dri/*", type=CandidateType.ANY, nodes=(build_node_spec("/dev/ct[l]"), build_node_spec("/dev/y1"))
        ),
    ),
    build_resource("a.example/d", build_source("/dev/nothing/here/*", "/run/mine*"), overlap=True),
)


def replace_path(tree: NodeTree, path: str, target: str, minor: int) -> tuple[str, str]:
    """Replace a path by a symlink or a device node; return the changed directory and name ("" for any name)."""
    at = tree.at(path)
    existing = at.parent
    while not existing.is_dir():
        existing = existing.parent
    try:
        at.parent.mkdir(parents=True, exist_ok=True)
        at.unlink(missing_ok=True)
        if target:
            at.symlink_to(target)
        else:
            tree.plug(path, f"240:{minor}")
    except OSError:
        return "/dev", ""
    return "/" + str(existing.relative_to(tree.root)).removeprefix("."), at.relative_to(existing).parts[0]


@given(steps, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_inventory_is_independent_of_the_order_of_changes(steps: list[Step], shuffle: Random) -> None:
    by_path = {step[0]: step for step in steps}
    shuffled = list(by_path.values())
    shuffle.shuffle(shuffled)
    with open_tree(NodeTree) as first, open_tree(NodeTree) as second:
        for step in by_path.values():
            replace_path(first, *step)
        for step in shuffled:
            replace_path(second, *step)
        assert discover(CONFIG, first.host) == discover(CONFIG, second.host)


@given(steps, steps)
@settings(max_examples=100, deadline=None)
def test_partial_scan_agrees_with_a_full_scan(before: list[Step], after: list[Step]) -> None:
    with open_tree(NodeTree) as tree:
        for step in before:
            replace_path(tree, *step)
        previous = discover(CONFIG, tree.host)
        changed = [replace_path(tree, *step) for step in after]
        changes = {
            directory: frozenset(name for at, name in changed if at == directory)
            if (directory, "") not in changed
            else frozenset()
            for directory, _ in changed
        }
        partial = rescan(CONFIG, tree.host, previous, changes)
        full = discover(CONFIG, tree.host)
        assert (partial.devices, partial.outcomes, partial.conflicts) == (full.devices, full.outcomes, full.conflicts)
        assert partial.unmatched_globs == full.unmatched_globs
        # Directories of companions of a removed device can remain until the next full scan.
        assert partial.directories >= full.directories
        for name, scan in full.scans.items():
            assert partial.scans[name].candidates_by_source == scan.candidates_by_source


@given(steps, paths)
@settings(max_examples=60, deadline=None)
def test_device_keeps_id_when_other_devices_change(steps: list[Step], path: str) -> None:
    spec = build_config(build_resource(NAME, build_source("/dev/{x,y}*")))
    with open_tree(NodeTree) as tree:
        replace_path(tree, path, "", 77)
        alone = {device.candidates: device.id for device in list_devices(discover(spec, tree.host))}
        for other, _, minor in steps:
            if other != path:
                replace_path(tree, other, "", minor)
        together = {device.candidates: device.id for device in list_devices(discover(spec, tree.host))}
        assert alone.items() <= together.items()


def test_partial_scan_keeps_the_scan_of_unaffected_resources(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/dri/card0", "240:1")
    spec = build_config(
        build_resource(NAME, build_source("/dev/x*")), build_resource("b.example/y", build_source("/dev/dri/card*"))
    )
    before = discover(spec, tree.host)
    tree.plug("/dev/x1", "240:2")
    tree.plug("/dev/dri/card1", "240:3")
    after = rescan(spec, tree.host, before, {"/dev/dri": frozenset({"card1"}), "/dev": frozenset({"y7"})})
    assert list_ids(after) == ["x0"]
    assert [device.key for device in list_devices(after, "b.example/y")] == ["dri/card0", "dri/card1"]
    assert after.scans[NAME] is before.scans[NAME]
    assert list_ids(rescan(spec, tree.host, before, {"/dev": frozenset({"x1"})})) == ["x0", "x1"]
    assert list_ids(rescan(spec, tree.host, before, {"/dev": frozenset()})) == ["x0", "x1"]
    assert list_ids(rescan(spec, tree.host, before, None)) == ["x0", "x1"]


def test_partial_scan_rescans_a_resource_with_changed_configuration(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/y0", "240:1")
    before = discover_sources(tree, build_source("/dev/x*"))
    after = rescan(build_config(build_resource(NAME, build_source("/dev/y*"))), tree.host, before, {})
    assert list_ids(after) == ["y0"]


def test_partial_scan_with_further_sources_finds_their_devices(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/y0", "240:1")
    before = discover_sources(tree, build_source("/dev/x*"))
    spec = build_config(build_resource(NAME, build_source("/dev/x*"), build_source("/dev/y*")))
    after = rescan(spec, tree.host, before, {"/dev": frozenset({"y0"})})
    assert list_ids(after) == ["x0", "y0"]


def test_unchanged_device_is_the_same_object_after_a_scan(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/x1", "240:1")
    spec = build_config(build_resource(NAME, build_source("/dev/x*")))
    before = discover(spec, tree.host)
    tree.plug("/dev/x2", "240:2")
    after = rescan(spec, tree.host, before, None)
    assert [new is old for new, old in zip(list_devices(after), list_devices(before), strict=False)] == [True, True]
    assert after.scans[NAME] is not before.scans[NAME]
    assert rescan(spec, tree.host, after, None).scans[NAME] is after.scans[NAME]


@pytest.mark.root
def test_device_directory_of_the_machine_is_scanned() -> None:
    found = discover(build_config(build_resource(NAME, build_source("/dev/{null,zero}"))), Host())
    assert list_ids(found) == ["null", "zero"]
    assert Path("/dev/zero").stat().st_rdev == os.makedev(1, 5)
    assert list_devices(found)[1].nodes[0].info.numbers == ("char", 1, 5)


KEYS = st.lists(st.integers(0, 12), unique=True, max_size=8)


@given(st.lists(KEYS, min_size=1, max_size=4))
def test_changed_devices_are_arranged_like_all_devices(history: list[list[int]]) -> None:
    resource = build_resource(NAME, build_source("/dev/x*"), build_source("/dev/y*"))
    known = [Device(f"x{number}", f"x{number}", NAME, LOCATION, (), (), (), {}) for number in range(13)]
    arranged: tuple[Device, ...] | None = None
    for numbers in history:
        devices = tuple(known[number] for number in numbers)
        previous, arranged = arranged, arrange_devices(resource, devices, arranged)
        assert arranged == sort_devices(devices)
        assert (arranged is previous) == (previous is not None and set(map(id, previous)) == set(map(id, devices)))


def test_conflict_elsewhere_keeps_the_devices_of_a_resource(tree: NodeTree) -> None:
    for number in range(3):
        tree.plug(f"/dev/x{number}", f"240:{number}")
    tree.at("/dev/link").symlink_to("x0")
    spec = build_config(build_resource(NAME, build_source("/dev/x*"), build_source("/dev/link")))
    before = discover(spec, tree.host)
    assert list_ids(before) == ["x0", "x1", "x2"]
    tree.plug("/dev/y1", "240:9")
    after = rescan(spec, tree.host, before, {"/dev": frozenset({"y1"})})
    assert list_devices(after) is list_devices(before)
