"""Offers: what a resource lists at the kubelet, of its devices once, several times, or as a pool."""

import pytest
from attrs import evolve

from genplug.allocation.results import ListedDevice
from genplug.hardware.inventory import Device
from genplug.spec.model import Preference, PreferenceSpec
from genplug.spec.template import Template
from tests.support.allocation import Node, healthy, offer, resource, unhealthy


def test_each_device_is_listed_once_with_its_health(node: Node) -> None:
    x2, x10 = node.device("x2"), node.device("x10")
    made = offer(resource(), *healthy(x2), unhealthy(x10, "/dev/x10 is gone"))
    assert made.listed == (ListedDevice("x2", healthy=True), ListedDevice("x10", healthy=False))
    assert made.grants["x10"].reason == "/dev/x10 is gone"
    assert made.grants["x2"].devices == healthy(x2)


def test_replicas_list_each_device_several_times_and_share_its_error(node: Node) -> None:
    x0, x1 = node.device("x0"), node.device("x1")
    made = offer(resource(replicas=2), *healthy(x0), unhealthy(x1, "broken"))
    assert made.listed == (
        ListedDevice("x0-r0", healthy=True),
        ListedDevice("x0-r1", healthy=True),
        ListedDevice("x1-r0", healthy=False),
        ListedDevice("x1-r1", healthy=False),
    )
    assert made.grants["x1-r1"].reason == "broken"


def test_tokens_are_a_pool_in_natural_order_that_gives_everything(node: Node) -> None:
    x0, x1 = node.device("x0"), node.device("x1")
    made = offer(resource(tokens=12), *healthy(x0), unhealthy(x1, "broken"))
    assert [one.id.rpartition("-")[2] for one in made.listed] == [f"t{number}" for number in range(12)]
    assert all(one.healthy and one.numa == () for one in made.listed)
    assert list(made.grants) == [one.id for one in made.listed]
    assert {len(grant.devices) for grant in made.grants.values()} == {2}


def test_tokens_stay_the_same_whatever_devices_there_are(node: Node) -> None:
    few = offer(resource(tokens=3), *healthy(node.device("x0")))
    many = offer(resource(tokens=3), *healthy(node.device("x0"), node.device("x1")))
    assert few.listed == many.listed


def test_tokens_are_unhealthy_when_no_device_is_healthy(node: Node) -> None:
    faulty = [unhealthy(node.device(f"x{number}"), f"/dev/x{number} is gone") for number in range(5)]
    made = offer(resource(tokens=2), *faulty)
    assert [one.healthy for one in made.listed] == [False, False]
    assert {grant.reason for grant in made.grants.values()} == {
        "no device of the pool is healthy: /dev/x0 is gone; /dev/x1 is gone; /dev/x2 is gone; and 2 more reasons"
    }


def test_without_devices_there_is_nothing_to_list_not_even_tokens() -> None:
    assert offer(resource()).listed == offer(resource(replicas=3)).listed == offer(resource(tokens=9)).listed == ()


def test_the_list_is_equal_when_nothing_changed(node: Node) -> None:
    judged = healthy(node.device("x0"), node.device("x1"))
    assert offer(resource(replicas=3), *judged).listed == offer(resource(replicas=3), *judged).listed
    assert offer(resource(), *judged).listed != offer(resource(), *judged[:1]).listed


def on(node: Node, key: str, *numa: int, slices: int = 1) -> Device:
    """A device on NUMA nodes, listed in slices where its resource is."""
    return evolve(node.device(key), numa=numa, slices=slices)


@pytest.mark.parametrize(
    ("numa", "told"),
    [
        ([(0,), (1,)], [(0,), (1,)]),
        ([(0, 1), (1,)], [(0, 1), (1,)]),
        # The kubelet finds no place for a device without one beside those that have one.
        ([(0,), ()], [(), ()]),
        ([(), ()], [(), ()]),
    ],
)
def test_45_the_numa_nodes_of_all_devices_are_listed_or_those_of_none(
    node: Node, numa: list[tuple[int, ...]], told: list[tuple[int, ...]]
) -> None:
    devices = [on(node, f"x{number}", *nodes) for number, nodes in enumerate(numa)]
    assert [one.numa for one in offer(resource(), *healthy(*devices)).listed] == told


def test_45_a_faulty_device_without_a_numa_node_takes_it_from_the_others_too(node: Node) -> None:
    made = offer(resource(), *healthy(on(node, "x0", 0)), unhealthy(on(node, "x1"), "/dev/x1 is gone"))
    assert [one.numa for one in made.listed] == [(), ()]


