"""Offers: the devices that a resource lists, once, as replicas or slices, or as a pool of tokens."""

import pytest
from attrs import evolve

from genplug.allocation.offer import build_offer, count_grants, share_grants
from genplug.allocation.results import ListedDevice
from genplug.hardware.inventory import Device
from genplug.health.verdict import DeviceHealth
from genplug.kubelet import wire
from genplug.spec.limits import MAX_LIST_BYTES
from genplug.spec.model import Preference, PreferenceSpec, Resource
from genplug.spec.template import Template
from tests.support.allocation import DeviceTree, build_resource, mark_healthy, mark_unhealthy, offer_devices


def test_device_is_listed_once_with_its_health(tree: DeviceTree) -> None:
    x2, x10 = tree.make_device("x2"), tree.make_device("x10")
    offer = offer_devices(build_resource(), *mark_healthy(x2), mark_unhealthy(x10, "/dev/x10 is gone"))
    assert offer.listed == (ListedDevice("x2", healthy=True), ListedDevice("x10", healthy=False))
    assert offer.grants["x10"].reason == "/dev/x10 is gone"
    assert offer.grants["x2"].devices == mark_healthy(x2)


def test_replicas_share_the_health_of_their_device(tree: DeviceTree) -> None:
    x0, x1 = tree.make_device("x0"), tree.make_device("x1")
    offer = offer_devices(build_resource(replicas=2), *mark_healthy(x0), mark_unhealthy(x1, "broken"))
    assert offer.listed == (
        ListedDevice("x0-r0", healthy=True),
        ListedDevice("x0-r1", healthy=True),
        ListedDevice("x1-r0", healthy=False),
        ListedDevice("x1-r1", healthy=False),
    )
    assert offer.grants["x1-r1"].reason == "broken"


def test_tokens_are_in_natural_order_and_grant_every_device(tree: DeviceTree) -> None:
    x0, x1 = tree.make_device("x0"), tree.make_device("x1")
    offer = offer_devices(build_resource(tokens=12), *mark_healthy(x0), mark_unhealthy(x1, "broken"))
    assert [device.id.rpartition("-")[2] for device in offer.listed] == [f"t{number}" for number in range(12)]
    assert all(device.healthy and device.numa == () for device in offer.listed)
    assert list(offer.grants) == [device.id for device in offer.listed]
    assert {len(grant.devices) for grant in offer.grants.values()} == {2}


def test_tokens_are_independent_of_the_devices(tree: DeviceTree) -> None:
    few = offer_devices(build_resource(tokens=3), *tree.make_healthy("x0"))
    many = offer_devices(build_resource(tokens=3), *tree.make_healthy("x0", "x1"))
    assert few.listed == many.listed


def test_tokens_are_unhealthy_without_a_healthy_device(tree: DeviceTree) -> None:
    devices = [mark_unhealthy(tree.make_device(f"x{number}"), f"/dev/x{number} is gone") for number in range(5)]
    offer = offer_devices(build_resource(tokens=2), *devices)
    assert [device.healthy for device in offer.listed] == [False, False]
    assert {grant.reason for grant in offer.grants.values()} == {
        "no device of the pool is healthy: /dev/x0 is gone; /dev/x1 is gone; /dev/x2 is gone; and 2 more reasons"
    }


@pytest.mark.parametrize("spec", [build_resource(), build_resource(replicas=3), build_resource(tokens=9)])
def test_resource_without_devices_lists_nothing(spec: Resource) -> None:
    assert offer_devices(spec).listed == ()


def test_list_of_unchanged_devices_is_equal(tree: DeviceTree) -> None:
    devices = tree.make_healthy("x0", "x1")
    first, second = (offer_devices(build_resource(replicas=3), *devices) for _ in range(2))
    assert first.listed == second.listed
    assert offer_devices(build_resource(), *devices).listed != offer_devices(build_resource(), *devices[:1]).listed


def make_numa_device(tree: DeviceTree, key: str, *numa: int, slices: int = 1) -> Device:
    """Return a device on these NUMA nodes; ``slices`` applies in a resource with slices."""
    return evolve(tree.make_device(key), numa=numa, slices=slices)


def list_numa_nodes(spec: Resource, *devices: Device) -> list[tuple[int, ...]]:
    return [device.numa for device in offer_devices(spec, *mark_healthy(*devices)).listed]


def list_slice_numbers(spec: Resource, *devices: Device) -> list[int | None]:
    return [grant.slice for grant in offer_devices(spec, *mark_healthy(*devices)).grants.values()]


