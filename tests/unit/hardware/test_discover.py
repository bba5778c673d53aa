"""Discovery: which devices a node has, under which IDs, with which nodes, and why every other path is none."""

import os
import stat
from pathlib import Path
from random import Random

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.hardware.discovery import discover, rescan
from genplug.hardware.host import Host
from genplug.hardware.inventory import Device, Inventory, UnmatchedGlob
from genplug.spec.location import SourceLocation
from genplug.spec.model import CandidateType, Config
from genplug.spec.selectors import Selector
from tests.support.hardware import LOCATION, NodeTree, config, node, node_tree, resource, source, where

X = "a.example/x"


def devices(inventory: Inventory, name: str = X) -> tuple[Device, ...]:
    return inventory.devices[name]


def ids(inventory: Inventory, name: str = X) -> list[str]:
    return [device.id for device in devices(inventory, name)]


def reason(inventory: Inventory, path: str, name: str = X) -> str:
    [considered] = [one for one in inventory.outcomes if one.path == path and one.resource == name]
    return considered.reason if considered.device is None else f"in {considered.device}: {considered.reason}"


# Candidates


def test_each_node_is_a_device_in_natural_order(tree: NodeTree) -> None:
    for number in (10, 2, 1):
        tree.plug(f"/dev/nvidia{number}", f"195:{number}")
    found = discover(config(resource(X, source("/dev/nvidia[0-9]*"))), tree.host)
    assert ids(found) == ["nvidia1", "nvidia2", "nvidia10"]
    [one] = devices(found)[0].nodes
    assert (one.path, one.container_path, one.permissions) == ("/dev/nvidia1", "/dev/nvidia1", "rw")
    assert (one.info.major, one.info.minor) == (195, 1)
    assert reason(found, "/dev/nvidia1") == "in nvidia1: found by '/dev/nvidia[0-9]*'"


def test_a_resource_without_a_device_is_in_the_inventory(tree: NodeTree) -> None:
    found = discover(config(resource(X, source("/dev/none*", "/dev/also-none"))), tree.host)
    assert found.devices == {X: ()}
    assert found.unmatched_globs == (
        UnmatchedGlob("/dev/none*", X, LOCATION),
        UnmatchedGlob("/dev/also-none", X, LOCATION),
    )
    assert found.directories == {"/dev"}


def test_a_candidates_attributes(tree: NodeTree) -> None:
    tree.plug("/dev/ttyUSB07", "188:7")
    tree.plug("/dev/sd", "8:0", kind="block")
    tree.link("/dev/serial/port3", "../ttyUSB07")
    found = discover(config(resource(X, source("/dev/sd", "/dev/serial/*"))), tree.host)
    by_key = {device.key: device.attributes for device in devices(found)}
    assert by_key["sd"] == {
        "path": ("/dev/sd",), "name": ("sd",), "type": ("block",), "major": ("8",), "minor": ("0",)
    }  # fmt: skip
    assert by_key["serial/port3"] == {
        "path": ("/dev/serial/port3",), "name": ("port3",), "index": ("3",), "type": ("char",),
        "major": ("188",), "minor": ("7",), "target": ("/dev/ttyUSB07",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (CandidateType.DEVICE, {"c", "b"}),
        (CandidateType.CHAR, {"c"}),
        (CandidateType.BLOCK, {"b"}),
        (CandidateType.DIRECTORY, {"d"}),
        (CandidateType.FILE, {"f"}),
        (CandidateType.ANY, {"b", "c", "d", "f"}),
    ],
)
def test_type_says_what_a_path_must_be(tree: NodeTree, wanted: CandidateType, expected: set[str]) -> None:
    tree.plug("/dev/c", "240:1")
    tree.plug("/dev/b", "240:1", kind="block")
    tree.directory("/dev/d")
    tree.write("/dev/f")
    found = discover(config(resource(X, source("/dev/?", type=wanted))), tree.host)
    assert {device.key for device in devices(found)} == expected
    left_out = {one.path.removeprefix("/dev/") for one in found.outcomes if one.device is None}
    assert left_out == {"b", "c", "d", "f"} - expected