def test_replicas_and_slices_stand_where_their_device_does_and_tokens_nowhere(node: Node) -> None:
    x0, x1 = on(node, "x0", 0, slices=2), on(node, "x1", 1, slices=1)
    sliced = evolve(resource(), slices=Template.parse("${attr.n}"))
    assert [one.numa for one in offer(resource(replicas=2), *healthy(x0, x1)).listed] == [(0,), (0,), (1,), (1,)]
    assert [one.numa for one in offer(sliced, *healthy(x0, x1)).listed] == [(0,), (0,), (1,)]
    assert [one.numa for one in offer(resource(tokens=2), *healthy(x0, x1)).listed] == [(), ()]


def test_slices_list_each_device_as_often_as_its_own_number_says_and_share_its_error(node: Node) -> None:
    sliced = evolve(resource(), slices=Template.parse("${attr.n}"))
    made = offer(sliced, *healthy(on(node, "x0", slices=3)), unhealthy(on(node, "x1", slices=1), "broken"))
    assert made.listed == (
        ListedDevice("x0-s0", healthy=True),
        ListedDevice("x0-s1", healthy=True),
        ListedDevice("x0-s2", healthy=True),
        ListedDevice("x1-s0", healthy=False),
    )
    assert made.grants["x1-s0"].reason == "broken"


def test_slices_are_counted_through_by_the_number_of_the_device_and_from_0_where_it_has_none(node: Node) -> None:
    sliced = evolve(resource(), slices=Template.parse("4"))
    numbered, nameless = on(node, "x3", slices=4), on(node, "x", slices=4)
    two = evolve(node.device("y", node.node("/dev/y1"), node.node("/dev/y2")), slices=4)
    assert [one.slice for one in offer(sliced, *healthy(numbered)).grants.values()] == [12, 13, 14, 15]
    assert [one.slice for one in offer(sliced, *healthy(nameless)).grants.values()] == [0, 1, 2, 3]
    assert [one.slice for one in offer(sliced, *healthy(two)).grants.values()] == [0, 1, 2, 3]


def test_only_slices_have_numbers(node: Node) -> None:
    for spec in (resource(), resource(replicas=2), resource(tokens=2)):
        assert {one.slice for one in offer(spec, *healthy(on(node, "x1", slices=2))).grants.values()} == {None}


WRITTEN = PreferenceSpec(Preference.SPREAD, is_explicit=True)


@pytest.mark.parametrize(
    ("preference", "numa", "is_asked"),
    [
        (PreferenceSpec(), [(0,), (1,)], True),
        (PreferenceSpec(), [(0,), (0,)], False),
        (PreferenceSpec(), [(0,), ()], False),
        (PreferenceSpec(), [(), ()], False),
        (PreferenceSpec(), [], False),
        (WRITTEN, [(0,), (0,)], True),
        (WRITTEN, [], True),
        (PreferenceSpec(Preference.NONE, is_explicit=True), [(0,), (1,)], False),
    ],
)
def test_the_kubelet_asks_which_to_take_where_somebody_says_so_or_devices_are_apart(
    node: Node, preference: PreferenceSpec, numa: list[tuple[int, ...]], *, is_asked: bool
) -> None:
    devices = [on(node, f"x{number}", *nodes) for number, nodes in enumerate(numa)]
    spec = evolve(resource(), preference=preference)
    assert offer(spec, *healthy(*devices)).options.get_preferred_allocation_available is is_asked
    # Two grants of one device are kept out of one container by the choice.
    assert offer(evolve(spec, distinct=True), *healthy(*devices)).options.get_preferred_allocation_available


def test_devices_stand_in_groups_by_numa_node_or_by_what_is_written(node: Node) -> None:
    devices = healthy(on(node, "x0", 0), on(node, "x1", 1))
    assert offer(resource(), *devices).groups == {"x0": ("0", "x0"), "x1": ("1", "x1")}
    by = PreferenceSpec(by=Template.parse("${type}-${attr.missing|default:none}"), is_explicit=True)
    grouped = offer(evolve(resource(replicas=2), preference=by), *devices[:1])
    assert grouped.groups == {"x0-r0": ("char-none", "x0"), "x0-r1": ("char-none", "x0")}
    lacking = PreferenceSpec(by=Template.parse("${attr.missing}"), is_explicit=True)
    assert offer(evolve(resource(), preference=lacking), *devices[:1]).groups == {"x0": ("", "x0")}