@pytest.mark.parametrize(
    ("numa", "expected"),
    [
        ([(0,), (1,)], [(0,), (1,)]),
        ([(0, 1), (1,)], [(0, 1), (1,)]),
        # The kubelet cannot align a device without a NUMA node with devices that have one.
        ([(0,), ()], [(), ()]),
        ([(), ()], [(), ()]),
    ],
)
def test_45_numa_nodes_are_listed_for_all_devices_or_none(
    tree: DeviceTree, numa: list[tuple[int, ...]], expected: list[tuple[int, ...]]
) -> None:
    devices = [make_numa_device(tree, f"x{number}", *nodes) for number, nodes in enumerate(numa)]
    assert list_numa_nodes(build_resource(), *devices) == expected


def test_45_unhealthy_device_without_a_numa_node_clears_the_topology(tree: DeviceTree) -> None:
    offer = offer_devices(
        build_resource(),
        *mark_healthy(make_numa_device(tree, "x0", 0)),
        mark_unhealthy(make_numa_device(tree, "x1"), "/dev/x1 is gone"),
    )
    assert [device.numa for device in offer.listed] == [(), ()]


def test_replicas_and_slices_have_the_numa_node_of_their_device(tree: DeviceTree) -> None:
    x0, x1 = make_numa_device(tree, "x0", 0, slices=2), make_numa_device(tree, "x1", 1, slices=1)
    sliced = evolve(build_resource(), slices=Template.parse("${attr.n}"))
    assert list_numa_nodes(build_resource(replicas=2), x0, x1) == [
        (0,),
        (0,),
        (1,),
        (1,),
    ]
    assert list_numa_nodes(sliced, x0, x1) == [(0,), (0,), (1,)]
    assert list_numa_nodes(build_resource(tokens=2), x0, x1) == [(), ()]


def test_device_is_listed_once_for_each_slice(tree: DeviceTree) -> None:
    sliced = evolve(build_resource(), slices=Template.parse("${attr.n}"))
    offer = offer_devices(
        sliced,
        *mark_healthy(make_numa_device(tree, "x0", slices=3)),
        mark_unhealthy(make_numa_device(tree, "x1", slices=1), "broken"),
    )
    assert offer.listed == (
        ListedDevice("x0-s0", healthy=True),
        ListedDevice("x0-s1", healthy=True),
        ListedDevice("x0-s2", healthy=True),
        ListedDevice("x1-s0", healthy=False),
    )
    assert offer.grants["x1-s0"].reason == "broken"


def test_slice_numbers_continue_from_the_index_of_the_device(tree: DeviceTree) -> None:
    sliced = evolve(build_resource(), slices=Template.parse("4"))
    indexed, plain = make_numa_device(tree, "x3", slices=4), make_numa_device(tree, "x", slices=4)
    pair = evolve(tree.make_device("y", tree.make_node("/dev/y1"), tree.make_node("/dev/y2")), slices=4)
    assert list_slice_numbers(sliced, indexed) == [12, 13, 14, 15]
    assert list_slice_numbers(sliced, plain) == [0, 1, 2, 3]
    assert list_slice_numbers(sliced, pair) == [0, 1, 2, 3]


def test_only_slices_have_slice_numbers(tree: DeviceTree) -> None:
    for spec in (build_resource(), build_resource(replicas=2), build_resource(tokens=2)):
        assert set(list_slice_numbers(spec, make_numa_device(tree, "x1", slices=2))) == {None}


EXPLICIT = PreferenceSpec(Preference.SPREAD, is_explicit=True)


@pytest.mark.parametrize(
    ("preference", "numa", "is_available"),
    [
        (PreferenceSpec(), [(0,), (1,)], True),
        (PreferenceSpec(), [(0,), (0,)], False),
        (PreferenceSpec(), [(0,), ()], False),
        (PreferenceSpec(), [(), ()], False),
        (PreferenceSpec(), [], False),
        (EXPLICIT, [(0,), (0,)], True),
        (EXPLICIT, [], True),
        (PreferenceSpec(Preference.NONE, is_explicit=True), [(0,), (1,)], False),
    ],
)
def test_preferred_allocation_is_enabled_by_key_or_numa_nodes(
    tree: DeviceTree, preference: PreferenceSpec, numa: list[tuple[int, ...]], *, is_available: bool
) -> None:
    devices = [make_numa_device(tree, f"x{number}", *nodes) for number, nodes in enumerate(numa)]
    spec = evolve(build_resource(), preference=preference)
    assert offer_devices(spec, *mark_healthy(*devices)).options.get_preferred_allocation_available is is_available
    # The choice keeps two grants of the same device out of one container.
    assert offer_devices(
        evolve(spec, distinct=True), *mark_healthy(*devices)
    ).options.get_preferred_allocation_available


