"""A scan in which a file operation hangs: what is kept, what is left out, and that the rest is up to date."""

import time

import pytest
from attrs import evolve

from genplug.hardware.discovery import build_inventory, scan_resource
from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError, HungPaths, Operation
from genplug.hardware.inventory import ResourceScan
from genplug.spec.model import Resource
from genplug.spec.policy import Policy
from tests.support.configs import load_resource
from tests.support.hardware import NodeTree, config

SPEC = load_resource(
    """
    devices:
      - glob: /dev/x*
        attributes: {state: {path: '/sys/x/${name}'}}
        where: {state: ok}
    """
)


def hang(access: Access, path: str) -> HungPaths:
    paths = HungPaths()
    paths.add(Operation(access, path, time.monotonic()))
    return paths


def scan(tree: NodeTree, spec: Resource, paths: HungPaths, previous: ResourceScan | None = None) -> ResourceScan:
    return scan_resource(spec, Host.at(tree.root, recorder=paths.record).cached(), previous)


def plug(tree: NodeTree, *names: str) -> None:
    for name in names:
        tree.plug(f"/dev/{name}")
        tree.write(f"/sys/x/{name}", "ok")


def ids(found: ResourceScan) -> list[str]:
    return [device.id for device in found.devices]


def test_a_candidate_whose_attribute_hangs_is_kept_as_it_was(tree: NodeTree) -> None:
    plug(tree, "x0", "x1")
    before = scan(tree, SPEC, HungPaths())
    tree.unplug("/dev/x1")
    plug(tree, "x2")
    after = scan(tree, SPEC, hang(Access.READ, "/sys/x/x0"), before)
    assert ids(after) == ["x0", "x2"]
    assert after.devices[0] is before.devices[0]
    (stall,) = after.stalls
    assert stall.candidate == "/dev/x0"
    assert stall.reason == "read of /sys/x/x0 does not return"
    assert stall.since is not None


def test_a_new_candidate_whose_attribute_hangs_is_left_out_with_the_reason(tree: NodeTree) -> None:
    plug(tree, "x0", "x1")
    found = scan(tree, SPEC, hang(Access.READ, "/sys/x/x0"))
    assert ids(found) == ["x1"]
    (left_out,) = [outcome for outcome in found.outcomes if outcome.device is None]
    assert left_out.path == "/dev/x0"
    assert left_out.reason == "cannot be examined: read of /sys/x/x0 does not return"
    inventory = build_inventory(config(SPEC), {SPEC.name: found})
    assert [stall.resource for stall in inventory.stalls] == [SPEC.name]


def test_a_candidate_is_examined_again_once_its_attribute_answers(tree: NodeTree) -> None:
    plug(tree, "x0")
    stalled = scan(tree, SPEC, hang(Access.READ, "/sys/x/x0"))
    assert ids(stalled) == []
    after = scan(tree, SPEC, HungPaths(), stalled)
    assert ids(after) == ["x0"]
    assert not after.stalls


def test_a_device_whose_companion_hangs_is_kept_as_it_was(tree: NodeTree) -> None:
    spec = load_resource("devices: [{glob: /dev/x*, with: ['/dev/dead/${name}']}]")
    for name in ("x0", "x1"):
        tree.plug(f"/dev/{name}")
        tree.plug(f"/dev/dead/{name}")
    before = scan(tree, spec, HungPaths())
    assert ids(before) == ["x0", "x1"]
    paths = hang(Access.STAT, "/dev/dead/x0")
    after = scan(tree, spec, paths, before)
    assert after.devices == before.devices
    assert [stall.candidate for stall in after.stalls] == ["/dev/x0"]
    first = scan(tree, spec, paths)
    assert ids(first) == ["x1"]
    assert any("its device nodes cannot be examined: stat of /dev/dead/x0" in one.reason for one in first.outcomes)


def test_a_device_of_another_policy_is_not_kept(tree: NodeTree) -> None:
    spec = load_resource("devices: [{glob: /dev/x*, with: ['/dev/dead/${name}']}]")
    tree.plug("/dev/x0")
    tree.plug("/dev/dead/x0")
    before = scan(tree, spec, HungPaths())
    assert ids(before) == ["x0"]
    after = scan(tree, evolve(spec, policy=Policy(block=True)), hang(Access.STAT, "/dev/dead/x0"), before)
    assert ids(after) == []


def test_a_directory_of_a_glob_that_hangs_fails_the_scan(tree: NodeTree) -> None:
    plug(tree, "x0")
    with pytest.raises(HangError, match=r"^list of /dev does not return$"):
        scan(tree, SPEC, hang(Access.LIST, "/dev"))


def test_an_inventory_leaves_out_resources_without_a_scan(tree: NodeTree) -> None:
    plug(tree, "x0")
    other = evolve(SPEC, name="example.com/other")
    inventory = build_inventory(config(other, SPEC), {SPEC.name: scan(tree, SPEC, HungPaths())})
    assert list(inventory.devices) == [SPEC.name]
