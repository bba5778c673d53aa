"""Device nodes that two resources or two devices claim."""

import pytest
from attrs import evolve

from genplug.hardware.discovery import discover
from genplug.hardware.inventory import Inventory
from genplug.spec.location import SourceLocation
from genplug.spec.model import Config
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


def two_claims(first: Config, tree: NodeTree) -> Inventory:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/x1", "240:1")
    return discover(first, tree.host)


ALL = build_source("/dev/x*", location=SourceLocation("devices.yaml", 10, 5))


ONE = build_source("/dev/x1", location=SourceLocation("devices.yaml", 20, 5))


def test_42_node_belongs_to_the_first_resource_that_claims_it(tree: NodeTree) -> None:
    found = two_claims(build_config(build_resource(NAME, ALL), build_resource("b.example/y", ONE)), tree)
    assert list_ids(found) == ["x0", "x1"]
    assert list_ids(found, "b.example/y") == []
    [conflict] = found.conflicts
    assert (conflict.path, conflict.location) == ("/dev/x1", ONE.location)
    assert conflict.message == (
        "/dev/x1 (char 240:1) is claimed by a.example/x at devices.yaml:10:5 and by b.example/y at devices.yaml:20:5: "
        "the first gets it, device x1 of b.example/y is left out. "
        "Exclude it from one resource, or set share: {overlap: true} in both"
    )
    assert find_reason(found, "/dev/x1", "b.example/y") == "claimed by resource a.example/x at devices.yaml:10:5"


def test_42_node_claimed_through_a_symlink_conflicts(tree: NodeTree) -> None:
    tree.link("/dev/by-id/one", "../x1")
    link = build_source("/dev/by-id/*")
    found = two_claims(build_config(build_resource(NAME, link), build_resource("b.example/y", ALL)), tree)
    assert len(list_ids(found)) == 1
    assert list_ids(found, "b.example/y") == ["x0"]
    assert len(found.conflicts) == 1


@pytest.mark.parametrize(("first", "second", "conflicts"), [(True, True, 0), (True, False, 1), (False, True, 1)])
def test_42_overlap_must_be_allowed_by_both_resources(
    tree: NodeTree, *, first: bool, second: bool, conflicts: int
) -> None:
    found = two_claims(
        build_config(build_resource(NAME, ALL, overlap=first), build_resource("b.example/y", ONE, overlap=second)), tree
    )
    assert len(found.conflicts) == conflicts
    assert len(list_ids(found, "b.example/y")) == 1 - conflicts


def test_42_ids_of_overlapping_resources_differ(tree: NodeTree) -> None:
    found = two_claims(
        build_config(build_resource(NAME, ALL, overlap=True), build_resource("b.example/y", ONE, overlap=True)), tree
    )
    assert len({*list_ids(found), *list_ids(found, "b.example/y")}) == 3


def test_42_two_resources_with_the_same_glob_share_no_node(tree: NodeTree) -> None:
    found = two_claims(build_config(build_resource(NAME, ALL), build_resource("b.example/y", ALL)), tree)
    assert [len(list_ids(found)), len(list_ids(found, "b.example/y"))] == [2, 0]


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


def test_id_of_several_links_causes_a_warning(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/x1", "240:1")
    for name in ("a", "b", "c"):
        tree.link(f"/dev/by-id/{name}", "../x0")
        tree.link(f"/dev/by-id/{name}-1", "../x1")
    links = build_source("/dev/by-id/*")
    (warning,) = discover(build_config(build_resource(NAME, links)), tree.host).warnings
    assert warning.message.startswith("/dev/by-id/a and /dev/by-id/b are links to the same device")
    assert warning.location == links.location
    for source in (build_source("/dev/by-id/*", id="${minor}"), build_source("/dev/by-id/a*"), build_source("/dev/x*")):
        assert not discover(build_config(build_resource(NAME, source)), tree.host).warnings


def test_verbatim_id_belongs_to_the_first_resource_that_has_it(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/y0", "241:0")
    resources = (
        evolve(
            load_resource(f"devices: [{{glob: '/dev/{name}*', id: same, verbatimId: true}}]"), name=f"a.example/{name}"
        )
        for name in "xy"
    )
    found = discover(build_config(*resources), tree.host)
    assert list_ids(found, "a.example/x") == ["same"]
    assert list_ids(found, "a.example/y") == []
    [conflict] = found.conflicts
    assert "verbatimId" in conflict.message
    assert "a.example/x" in find_reason(found, "/dev/y0", "a.example/y")