def test_every_path_left_out_has_its_reason(tree: NodeTree) -> None:
    tree.directory("/dev/dir")
    tree.write("/dev/file")
    tree.plug("/dev/good", "240:1")
    tree.plug("/dev/bad", "240:2")
    tree.plug("/dev/not9", "240:3")
    tree.link("/dev/nowhere", "gone\udcff")
    tree.link("/dev/also-good", "good")
    spec = source(
        "/dev/*",
        exclude=("/dev/b?d",),
        where=(where("index", Selector(exists=False, text="no value")),),
    )
    found = discover(config(resource(X, spec)), tree.host)
    assert ids(found) == ["good"]
    assert {one.path: one.reason for one in found.outcomes if one.device is None} == {
        "/dev/dir": "is a directory, expected a device node",
        "/dev/file": "is a regular file, expected a device node",
        "/dev/bad": "excluded by '/dev/b?d' (devices.yaml:5:7)",
        "/dev/not9": "where: index is '9', expected no value (devices.yaml:5:7)",
        "/dev/nowhere": "is a symlink to gone\\xff, which does not exist",
        "/dev/also-good": "the same node as /dev/good",
    }


def test_where_asks_for_all_conditions(tree: NodeTree) -> None:
    for number in range(12):
        tree.plug(f"/dev/x{number}", f"240:{number}")
    tree.plug("/dev/x", "240:100")
    spec = source(
        "/dev/x*",
        where=(
            where("index", Selector(minimum=3, maximum=11, text="min 3, max 11")),
            where("name", Selector(matches=re2.compile(r"[^5]$"), text="matches [^5]$")),
        ),
    )
    found = discover(config(resource(X, spec)), tree.host)
    assert ids(found) == ["x3", "x4", "x6", "x7", "x8", "x9", "x10", "x11"]
    assert reason(found, "/dev/x") == "where: it has no index, expected min 3, max 11 (devices.yaml:5:7)"
    assert reason(found, "/dev/x5") == "where: name is 'x5', expected matches [^5]$ (devices.yaml:5:7)"


def test_41_a_node_found_twice_in_a_resource_is_one_device(tree: NodeTree) -> None:
    tree.plug("/dev/ttyUSB0", "188:0")
    tree.link("/dev/serial/by-id/adapter", "../../ttyUSB0")
    found = discover(
        config(resource(X, source("/dev/ttyUSB*", "/dev/tty*"), source("/dev/ttyUSB0", "/dev/serial/by-id/*"))),
        tree.host,
    )
    assert len(ids(found)) == 1
    assert devices(found)[0].candidates == ("/dev/ttyUSB0",)
    assert reason(found, "/dev/serial/by-id/adapter") == "the same node as /dev/ttyUSB0"
    reasons = [one.reason for one in found.outcomes if one.path == "/dev/ttyUSB0"]
    assert reasons == ["found by '/dev/ttyUSB*'", "already found by an earlier source"]


def test_41_a_link_beside_its_node_does_not_decide_the_id(tree: NodeTree) -> None:
    spec = config(resource(X, source("/dev/*")))
    tree.plug("/dev/sr0", "11:0", kind="block")
    before = ids(discover(spec, tree.host))
    tree.link("/dev/cdrom", "sr0")
    assert ids(discover(spec, tree.host)) == before == ["sr0"]


def test_a_symlink_keeps_its_name_and_gives_its_target(tree: NodeTree) -> None:
    tree.plug("/dev/ttyUSB3", "188:3")
    tree.link("/dev/serial/by-id/usb-FTDI_A1", "/dev/ttyUSB3")
    found = discover(config(resource(X, source("/dev/serial/by-id/*"))), tree.host)
    [device] = devices(found)
    assert device.id.startswith("serial-by-id-usb-ftdi-a1-")
    assert device.nodes[0].container_path == "/dev/serial/by-id/usb-FTDI_A1"
    assert device.nodes[0].info.resolved == "/dev/ttyUSB3"
    assert found.directories == {"/dev/serial/by-id", "/dev"}


