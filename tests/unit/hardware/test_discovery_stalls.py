"""A scan in which a file operation hangs: devices that are kept or excluded, and the other devices."""

import time

import pytest
from msgspec.structs import replace

from genplug.hardware.discovery import build_inventory, scan_resource
from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError, HungPaths, Operation
from genplug.hardware.inventory import ResourceScan
from genplug.spec.model import Resource
from genplug.spec.policy import Policy
from tests.support.configs import load_resource
from tests.support.hardware import NodeTree, build_config

SPEC = load_resource(
    """
    devices:
      - glob: /dev/x*
        attributes: {state: {path: '/sys/x/${name}'}}
        where: {state: ok}
    """
)


def record_hang(access: Access, path: str) -> HungPaths:
    paths = HungPaths()
    paths.add(Operation(access, path, time.monotonic()))
    return paths


def scan(tree: NodeTree, spec: Resource, paths: HungPaths, previous: ResourceScan | None = None) -> ResourceScan:
    return scan_resource(spec, Host.at(tree.root, recorder=paths.record).cached(), previous)


def plug(tree: NodeTree, *names: str) -> None:
    for name in names:
        tree.plug(f"/dev/{name}")
        tree.write(f"/sys/x/{name}", "ok")


def list_ids(found: ResourceScan) -> list[str]:
    return [device.id for device in found.devices]


def test_candidate_with_a_hung_attribute_keeps_its_device(tree: NodeTree) -> None:
    plug(tree, "x0", "x1")
    before = scan(tree, SPEC, HungPaths())
    tree.unplug("/dev/x1")
    plug(tree, "x2")
    after = scan(tree, SPEC, record_hang(Access.READ, "/sys/x/x0"), before)
    assert list_ids(after) == ["x0", "x2"]
    assert after.devices[0] is before.devices[0]
    (stall,) = after.stalls
    assert stall.candidate == "/dev/x0"
    assert stall.reason == "read of /sys/x/x0 does not return"
    assert stall.since is not None


def test_new_candidate_with_a_hung_attribute_is_excluded_with_the_reason(tree: NodeTree) -> None:
    plug(tree, "x0", "x1")
    found = scan(tree, SPEC, record_hang(Access.READ, "/sys/x/x0"))
    assert list_ids(found) == ["x1"]
    (excluded,) = [outcome for outcome in found.outcomes if outcome.device is None]
    assert excluded.path == "/dev/x0"
    assert excluded.reason == "cannot be examined: read of /sys/x/x0 does not return"
    inventory = build_inventory(build_config(SPEC), {SPEC.name: found})[0]
    assert [(stall.resource, stall.candidate, stall.is_known) for stall in inventory.stalls] == [
        (SPEC.name, "/dev/x0", False)
    ]
    # An earlier scan that could not examine it does not make it known.
    (again,) = scan(tree, SPEC, record_hang(Access.READ, "/sys/x/x0"), found).stalls
    assert not again.is_known


def test_candidate_is_scanned_again_after_its_attribute_returns(tree: NodeTree) -> None:
    plug(tree, "x0")
    stalled = scan(tree, SPEC, record_hang(Access.READ, "/sys/x/x0"))
    assert list_ids(stalled) == []
    after = scan(tree, SPEC, HungPaths(), stalled)
    assert list_ids(after) == ["x0"]
    assert not after.stalls


def test_device_with_a_hung_companion_is_kept(tree: NodeTree) -> None:
    spec = load_resource("devices: [{glob: /dev/x*, with: ['/dev/dead/${name}']}]")
    for name in ("x0", "x1"):
        tree.plug(f"/dev/{name}")
        tree.plug(f"/dev/dead/{name}")
    before = scan(tree, spec, HungPaths())
    assert list_ids(before) == ["x0", "x1"]
    paths = record_hang(Access.STAT, "/dev/dead/x0")
    after = scan(tree, spec, paths, before)
    assert after.devices == before.devices
    assert [(stall.candidate, stall.is_known) for stall in after.stalls] == [("/dev/x0", True)]
    first = scan(tree, spec, paths)
    assert [stall.is_known for stall in first.stalls] == [False]
    assert list_ids(first) == ["x1"]
    assert any(
        "its device nodes cannot be examined: stat of /dev/dead/x0" in outcome.reason for outcome in first.outcomes
    )


def test_device_of_a_previous_policy_is_not_kept(tree: NodeTree) -> None:
    spec = load_resource("devices: [{glob: /dev/x*, with: ['/dev/dead/${name}']}]")
    tree.plug("/dev/x0")
    tree.plug("/dev/dead/x0")
    before = scan(tree, spec, HungPaths())
    assert list_ids(before) == ["x0"]
    after = scan(tree, replace(spec, policy=Policy(block=True)), record_hang(Access.STAT, "/dev/dead/x0"), before)
    assert list_ids(after) == []


def test_hung_directory_of_a_glob_fails_the_scan(tree: NodeTree) -> None:
    plug(tree, "x0")
    with pytest.raises(HangError, match=r"^list of /dev does not return$"):
        scan(tree, SPEC, record_hang(Access.LIST, "/dev"))


def test_inventory_omits_resources_without_a_scan(tree: NodeTree) -> None:
    plug(tree, "x0")
    other = replace(SPEC, name="example.com/other")
    inventory = build_inventory(build_config(other, SPEC), {SPEC.name: scan(tree, SPEC, HungPaths())})[0]
    assert list(inventory.devices) == [SPEC.name]
