"""Hardware and IDs that two resources or two devices claim: which device is left out, and the texts that explain it."""

import re

import pytest
from msgspec.structs import replace

from genplug.hardware.conflicts import resolve_conflicts
from genplug.hardware.discovery import build_inventory, discover, scan_resource
from genplug.hardware.inventory import DeviceConflict, Inventory
from genplug.hardware.ledger import NO_USAGE, Ledger
from genplug.spec.diagnostic import Diagnostic, WarningCode
from genplug.spec.location import SourceLocation
from genplug.spec.model import CandidateType, Config, Source
from genplug.spec.template import Template
from tests.support.configs import load_resource
from tests.support.hardware import (
    NAME,
    NodeTree,
    build_config,
    build_node_spec,
    build_resource,
    build_source,
    find_reason,
    list_devices,
    list_ids,
)


def plug_two(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/x1", "240:1")


def two_claims(first: Config, tree: NodeTree) -> Inventory:
    plug_two(tree)
    return discover(first, tree.host)


ALL = build_source("/dev/x*", location=SourceLocation("devices.yaml", 10, 5))


ONE = build_source("/dev/x1", location=SourceLocation("devices.yaml", 20, 5))
OTHER_NAME = "b.example/y"
LATE = build_config(build_resource(OTHER_NAME, ONE))
BOTH = build_config(build_resource(NAME, ALL), build_resource(OTHER_NAME, ONE))


def scan(tree: NodeTree, config: Config, ledger: Ledger, now: float = 0.0) -> tuple[Inventory, Ledger]:
    """Return the inventory of a configuration after what a ledger remembers, and the ledger after it."""
    scans = {name: scan_resource(resource, tree.host.cached()) for name, resource in config.resources.items()}
    return build_inventory(config, scans, None, ledger, now)


def test_42_node_belongs_to_the_first_resource_that_claims_it(tree: NodeTree) -> None:
    found = two_claims(build_config(build_resource(NAME, ALL), build_resource(OTHER_NAME, ONE)), tree)
    assert list_ids(found) == ["x0", "x1"]
    assert list_ids(found, "b.example/y") == []
    [conflict] = found.conflicts
    assert (conflict.path, conflict.location) == ("/dev/x1", ONE.location)
    assert conflict.message == (
        "/dev/x1 (char 240:1) is claimed by a.example/x at devices.yaml:10:5 and by b.example/y at devices.yaml:20:5: "
        "the first gets it, device x1 of b.example/y is left out. "
        "Exclude it from one resource, or set share: {overlap: true} in both"
    )
    assert conflict.resource == "b.example/y"
    assert find_reason(found, "/dev/x1", "b.example/y") == "claimed by resource a.example/x at devices.yaml:10:5"
    assert find_reason(found, "/dev/x1") == "in x1: found by '/dev/x*'"
    assert not found.withheld


@pytest.mark.parametrize(
    ("used", "why"),
    [([], "b.example/y has it already"), (["x1"], "a pod uses it as x1 of b.example/y")],
)
def test_node_stays_with_a_later_resource_that_has_it(tree: NodeTree, used: list[str], why: str) -> None:
    plug_two(tree)
    _, ledger = scan(tree, LATE, Ledger())
    found, _ = scan(tree, BOTH, ledger.with_report({OTHER_NAME: used}, 1.0).after_reload(2.0), 3.0)
    assert list_ids(found, OTHER_NAME) == ["x1"]
    assert found.conflicts == (
        DeviceConflict(
            "/dev/x1",
            ALL.location,
            "/dev/x1 (char 240:1) is claimed by b.example/y at devices.yaml:20:5 and by a.example/x at "
            f"devices.yaml:10:5: {why}, device x1 of a.example/x is left out. "
            "Exclude it from one resource, or set share: {overlap: true} in both",
            NAME,
        ),
    )


def test_directory_of_two_groups_belongs_to_the_first(tree: NodeTree) -> None:
    tree.make_directory("/sys/x/0")
    tree.make_directory("/sys/x/1")
    groups = build_source("/sys/x/*", type=CandidateType.DIRECTORY, group_by="all")
    found = discover(
        build_config(build_resource(NAME, groups, env={"A": "b"}), build_resource(OTHER_NAME, groups)), tree.host
    )
    assert len(list_ids(found)) == 1
    [conflict] = found.conflicts
    assert conflict.path == "/sys/x/0, /sys/x/1"
    assert conflict.message.startswith("/sys/x/0, /sys/x/1 is claimed by a.example/x at devices.yaml:5:7 and by b.")


def test_hardware_is_withheld_until_the_kubelet_has_reported_its_ids(tree: NodeTree) -> None:
    plug_two(tree)
    found, _ = scan(tree, BOTH, Ledger())
    assert list_ids(found) == ["x0"]
    assert found.withheld == {
        (name, "x1"): f"withheld: it is the same hardware as device x1 of {other}, "
        "and the kubelet has not reported which of them pods use"
        for name, other in ((NAME, OTHER_NAME), (OTHER_NAME, NAME))
    }
    assert find_reason(found, "/dev/x1") == found.withheld[NAME, "x1"]
    assert not found.conflicts


def test_hardware_of_a_former_device_is_withheld_while_a_pod_may_use_it(tree: NodeTree) -> None:
    plug_two(tree)
    _, ledger = scan(tree, LATE, Ledger())
    found, _ = scan(
        tree, build_config(build_resource(NAME, ALL)), ledger.with_report({OTHER_NAME: ["x1"]}, 1.0).after_reload(2.0)
    )
    assert list_ids(found) == ["x0"]
    assert found.withheld == {
        (NAME, "x1"): "withheld: it is the hardware of device x1 of b.example/y, which a pod may still use"
    }


def test_id_that_leads_to_other_hardware_is_withheld_while_a_pod_may_use_it(tree: NodeTree) -> None:
    plug_two(tree)
    config = build_config(build_resource(NAME, build_source("/dev/by-id/*")))
    tree.link("/dev/by-id/a", "../x0")
    found, ledger = scan(tree, config, Ledger().with_report({}, 0.0))
    [id_] = list_ids(found)
    tree.unplug("/dev/by-id/a")
    tree.link("/dev/by-id/a", "../x1")
    tree.link("/dev/by-id/b", "../x0")
    found, _ = scan(tree, config, ledger, 1.0)
    assert list_ids(found) == []
    reason = found.withheld[NAME, id_]
    assert re.fullmatch(
        r"withheld: its ID is that of the hardware of device by-id-b-\w{6} of a.example/x, and a pod may still use it",
        reason,
    )
    assert find_reason(found, "/dev/by-id/a") == reason


def test_42_node_claimed_through_a_symlink_conflicts(tree: NodeTree) -> None:
    tree.link("/dev/by-id/one", "../x1")
    link = build_source("/dev/by-id/*")
    found = two_claims(build_config(build_resource(NAME, link), build_resource(OTHER_NAME, ALL)), tree)
    assert len(list_ids(found)) == 1
    assert list_ids(found, "b.example/y") == ["x0"]
    assert len(found.conflicts) == 1


@pytest.mark.parametrize(("first", "second", "conflicts"), [(True, True, 0), (True, False, 1), (False, True, 1)])
def test_42_overlap_must_be_allowed_by_both_resources(
    tree: NodeTree, *, first: bool, second: bool, conflicts: int
) -> None:
    found = two_claims(
        build_config(build_resource(NAME, ALL, overlap=first), build_resource(OTHER_NAME, ONE, overlap=second)), tree
    )
    assert len(found.conflicts) == conflicts
    assert len(list_ids(found, "b.example/y")) == 1 - conflicts


def test_42_ids_of_overlapping_resources_differ(tree: NodeTree) -> None:
    found = two_claims(
        build_config(build_resource(NAME, ALL, overlap=True), build_resource(OTHER_NAME, ONE, overlap=True)), tree
    )
    assert len({*list_ids(found), *list_ids(found, "b.example/y")}) == 3


def test_42_two_resources_with_the_same_glob_share_no_node(tree: NodeTree) -> None:
    found = two_claims(build_config(build_resource(NAME, ALL), build_resource(OTHER_NAME, ALL)), tree)
    assert [len(list_ids(found)), len(list_ids(found, "b.example/y"))] == [2, 0]


def test_devices_of_a_resource_without_a_conflict_are_the_tuple_of_its_scan(tree: NodeTree) -> None:
    plug_two(tree)
    tree.plug("/dev/z0", "240:8")
    third = build_resource("c.example/z", build_source("/dev/z*"))
    config = build_config(build_resource(NAME, ALL), build_resource(OTHER_NAME, ONE), third)
    scans = {name: scan_resource(resource, tree.host.cached()) for name, resource in config.resources.items()}
    found = resolve_conflicts(config.resources, scans, Ledger().with_report({}, 1.0), 2.0)
    assert [conflict.path for conflict in found.conflicts] == ["/dev/x1"]
    assert found.devices[third.name] is scans[third.name].devices


def test_node_of_two_devices_of_a_resource_conflicts(tree: NodeTree) -> None:
    spec = build_source("/dev/x?", nodes=(build_node_spec("${path}"), build_node_spec("/dev/shared")))
    tree.plug("/dev/shared", "240:9")
    found = two_claims(build_config(build_resource(NAME, spec)), tree)
    assert [device.key for device in list_devices(found)] == ["x0"]
    assert [conflict.path for conflict in found.conflicts] == ["/dev/shared"]


def test_companion_of_two_devices_does_not_conflict(tree: NodeTree) -> None:
    tree.plug("/dev/ctl", "240:9")
    spec = build_source("/dev/x?", companions=(build_node_spec("/dev/ctl"),))
    found = two_claims(build_config(build_resource(NAME, spec)), tree)
    assert len(list_ids(found)) == 2
    assert not found.conflicts
    assert found.withheld == {}


LINKS = build_source("/dev/by-id/?", location=SourceLocation("devices.yaml", 30, 5))
NUMBERED_LINKS = build_source("/dev/by-id/*-1", location=SourceLocation("devices.yaml", 40, 5))


def plug_links(tree: NodeTree) -> None:
    plug_two(tree)
    for name in ("a", "b", "c"):
        tree.link(f"/dev/by-id/{name}", "../x0")
        tree.link(f"/dev/by-id/{name}-1", "../x1")
    tree.plug("/dev/shared", "240:9")


def test_id_of_several_links_causes_a_warning(tree: NodeTree) -> None:
    plug_links(tree)
    for name in ("y0", "y1"):
        tree.plug(f"/dev/{name}")
    sharing = build_source("/dev/y?", nodes=(build_node_spec("${path}"), build_node_spec("/dev/shared")))
    found = discover(
        build_config(build_resource(OTHER_NAME, sharing), build_resource(NAME, LINKS, NUMBERED_LINKS)), tree.host
    )
    assert [conflict.path for conflict in found.conflicts] == ["/dev/shared"]
    assert found.warnings == tuple(
        Diagnostic(
            WarningCode.UNSTABLE_ID,
            location,
            f"{first} and {second} are links to the same device, and the ID is made of the first of them that exists",
            "resources.a.example/x",
            hint="select one link to each device with a narrower glob, or write an 'id' of an attribute of the device",
        )
        for location, first, second in (
            (LINKS.location, "/dev/by-id/a", "/dev/by-id/b"),
            (NUMBERED_LINKS.location, "/dev/by-id/a-1", "/dev/by-id/b-1"),
        )
    )
    assert find_reason(found, "/dev/by-id/b") == "the same node as /dev/by-id/a"
    assert not found.withheld


def test_name_of_several_links_causes_a_warning(tree: NodeTree) -> None:
    plug_links(tree)
    name = "a.example/${name}"
    resource = replace(build_resource(name, LINKS), name_template=Template.parse(name))
    [warning] = discover(build_config(resource), tree.host).warnings
    assert warning.key_path == f"resources.{name}"


@pytest.mark.parametrize(
    "sources",
    [
        (replace(LINKS, id=Template.parse("${minor}")), ONE),
        (replace(LINKS, group_by=Template.parse("${path}")), ONE),
        (build_source("/dev/by-id/a*"),),
        (ALL, LINKS),
        (build_source("/dev/by-id/a*", nodes=(build_node_spec("${path}"), build_node_spec("/dev/shared"))),),
    ],
    ids=["id", "groupBy", "single links", "nodes and links", "different devices"],
)
@pytest.mark.parametrize("ledger", [Ledger(NO_USAGE), Ledger()], ids=["reported", "not reported"])
def test_id_that_does_not_depend_on_the_first_link_causes_no_warning(
    tree: NodeTree, sources: tuple[Source, ...], ledger: Ledger
) -> None:
    plug_links(tree)
    found, _ = scan(tree, build_config(build_resource(NAME, *sources)), ledger)
    assert not found.warnings


def test_link_to_a_member_of_a_group_causes_no_warning(tree: NodeTree) -> None:
    plug_two(tree)
    tree.link("/dev/by-id/a", "../x0")
    tree.link("/dev/by-path/a", "../x0")
    tree.link("/dev/by-path/b", "../x1")
    sources = (LINKS, build_source("/dev/by-path/*", group_by="all"))
    for ledger in (Ledger(NO_USAGE), Ledger()):
        found, _ = scan(tree, build_config(build_resource(NAME, *sources)), ledger)
        assert not found.warnings


def test_verbatim_id_belongs_to_the_first_resource_that_has_it(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/y0", "241:0")
    tree.plug("/dev/y1", "241:1")
    first, second = (
        replace(
            load_resource(f"devices: [{{glob: '/dev/{name}*', groupBy: all, id: same, verbatimId: true}}]"),
            name=f"a.example/{name}",
        )
        for name in "xy"
    )
    found = discover(build_config(first, second), tree.host)
    assert list_ids(found, "a.example/x") == ["same"]
    assert list_ids(found, "a.example/y") == []
    location = second.sources[0].location
    assert found.conflicts == (
        DeviceConflict(
            "/dev/y0, /dev/y1",
            location,
            f"the ID 'same' is that of a device of a.example/x at {location} and of a device of a.example/y at "
            f"{location}, and an ID is unique on the node: the first gets it, device same of a.example/y is left out. "
            "Write an 'id' template that differs, or unset 'verbatimId' in one of them",
            "a.example/y",
        ),
    )
    assert find_reason(found, "/dev/y0", "a.example/y") == "has the same ID as device same of a.example/x"
