"""Candidates: the paths that the globs of a source match, their attributes, and the reasons of exclusions."""

import stat

import pytest
import re2

from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.spec.model import CandidateType
from genplug.spec.selectors import Selector
from tests.support.hardware import (
    NAME,
    NodeTree,
    build_condition,
    build_config,
    build_node_spec,
    build_resource,
    build_source,
    discover_sources,
    find_reason,
    list_devices,
    list_ids,
)


def test_candidate_has_the_attributes_of_its_path(tree: NodeTree) -> None:
    tree.plug("/dev/ttyUSB07", "188:7")
    tree.plug("/dev/sd", "8:0", kind="block")
    tree.link("/dev/serial/port3", "../ttyUSB07")
    found = discover_sources(tree, build_source("/dev/sd", "/dev/serial/*"))
    by_key = {device.key: device.attributes for device in list_devices(found)}
    assert by_key["sd"] == {
        "path": ("/dev/sd",), "name": ("sd",), "type": ("block",), "major": ("8",), "minor": ("0",)
    }  # fmt: skip
    assert by_key["serial/port3"] == {
        "path": ("/dev/serial/port3",), "name": ("port3",), "index": ("3",), "type": ("char",),
        "major": ("188",), "minor": ("7",), "target": ("/dev/ttyUSB07",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("candidate_type", "expected"),
    [
        (CandidateType.DEVICE, {"c", "b"}),
        (CandidateType.CHAR, {"c"}),
        (CandidateType.BLOCK, {"b"}),
        (CandidateType.DIRECTORY, {"d"}),
        (CandidateType.FILE, {"f"}),
        (CandidateType.ANY, {"b", "c", "d", "f"}),
    ],
)
def test_candidates_are_filtered_by_type(tree: NodeTree, candidate_type: CandidateType, expected: set[str]) -> None:
    tree.plug("/dev/c", "240:1")
    tree.plug("/dev/b", "240:1", kind="block")
    tree.make_directory("/dev/d")
    tree.write("/dev/f")
    found = discover_sources(tree, build_source("/dev/?", type=candidate_type))
    assert {device.key for device in list_devices(found)} == expected
    excluded = {outcome.path.removeprefix("/dev/") for outcome in found.outcomes if outcome.device is None}
    assert excluded == {"b", "c", "d", "f"} - expected


def test_excluded_path_has_a_reason(tree: NodeTree) -> None:
    tree.make_directory("/dev/dir")
    tree.write("/dev/file")
    tree.plug("/dev/good", "240:1")
    tree.plug("/dev/bad", "240:2")
    tree.plug("/dev/not9", "240:3")
    tree.link("/dev/nowhere", "gone\udcff")
    tree.link("/dev/also-good", "good")
    spec = build_source(
        "/dev/*",
        exclude=("/dev/b?d",),
        where=(build_condition("index", Selector(exists=False, text="no value")),),
    )
    found = discover_sources(tree, spec)
    assert list_ids(found) == ["good"]
    assert {outcome.path: outcome.reason for outcome in found.outcomes if outcome.device is None} == {
        "/dev/dir": "is a directory, expected a device node",
        "/dev/file": "is a regular file, expected a device node",
        "/dev/bad": "excluded by '/dev/b?d' (devices.yaml:5:7)",
        "/dev/not9": "where: index is '9', expected no value (devices.yaml:5:7)",
        "/dev/nowhere": "is a symlink to gone\\xff, which does not exist",
        "/dev/also-good": "the same node as /dev/good",
    }


def test_candidate_must_satisfy_all_conditions(tree: NodeTree) -> None:
    for number in range(12):
        tree.plug(f"/dev/x{number}", f"240:{number}")
    tree.plug("/dev/x", "240:100")
    spec = build_source(
        "/dev/x*",
        where=(
            build_condition("index", Selector(minimum=3, maximum=11, text="min 3, max 11")),
            build_condition("name", Selector(matches=re2.compile(r"[^5]$"), text="matches [^5]$")),
        ),
    )
    found = discover_sources(tree, spec)
    assert list_ids(found) == ["x3", "x4", "x6", "x7", "x8", "x9", "x10", "x11"]
    assert find_reason(found, "/dev/x") == "where: it has no index, expected min 3, max 11 (devices.yaml:5:7)"
    assert find_reason(found, "/dev/x5") == "where: name is 'x5', expected matches [^5]$ (devices.yaml:5:7)"


def test_41_node_that_two_globs_match_is_a_single_device(tree: NodeTree) -> None:
    tree.plug("/dev/ttyUSB0", "188:0")
    tree.link("/dev/serial/by-id/adapter", "../../ttyUSB0")
    found = discover_sources(
        tree, build_source("/dev/ttyUSB*", "/dev/tty*"), build_source("/dev/ttyUSB0", "/dev/serial/by-id/*")
    )
    assert len(list_ids(found)) == 1
    assert list_devices(found)[0].candidates == ("/dev/ttyUSB0",)
    assert find_reason(found, "/dev/serial/by-id/adapter") == "the same node as /dev/ttyUSB0"
    reasons = [outcome.reason for outcome in found.outcomes if outcome.path == "/dev/ttyUSB0"]
    assert reasons == ["found by '/dev/ttyUSB*'", "already found by an earlier source"]


def test_41_device_keeps_id_beside_a_symlink_to_its_node(tree: NodeTree) -> None:
    spec = build_config(build_resource(NAME, build_source("/dev/*")))
    tree.plug("/dev/sr0", "11:0", kind="block")
    before = list_ids(discover(spec, tree.host))
    tree.link("/dev/cdrom", "sr0")
    assert list_ids(discover(spec, tree.host)) == before == ["sr0"]


def test_symlink_keeps_its_path_and_resolves_to_its_target(tree: NodeTree) -> None:
    tree.plug("/dev/ttyUSB3", "188:3")
    tree.link("/dev/serial/by-id/usb-FTDI_A1", "/dev/ttyUSB3")
    found = discover_sources(tree, build_source("/dev/serial/by-id/*"))
    [device] = list_devices(found)
    assert device.id.startswith("serial-by-id-usb-ftdi-a1-")
    assert device.nodes[0].container_path == "/dev/serial/by-id/usb-FTDI_A1"
    assert device.nodes[0].info.resolved == "/dev/ttyUSB3"
    assert found.directories == {"/dev/serial/by-id", "/dev"}


def test_path_that_is_not_utf_8_is_excluded_with_the_reason(tree: NodeTree) -> None:
    tree.plug("/dev/x\udcff", "240:1")
    tree.plug("/dev/xé", "240:2")
    found = discover_sources(tree, build_source("/dev/x*"))
    assert [device.key for device in list_devices(found)] == ["xé"]
    assert find_reason(found, "/dev/x\\xff") == ("its name is not UTF-8, which the kubelet API requires")


def test_target_that_is_not_utf_8_is_reported(tree: NodeTree) -> None:
    tree.plug("/dev/bytes/\udcff", "240:1")
    tree.plug("/dev/y", "240:2")
    tree.link("/dev/x", "bytes/\udcff")
    spec = build_source("/dev/y", nodes=(build_node_spec("/dev/bytes/*"),))
    found = discover(
        build_config(build_resource(NAME, build_source("/dev/x")), build_resource("b.example/y", spec)), tree.host
    )
    wrong = "its name is not UTF-8, which the kubelet API requires"
    assert find_reason(found, "/dev/x") == wrong
    assert list_devices(found, "b.example/y")[0].faults == (
        "'/dev/bytes/\\xff' contains bytes that are not UTF-8, which the kubelet API requires (devices.yaml:5:7)",
    )


@pytest.mark.root
def test_real_node_has_its_device_numbers(tree: NodeTree) -> None:
    tree.mknod("/dev/fuse", 10, 229, stat.S_IFCHR)
    tree.mknod("/dev/loop0", 7, 0, stat.S_IFBLK)
    real = Host.at(tree.root)
    found = discover(build_config(build_resource(NAME, build_source("/dev/{fuse,loop*}"))), real)
    assert [(d.id, d.nodes[0].info.numbers) for d in list_devices(found)] == [
        ("fuse", ("char", 10, 229)),
        ("loop0", ("block", 7, 0)),
    ]