def test_a_replugged_symlink_has_its_id_under_another_number(tree: NodeTree) -> None:
    spec = config(resource(X, source("/dev/serial/by-id/*")))
    tree.plug("/dev/ttyUSB3", "188:3")
    tree.link("/dev/serial/by-id/usb-FTDI_A1", "../../ttyUSB3")
    before = ids(discover(spec, tree.host))
    tree.unplug("/dev/ttyUSB3")
    tree.unplug("/dev/serial/by-id/usb-FTDI_A1")
    assert ids(discover(spec, tree.host)) == []
    tree.plug("/dev/ttyUSB0", "188:0")
    tree.link("/dev/serial/by-id/usb-FTDI_A1", "../../ttyUSB0")
    assert ids(discover(spec, tree.host)) == before


def test_a_name_that_is_not_utf_8_is_left_out_and_said(tree: NodeTree) -> None:
    tree.plug("/dev/x\udcff", "240:1")
    tree.plug("/dev/xé", "240:2")
    found = discover(config(resource(X, source("/dev/x*"))), tree.host)
    assert [device.key for device in devices(found)] == ["xé"]
    assert reason(found, "/dev/x\\xff") == ("its name is not UTF-8, which the kubelet API requires")


@pytest.mark.root
def test_real_nodes_are_found_under_their_real_numbers(tree: NodeTree) -> None:
    tree.mknod("/dev/fuse", 10, 229, stat.S_IFCHR)
    tree.mknod("/dev/loop0", 7, 0, stat.S_IFBLK)
    real = Host.at(tree.root)
    found = discover(config(resource(X, source("/dev/{fuse,loop*}"))), real)
    assert [(d.id, d.nodes[0].info.numbers) for d in devices(found)] == [
        ("fuse", ("char", 10, 229)),
        ("loop0", ("block", 7, 0)),
    ]


def test_what_a_link_or_a_node_spec_leads_to_must_be_utf_8_too(tree: NodeTree) -> None:
    tree.plug("/dev/bytes/\udcff", "240:1")
    tree.plug("/dev/y", "240:2")
    tree.link("/dev/x", "bytes/\udcff")
    spec = source("/dev/y", nodes=(node("/dev/bytes/*"),))
    found = discover(config(resource(X, source("/dev/x")), resource("b.example/y", spec)), tree.host)
    wrong = "its name is not UTF-8, which the kubelet API requires"
    assert reason(found, "/dev/x") == wrong
    assert devices(found, "b.example/y")[0].faults == (f"/dev/bytes/\\xff: {wrong}",)


# Groups, nodes and companions


def test_candidates_of_one_group_are_one_device(tree: NodeTree) -> None:
    for card in (0, 1):
        for at, kind in enumerate(("uverbs", "umad", "issm")):
            tree.plug(f"/dev/infiniband/{kind}{card}", f"231:{at * 64 + card}")
    tree.plug("/dev/infiniband/rdma_cm", "10:58")
    spec = source(
        "/dev/infiniband/{uverbs,umad,issm}*", group_by="hca${index}", companions=(node("/dev/infiniband/rdma_cm"),)
    )
    first, second = devices(discover(config(resource("rdma/hca", spec)), tree.host), "rdma/hca")
    assert (first.key, second.key) == ("hca0", "hca1")
    assert [one.path for one in first.nodes] == [f"/dev/infiniband/{kind}0" for kind in ("issm", "umad", "uverbs")]
    assert [one.path for one in second.companions] == ["/dev/infiniband/rdma_cm"]
    assert first.attributes["index"] == ("0",)
    assert first.attributes["name"] == ("issm0", "umad0", "uverbs0")
    assert not first.faults


def test_a_candidate_without_the_groups_attribute_is_left_out(tree: NodeTree) -> None:
    tree.plug("/dev/x", "240:1")
    tree.plug("/dev/x1", "240:2")
    found = discover(config(resource(X, source("/dev/x*", group_by="${index}"))), tree.host)
    assert [device.key for device in devices(found)] == ["1"]
    assert reason(found, "/dev/x") == "groupBy refers to 'index', which the candidate does not have"


def test_a_device_without_its_ids_attribute_is_left_out(tree: NodeTree) -> None:
    tree.plug("/dev/x", "240:1")
    found = discover(config(resource(X, source("/dev/x", id="disk-${index}"))), tree.host)
    assert ids(found) == []
    assert reason(found, "/dev/x") == "id refers to 'index', which the candidate does not have"