def test_devices_are_grouped_by_numa_node_or_template(tree: DeviceTree) -> None:
    devices = mark_healthy(make_numa_device(tree, "x0", 0), make_numa_device(tree, "x1", 1))
    assert offer_devices(build_resource(), *devices).groups == {"x0": ("0", "x0"), "x1": ("1", "x1")}
    by = PreferenceSpec(by=Template.parse("${type}-${attr.missing|default:none}"), is_explicit=True)
    grouped = offer_devices(evolve(build_resource(replicas=2), preference=by), *devices[:1])
    assert grouped.groups == {"x0-r0": ("char-none", "x0"), "x0-r1": ("char-none", "x0")}
    missing = PreferenceSpec(by=Template.parse("${attr.missing}"), is_explicit=True)
    assert offer_devices(evolve(build_resource(), preference=missing), *devices[:1]).groups == {"x0": ("", "x0")}


def plug_many(tree: DeviceTree, count: int, *, numa: tuple[int, ...] = ()) -> tuple[DeviceHealth, ...]:
    device = tree.make_device("x0")
    names = (f"a-name-of-a-device-that-has-48-characters-{number:06}" for number in range(count))
    return mark_healthy(*(evolve(device, id=name, key=name, numa=numa) for name in names))


def test_list_is_limited_to_the_whole_devices_that_fit_into_a_message(tree: DeviceTree) -> None:
    devices = plug_many(tree, 64, numa=(1, 300, 70_000))
    offer = build_offer(build_resource(replicas=1000), devices)
    assert offer.omitted == 64 - len(offer.listed) // 1000 > 0
    assert offer.omission.startswith(
        f"{offer.omitted} of 64 devices are not listed: the list would be larger than 4 MiB"
    )
    size = len(wire.encode_list(offer.listed))
    unhealthy = len(wire.encode_list(evolve(device, healthy=False) for device in offer.listed))
    assert 0.8 * MAX_LIST_BYTES < size <= unhealthy <= MAX_LIST_BYTES
    # The same devices are listed each time, the first of them.
    assert build_offer(build_resource(replicas=1000), devices).listed == offer.listed
    assert set(offer.grants) == {
        f"{health.device.id}-r{n}" for health in devices[: 64 - offer.omitted] for n in range(1000)
    }
    assert build_offer(build_resource(replicas=10), devices).omission == ""


def test_estimated_size_covers_every_numa_node(tree: DeviceTree) -> None:
    for numa in ((2**31 - 1,), (0,), tuple(range(1000))):
        offer = build_offer(build_resource(replicas=300), plug_many(tree, 300, numa=numa))
        unhealthy = [evolve(device, healthy=False) for device in offer.listed]
        assert len(wire.encode_list(unhealthy)) <= MAX_LIST_BYTES


def test_resources_share_the_limit_of_all_lists_fairly(tree: DeviceTree) -> None:
    devices = plug_many(tree, 30)
    counts = {
        "a": count_grants(build_resource(replicas=1000), devices),
        "b": count_grants(evolve(build_resource(replicas=1000), aliases=("c",)), devices),
        "d": count_grants(build_resource(tokens=10), devices),
        "e": count_grants(build_resource(tokens=10), ()),
    }
    assert counts == {"a": 30_000, "b": 60_000, "d": 10, "e": 0}
    assert share_grants(counts) == {"a": 24_995, "b": 24_995, "d": 10, "e": 0}
    assert share_grants({"a": 60_000}) == {"a": 50_000}
    assert share_grants({"a": 40_000, "b": 10_000}) == {"a": 40_000, "b": 10_000}
    limited = build_offer(build_resource(replicas=1000), devices, 10_500)
    assert (len(limited.listed), limited.omitted) == (10_000, 20)
    assert "20 of 30 devices are not listed: the lists of all resources would have more than 50000" in limited.omission
    pool = build_offer(build_resource(tokens=10), devices, 4)
    assert (len(pool.listed), pool.omitted) == (4, 6)
    assert pool.omission.startswith("6 of 10 tokens are not listed: ")