def test_an_id_template_names_the_device(tree: NodeTree) -> None:
    tree.plug("/dev/x4", "240:4")
    [device] = devices(discover(config(resource(X, source("/dev/x*", id="Disk ${index}"))), tree.host))
    assert device.key == "Disk 4"
    assert device.id.startswith("disk-4-")


def test_two_devices_that_ask_for_one_id_are_one_unhealthy_device(tree: NodeTree) -> None:
    tree.plug("/dev/x1", "240:1")
    tree.plug("/dev/x2", "240:2")
    found = discover(config(resource(X, source("/dev/x*", id="disk"))), tree.host)
    [device] = devices(found)
    assert device.candidates == ("/dev/x1",)
    [fault] = device.faults
    assert fault == (
        f"/dev/x2 (devices.yaml:5:7) has the same ID '{device.id}'; write an 'id' template that differs between them"
    )
    assert reason(found, "/dev/x2") == f"/dev/x1 has the same ID '{device.id}'"


def test_nodes_replace_the_candidates(tree: NodeTree) -> None:
    tree.plug("/dev/vfio/12", "511:0")
    tree.plug("/dev/vfio/vfio", "10:196")
    spec = source(
        "/dev/vfio/[0-9]*",
        nodes=(node("/dev/vfio/${index}", as_="/dev/group-${minor}-of-${name}", permissions="rwm"),),
    )
    [device] = devices(discover(config(resource(X, spec)), tree.host))
    [only] = device.nodes
    assert (only.path, only.container_path, only.permissions) == ("/dev/vfio/12", "/dev/group-0-of-12", "rwm")


def test_a_node_path_may_be_a_glob_and_as_speaks_of_each_node(tree: NodeTree) -> None:
    tree.plug("/dev/card0", "226:0")
    tree.plug("/dev/card0-render129", "226:129")
    tree.plug("/dev/card0-render128", "226:128")
    spec = source("/dev/card?", nodes=(node("/dev/${name}-render*", as_="/dev/dri/renderD${index}"),))
    [device] = devices(discover(config(resource(X, spec)), tree.host))
    assert [one.container_path for one in device.nodes] == ["/dev/dri/renderD128", "/dev/dri/renderD129"]


def test_a_value_is_no_pattern_inside_a_glob(tree: NodeTree) -> None:
    tree.plug("/dev/x[1]", "240:1")
    tree.plug("/dev/x[1]a", "240:2")
    tree.plug("/dev/x1a", "240:3")
    spec = source("/dev/x[[]1]", nodes=(node("${path}?"),))
    [device] = devices(discover(config(resource(X, spec)), tree.host))
    assert [one.path for one in device.nodes] == ["/dev/x[1]a"]


def test_a_missing_companion_is_a_fault_unless_it_is_optional(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    wanted = source("/dev/x?", companions=(node("/dev/ctl"),))
    [device] = devices(discover(config(resource(X, wanted)), tree.host))
    assert device.faults == ("companion /dev/ctl does not exist",)
    optional = source("/dev/x?", companions=(node("/dev/ctl", optional=True),))
    [device] = devices(discover(config(resource(X, optional)), tree.host))
    assert device.faults == ()
    assert device.companions == ()


def test_what_is_wrong_with_nodes_is_said(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/y", "240:1")
    tree.plug("/dev/z", "240:2")
    tree.directory("/dev/dir")
    spec = source(
        "/dev/x?",
        nodes=(
            node("/dev/missing"),
            node("/dev/no*"),
            node("/dev/dir"),
            node("relative/${name}"),
            node("relative/*"),
            node("/dev/${target}"),
            node("/dev/y", as_="y"),
            node("/dev/y", as_="/dev/one"),
            node("/dev/z", as_="/dev//one/"),
            node("/dev/maybe", optional=True),
            node("/dev/maybe*", optional=True),
        ),
    )
    [device] = devices(discover(config(resource(X, spec)), tree.host))
    assert device.faults == (
        "/dev/missing does not exist",
        "nothing matches /dev/no* (devices.yaml:5:7)",
        "/dev/dir is a directory, not a device node",
        "'relative/x0' is not an absolute path (devices.yaml:5:7)",
        "a path at devices.yaml:5:7 renders to an invalid glob: a glob must be an absolute path",
        "a path at devices.yaml:5:7 refers to 'target', which the device does not have",
        "the container path 'y' of /dev/y is not absolute (devices.yaml:5:7)",
        "/dev/y and /dev/z both map to /dev/one in the container",
    )


def test_a_device_without_any_node_is_a_fault_and_no_phantom(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    spec = source("/dev/x?", nodes=(node("/dev/maybe", optional=True),))
    [device] = devices(discover(config(resource(X, spec)), tree.host))
    assert device.faults == ("none of its device nodes exists",)


def test_a_companion_that_is_the_node_itself_is_handed_out_once(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    spec = source("/dev/x?", companions=(node("/dev/x0", permissions="rwm"),))
    [device] = devices(discover(config(resource(X, spec)), tree.host))
    assert device.companions == ()
    assert [one.permissions for one in device.nodes] == ["rw"]
    assert device.faults == ()


def test_a_template_of_allocate_without_a_value_is_a_fault_said_once(tree: NodeTree) -> None:
    tree.plug("/dev/x", "240:0")
    tree.plug("/dev/x1", "240:1")
    env = {"A": "${index}", "B": "${index} again", "C": "${index|default:none}", "D": "${target|default:}"}
    faulty, sound = devices(discover(config(resource(X, source("/dev/x*"), env=env)), tree.host))
    assert faulty.faults == ("allocate.env A refers to 'index', which the device does not have",)
    assert sound.faults == ()


# Two claims on one node


def two_claims(first: Config, tree: NodeTree) -> Inventory:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/x1", "240:1")
    return discover(first, tree.host)


ALL = source("/dev/x*", location=SourceLocation("devices.yaml", 10, 5))
ONE = source("/dev/x1", location=SourceLocation("devices.yaml", 20, 5))


def test_42_a_node_belongs_to_the_first_resource_that_claims_it(tree: NodeTree) -> None:
    found = two_claims(config(resource(X, ALL), resource("b.example/y", ONE)), tree)
    assert ids(found) == ["x0", "x1"]
    assert ids(found, "b.example/y") == []
    [conflict] = found.conflicts
    assert (conflict.path, conflict.location) == ("/dev/x1", ONE.location)
    assert conflict.message == (
        "/dev/x1 (char 240:1) is claimed by a.example/x at devices.yaml:10:5 and by b.example/y at devices.yaml:20:5: "
        "the first gets it, device x1 of b.example/y is left out. "
        "Exclude it from one resource, or set share: {overlap: true} in both"
    )
    assert reason(found, "/dev/x1", "b.example/y") == "claimed by resource a.example/x at devices.yaml:10:5"


def test_42_a_node_claimed_under_another_name_clashes_too(tree: NodeTree) -> None:
    tree.link("/dev/by-id/one", "../x1")
    link = source("/dev/by-id/*")
    found = two_claims(config(resource(X, link), resource("b.example/y", ALL)), tree)
    assert len(ids(found)) == 1
    assert ids(found, "b.example/y") == ["x0"]
    assert len(found.conflicts) == 1


@pytest.mark.parametrize(("first", "second", "conflicts"), [(True, True, 0), (True, False, 1), (False, True, 1)])
def test_42_both_must_allow_an_overlap(tree: NodeTree, *, first: bool, second: bool, conflicts: int) -> None:
    found = two_claims(config(resource(X, ALL, overlap=first), resource("b.example/y", ONE, overlap=second)), tree)
    assert len(found.conflicts) == conflicts
    assert len(ids(found, "b.example/y")) == 1 - conflicts


def test_42_ids_differ_where_resources_overlap(tree: NodeTree) -> None:
    found = two_claims(config(resource(X, ALL, overlap=True), resource("b.example/y", ONE, overlap=True)), tree)
    assert len({*ids(found), *ids(found, "b.example/y")}) == 3


def test_two_devices_of_one_resource_cannot_have_one_node(tree: NodeTree) -> None:
    spec = source("/dev/x?", nodes=(node("${path}"), node("/dev/shared")))
    tree.plug("/dev/shared", "240:9")
    found = two_claims(config(resource(X, spec)), tree)
    assert [device.key for device in devices(found)] == ["x0"]
    assert [conflict.path for conflict in found.conflicts] == ["/dev/shared"]


def test_companions_may_be_shared(tree: NodeTree) -> None:
    tree.plug("/dev/ctl", "240:9")
    spec = source("/dev/x?", companions=(node("/dev/ctl"),))
    found = two_claims(config(resource(X, spec)), tree)
    assert len(ids(found)) == 2
    assert not found.conflicts


# The same whatever the order, and the same again after a partial scan

paths = st.sampled_from(
    ["/dev/x0", "/dev/x1", "/dev/x10", "/dev/y1", "/dev/dri/card0", "/dev/dri/card1", "/dev/by-id/a", "/dev/ctl"]
)
targets = st.sampled_from(["", "", "", "../x0", "../dri/card0", "dri", "gone", "/dev/x1"])
Step = tuple[str, str, int]
steps = st.lists(st.tuples(paths, targets, st.integers(0, 3)), max_size=8)

EVERYTHING = config(
    resource("a.example/a", source("/dev/x*", companions=(node("/dev/ctl"),))),
    resource("a.example/b", source("/dev/{x1,y*}", "/dev/by-id/*"), source("/dev/**/card*", group_by="c${index}")),
    resource("a.example/c", source("/dev/dri/*", type=CandidateType.ANY, nodes=(node("/dev/ct[l]"), node("/dev/y1")))),
    resource("a.example/d", source("/dev/nothing/here/*", "/run/mine*"), overlap=True),
)


def put(tree: NodeTree, path: str, target: str, minor: int) -> tuple[str, str]:
    """Put something at a path, in place of whatever was there; return directory and name that changed, "" for any."""
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
def test_the_inventory_does_not_depend_on_the_order_in_which_things_appeared(
    steps: list[Step], shuffle: Random
) -> None:
    by_path = {step[0]: step for step in steps}
    shuffled = list(by_path.values())
    shuffle.shuffle(shuffled)
    with node_tree() as one, node_tree() as other:
        for step in by_path.values():
            put(one, *step)
        for step in shuffled:
            put(other, *step)
        assert discover(EVERYTHING, one.host) == discover(EVERYTHING, other.host)


@given(steps, steps)
@settings(max_examples=100, deadline=None)
def test_a_partial_scan_finds_what_a_full_one_finds(before: list[Step], after: list[Step]) -> None:
    with node_tree() as tree:
        for step in before:
            put(tree, *step)
        previous = discover(EVERYTHING, tree.host)
        changed = [put(tree, *step) for step in after]
        changes = {
            directory: frozenset(name for at, name in changed if at == directory)
            if (directory, "") not in changed
            else frozenset()
            for directory, _ in changed
        }
        partial = rescan(EVERYTHING, tree.host, previous, changes)
        full = discover(EVERYTHING, tree.host)
        assert (partial.devices, partial.outcomes, partial.conflicts) == (full.devices, full.outcomes, full.conflicts)
        assert partial.unmatched_globs == full.unmatched_globs
        # What a device that is gone needed beside its own node may be watched for longer.
        assert partial.directories >= full.directories
        for name, scan in full.scans.items():
            assert partial.scans[name].candidates_by_source == scan.candidates_by_source


@given(steps, paths)
@settings(max_examples=60, deadline=None)
def test_an_id_stays_whatever_else_comes_or_goes(steps: list[Step], path: str) -> None:
    spec = config(resource(X, source("/dev/{x,y}*")))
    with node_tree() as tree:
        put(tree, path, "", 77)
        alone = {device.candidates: device.id for device in devices(discover(spec, tree.host))}
        for other, _, minor in steps:
            if other != path:
                put(tree, other, "", minor)
        together = {device.candidates: device.id for device in devices(discover(spec, tree.host))}
        assert alone.items() <= together.items()


def test_a_partial_scan_leaves_untouched_resources_alone(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/dri/card0", "240:1")
    spec = config(resource(X, source("/dev/x*")), resource("b.example/y", source("/dev/dri/card*")))
    before = discover(spec, tree.host)
    tree.plug("/dev/x1", "240:2")
    tree.plug("/dev/dri/card1", "240:3")
    after = rescan(spec, tree.host, before, {"/dev/dri": frozenset({"card1"}), "/dev": frozenset({"y7"})})
    assert ids(after) == ["x0"]
    assert [device.key for device in devices(after, "b.example/y")] == ["dri/card0", "dri/card1"]
    assert after.scans[X] is before.scans[X]
    assert ids(rescan(spec, tree.host, before, {"/dev": frozenset({"x1"})})) == ["x0", "x1"]
    assert ids(rescan(spec, tree.host, before, {"/dev": frozenset()})) == ["x0", "x1"]
    assert ids(rescan(spec, tree.host, before, None)) == ["x0", "x1"]


def test_a_partial_scan_under_another_configuration_scans_what_changed(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/y0", "240:1")
    before = discover(config(resource(X, source("/dev/x*"))), tree.host)
    after = rescan(config(resource(X, source("/dev/y*"))), tree.host, before, {})
    assert ids(after) == ["y0"]


def test_what_did_not_change_comes_back_as_the_same_object(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/x1", "240:1")
    spec = config(resource(X, source("/dev/x*")))
    before = discover(spec, tree.host)
    tree.plug("/dev/x2", "240:2")
    after = discover(spec, tree.host, before)
    assert [new is old for new, old in zip(devices(after), devices(before), strict=False)] == [True, True]
    assert after.scans[X] is not before.scans[X]
    assert discover(spec, tree.host, after).scans[X] is after.scans[X]


# What the leading peer got wrong (its defects 3, 6, 7, 9)


def test_peer_3_no_device_is_offered_that_gives_nothing(tree: NodeTree) -> None:
    tree.directory("/dev/x0")
    found = discover(config(resource(X, source("/dev/x0", type=CandidateType.ANY))), tree.host)
    [device] = devices(found)
    assert device.faults == (
        "/dev/x0 is a directory, not a device node, and 'allocate' is empty: a container would get nothing",
    )


def test_peer_6_a_lost_member_does_not_pair_the_others_anew(tree: NodeTree) -> None:
    for number in range(3):
        tree.plug(f"/dev/a{number}", f"240:{number}")
        tree.plug(f"/dev/b{number}", f"241:{number}")
    spec = config(resource(X, source("/dev/a*", "/dev/b*", group_by="pair${index}")))
    before = {device.key: device for device in devices(discover(spec, tree.host))}
    tree.unplug("/dev/a0")
    after = {device.key: device for device in devices(discover(spec, tree.host))}
    assert {key: device.id for key, device in after.items()} == {key: device.id for key, device in before.items()}
    assert after["pair1"] == before["pair1"]
    assert [one.path for one in after["pair0"].nodes] == ["/dev/b0"]


def test_peer_6_an_optional_member_does_not_change_the_id(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    spec = config(resource(X, source("/dev/x?", nodes=(node("${path}"), node("/dev/extra", optional=True)))))
    before = ids(discover(spec, tree.host))
    tree.plug("/dev/extra", "240:9")
    assert ids(discover(spec, tree.host)) == before


def test_peer_7_alike_dongles_stay_devices_of_their_own(tree: NodeTree) -> None:
    for number in range(3):
        tree.plug(f"/dev/ttyACM{number}", f"166:{number}")
    assert len(ids(discover(config(resource(X, source("/dev/ttyACM*"))), tree.host))) == 3


def test_peer_9_no_node_is_in_two_resources(tree: NodeTree) -> None:
    found = two_claims(config(resource(X, ALL), resource("b.example/y", ALL)), tree)
    assert [len(ids(found)), len(ids(found, "b.example/y"))] == [2, 0]


@pytest.mark.root
def test_a_machines_own_device_directory_can_be_scanned() -> None:
    found = discover(config(resource(X, source("/dev/{null,zero}"))), Host())
    assert ids(found) == ["null", "zero"]
    assert Path("/dev/zero").stat().st_rdev == os.makedev(1, 5)
    assert devices(found)[1].nodes[0].info.numbers == ("char", 1, 5)
