"""Offers: the devices that a resource lists, once, as replicas or slices, or as a pool of tokens."""

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.agent.device_lists import encode_offer
from genplug.allocation.offer import ResourceOffer, build_offer, compare_offers, count_grants, share_grants
from genplug.allocation.results import ListedDevice
from genplug.hardware.inventory import Device
from genplug.health.verdict import DeviceHealth, Verdict
from genplug.kubelet import wire
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.spec.limits import MAX_LIST_BYTES
from genplug.spec.model import Preference, PreferenceSpec, PreStartSpec, Resource
from genplug.spec.template import Template
from tests.support.allocation import DeviceTree, build_resource, mark_healthy, mark_unhealthy, offer_devices
from tests.support.hardware import LOCATION, NAME
from tests.support.work import count_lines

SLICED = replace(build_resource(), slices=Template.parse("${attr.n}"))
"""Each device has the number of slices that its attribute ``slices`` states."""
ENTRY_BYTES = 17
"""Bytes of an entry without an ID and a topology: a tag and three bytes of its length, and the tags of its fields."""


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
    assert {grant.reason for grant in offer.grants.values()} == {""}


def test_tokens_are_independent_of_the_devices(tree: DeviceTree) -> None:
    few = offer_devices(build_resource(tokens=3), *tree.make_healthy("x0"))
    many = offer_devices(build_resource(tokens=3), *tree.make_healthy("x0", "x1"))
    assert few.listed == many.listed


def test_tokens_are_unhealthy_without_a_healthy_device(tree: DeviceTree) -> None:
    devices = [mark_unhealthy(tree.make_device(f"x{number}"), f"/dev/x{number} is gone") for number in range(5)]
    offer = offer_devices(build_resource(tokens=2), *devices)
    assert [device.healthy for device in offer.listed] == [False, False]
    three = "no device of the pool is healthy: /dev/x0 is gone; /dev/x1 is gone; /dev/x2 is gone"
    assert {grant.reason for grant in offer.grants.values()} == {f"{three}; and 2 more reasons"}
    assert {grant.reason for grant in offer_devices(build_resource(tokens=2), *devices[:3]).grants.values()} == {three}


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
    return replace(tree.make_device(key), numa=numa, slices=slices)


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
    assert list_numa_nodes(build_resource(replicas=2), x0, x1) == [
        (0,),
        (0,),
        (1,),
        (1,),
    ]
    assert list_numa_nodes(SLICED, x0, x1) == [(0,), (0,), (1,)]
    assert list_numa_nodes(build_resource(tokens=2), x0, x1) == [(), ()]


def test_device_is_listed_once_for_each_slice(tree: DeviceTree) -> None:
    offer = offer_devices(
        SLICED,
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
    indexed, plain = make_numa_device(tree, "x3", slices=4), make_numa_device(tree, "x", slices=4)
    pair = replace(tree.make_device("y", tree.make_node("/dev/y1"), tree.make_node("/dev/y2")), slices=4)
    assert list_slice_numbers(SLICED, indexed) == [12, 13, 14, 15]
    assert list_slice_numbers(SLICED, plain) == [0, 1, 2, 3]
    assert list_slice_numbers(SLICED, pair) == [0, 1, 2, 3]


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
    spec = replace(build_resource(), preference=preference)
    assert offer_devices(spec, *mark_healthy(*devices)).options.get_preferred_allocation_available is is_available
    # The choice keeps two grants of the same device out of one container.
    assert offer_devices(
        replace(spec, distinct=True), *mark_healthy(*devices)
    ).options.get_preferred_allocation_available


def test_devices_are_grouped_by_numa_node_or_template(tree: DeviceTree) -> None:
    devices = mark_healthy(make_numa_device(tree, "x0", 0), make_numa_device(tree, "x1", 1))
    assert offer_devices(build_resource(), *devices).groups == {"x0": ("0", "x0"), "x1": ("1", "x1")}
    both = mark_healthy(make_numa_device(tree, "x2", 0, 1))
    assert offer_devices(build_resource(), *devices, *both).groups["x2"] == ("0,1", "x2")
    by = PreferenceSpec(by=Template.parse("${type}-${attr.missing|default:none}"), is_explicit=True)
    grouped = offer_devices(replace(build_resource(replicas=2), preference=by), *devices[:1])
    assert grouped.groups == {"x0-r0": ("char-none", "x0"), "x0-r1": ("char-none", "x0")}
    missing = PreferenceSpec(by=Template.parse("${attr.missing}"), is_explicit=True)
    assert offer_devices(replace(build_resource(), preference=missing), *devices[:1]).groups == {"x0": ("", "x0")}


def plug_many(tree: DeviceTree, count: int, *, numa: tuple[int, ...] = ()) -> tuple[DeviceHealth, ...]:
    device = tree.make_device("x0")
    names = (f"a-name-of-a-device-that-has-48-characters-{number:06}" for number in range(count))
    return mark_healthy(*(replace(device, id=name, key=name, numa=numa) for name in names))


def test_list_is_limited_to_the_whole_devices_that_fit_into_a_message(tree: DeviceTree) -> None:
    devices = plug_many(tree, 64, numa=(1, 300, 70_000))
    offer = build_offer(build_resource(replicas=1000), devices)
    assert offer.omitted == 64 - len(offer.listed) // 1000 > 0
    assert offer.omission.startswith(
        f"{offer.omitted} of 64 devices are not listed: the list would be larger than 4 MiB"
    )
    size = len(wire.encode_list(offer.listed).message)
    unhealthy = len(wire.encode_list(replace(device, healthy=False) for device in offer.listed).message)
    assert 0.8 * MAX_LIST_BYTES < size <= unhealthy <= MAX_LIST_BYTES
    # The same devices are listed each time, the first of them.
    assert build_offer(build_resource(replicas=1000), devices).listed == offer.listed
    assert set(offer.grants) == {
        f"{health.device.id}-r{n}" for health in devices[: 64 - offer.omitted] for n in range(1000)
    }
    assert build_offer(build_resource(replicas=10), devices).omission == ""


@pytest.mark.parametrize(
    ("numa", "topology_bytes"),
    [((), 0), ((0,), 7), ((1,), 8), ((127,), 8), ((128,), 9), ((0, 300), 12), ((2**31 - 1,), 12)],
)
def test_list_may_be_as_large_as_the_limit(tree: DeviceTree, numa: tuple[int, ...], topology_bytes: int) -> None:
    """1024 entries of 4096 bytes each fit, and an ID with one more character is too long."""
    device = replace(tree.make_device("x0"), numa=numa)
    longest = 4096 - len("-r1023") - ENTRY_BYTES - topology_bytes
    fits, exceeds = (
        build_offer(build_resource(replicas=1024), mark_healthy(replace(device, id="x" * length)), 1024)
        for length in (longest, longest + 1)
    )
    assert (len(fits.listed), fits.omitted, fits.omission) == (1024, 0, "")
    assert len(wire.encode_list(replace(device, healthy=False) for device in fits.listed).message) <= MAX_LIST_BYTES
    assert (len(exceeds.listed), exceeds.omitted) == (0, 1)
    assert exceeds.omission.startswith("1 of 1 devices are not listed: the list would be larger than 4 MiB")


def test_resources_share_the_limit_of_all_lists_fairly(tree: DeviceTree) -> None:
    devices = plug_many(tree, 30)
    sliced = mark_healthy(make_numa_device(tree, "x1", slices=20), make_numa_device(tree, "x2", slices=40))
    counts = {
        "a": count_grants(build_resource(replicas=1000), devices),
        "b": count_grants(replace(build_resource(replicas=1000), aliases=("c",)), devices),
        "d": count_grants(build_resource(tokens=10), devices),
        "e": count_grants(build_resource(tokens=10), ()),
        "f": count_grants(replace(SLICED, aliases=("g",)), sliced),
    }
    assert counts == {"a": 30_000, "b": 60_000, "d": 10, "e": 0, "f": 120}
    assert share_grants(counts) == {"a": 24_935, "b": 24_935, "d": 10, "e": 0, "f": 120}
    assert share_grants({"b": 3, "a": 3}, 5) == {"a": 2, "b": 3}
    assert share_grants({"a": 60_000}) == {"a": 50_000}
    assert share_grants({"a": 40_000, "b": 10_000}) == {"a": 40_000, "b": 10_000}
    limited = build_offer(build_resource(replicas=1000), devices, 10_500)
    assert (len(limited.listed), limited.omitted) == (10_000, 20)
    assert "20 of 30 devices are not listed: the lists of all resources would have more than 50000" in limited.omission
    pool = build_offer(build_resource(tokens=10), devices, 4)
    assert (len(pool.listed), pool.omitted) == (4, 6)
    assert pool.omission.startswith("6 of 10 tokens are not listed: the lists of all resources would have more than")


def test_limit_counts_replicas_and_slices_and_ends_with_a_whole_device(tree: DeviceTree) -> None:
    devices = mark_healthy(*(make_numa_device(tree, f"x{number}", slices=3) for number in range(4)))
    for spec in (build_resource(replicas=3), SLICED):
        offers = [build_offer(spec, devices, maximum) for maximum in (12, 11, 9, 2)]
        assert [(len(offer.listed), offer.omitted) for offer in offers] == [(12, 0), (9, 1), (9, 1), (0, 4)]
    assert build_offer(build_resource(tokens=4), devices, 4).omission == ""
    empty = build_offer(build_resource(tokens=4), (), 2)
    assert (empty.listed, empty.omitted, empty.omission) == ((), 0, "")


def build_preference(by: str | None = None) -> PreferenceSpec:
    return PreferenceSpec(Preference.CONTIGUOUS, None if by is None else Template.parse(by), is_explicit=True)


def test_contiguous_grants_have_the_position_of_their_device(tree: DeviceTree) -> None:
    devices = mark_healthy(make_numa_device(tree, "x3", slices=2), make_numa_device(tree, "x", slices=2))
    plain, sliced = (
        replace(build_resource(), preference=build_preference()),
        replace(SLICED, preference=build_preference()),
    )
    assert build_offer(plain, devices).positions == {"x3": 3}
    assert build_offer(replace(plain, replicas=2), devices[:1]).positions == {"x3-r0": 3, "x3-r1": 3}
    # Each slice has a position of its own, unless a template defines the position.
    assert build_offer(sliced, devices).positions == {"x3-s0": 6, "x3-s1": 7, "x-s0": 0, "x-s1": 1}
    named = replace(sliced, preference=build_preference("${name|replace:x:1}"))
    assert build_offer(named, devices).positions == {"x3-s0": 13, "x3-s1": 13, "x-s0": 1, "x-s1": 1}


def test_grant_without_a_number_has_no_position(tree: DeviceTree) -> None:
    devices = mark_healthy(make_numa_device(tree, "x3"), make_numa_device(tree, "x"))
    for by in ("${name}", "${attr.missing}"):
        assert build_offer(replace(build_resource(), preference=build_preference(by)), devices).positions == {}
    tokens = replace(build_resource(tokens=2), preference=build_preference("1"))
    assert build_offer(tokens, devices).positions == {}
    # Only 'contiguous' needs positions.
    assert build_offer(replace(build_resource(), preference=EXPLICIT), devices).positions == {}


def test_healthy_devices_are_counted_without_their_replicas_slices_and_tokens(tree: DeviceTree) -> None:
    devices = (
        *mark_healthy(make_numa_device(tree, "x0", slices=2), make_numa_device(tree, "x1", slices=3)),
        mark_unhealthy(make_numa_device(tree, "x2", slices=2), "broken"),
    )
    for spec in (build_resource(), build_resource(replicas=2), SLICED, build_resource(tokens=5)):
        assert build_offer(spec, devices).healthy_devices == 2
        assert build_offer(spec, devices[2:]).healthy_devices == 0
        assert build_offer(spec, ()).healthy_devices == 0


def test_grants_can_be_marked_as_unhealthy_with_an_additional_reason(tree: DeviceTree) -> None:
    devices = (*mark_healthy(*map(tree.make_device, ("x0", "x1"))), mark_unhealthy(tree.make_device("x2"), "broken"))
    offer = offer_devices(build_resource(), *devices)
    assert offer.mark_unhealthy({}) is offer
    marked = offer.mark_unhealthy({"x1": "in use", "x2": "in use"})
    assert marked.listed == tuple(ListedDevice(key, healthy=key == "x0") for key in ("x0", "x1", "x2"))
    assert [(grant.healthy, grant.reason) for grant in marked.grants.values()] == [
        (True, ""),
        (False, "in use"),
        (False, "broken; in use"),
    ]
    # Everything else is the same.
    assert list(marked.grants) == list(offer.grants)
    assert replace(marked, grants=offer.grants, entries=offer.entries, healthy=2) == offer
    assert [grant.devices for grant in marked.grants.values()] == [grant.devices for grant in offer.grants.values()]


def test_pre_start_is_required_by_its_key(tree: DeviceTree) -> None:
    pre_start = PreStartSpec(LOCATION, (Template.parse("/bin/reset"),), 5)
    for spec, is_required in ((build_resource(), False), (replace(build_resource(), pre_start=pre_start), True)):
        assert offer_devices(spec, *tree.make_healthy("x0")).options.pre_start_required is is_required


BY_INDEX = PreferenceSpec(Preference.CONTIGUOUS, is_explicit=True)
OFFERED = {
    "device": build_resource(),
    "replicas": build_resource(replicas=2),
    "slices": SLICED,
    "tokens": build_resource(tokens=3),
    "contiguous": replace(build_resource(replicas=2), preference=BY_INDEX),
    "distinct": replace(build_resource(replicas=2), distinct=True),
}
histories = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 6), st.tuples(st.booleans(), st.sampled_from([(), (0,), (1,)])), max_size=5),
        st.integers(0, 12),
    ),
    max_size=6,
)
"""The devices by number, each with its health and its NUMA nodes, and the maximum number of grants."""


def make_health(number: int, healthy: bool, numa: tuple[int, ...]) -> DeviceHealth:  # noqa: FBT001 - a generated value
    attributes = {"index": (str(number),)}
    made = Device(f"x{number}", f"x{number}", NAME, LOCATION, (), (), (), attributes, numa, slices=1 + number % 3)
    return DeviceHealth(made, Verdict(healthy, "" if healthy else "broken", 0))


def list_devices(
    devices: dict[int, tuple[bool, tuple[int, ...]]], make: Callable[..., DeviceHealth]
) -> tuple[DeviceHealth, ...]:
    return tuple(make(number, *facts) for number, facts in sorted(devices.items()))


@pytest.mark.parametrize("kind", OFFERED)
@settings(deadline=None)
@given(history=histories)
def test_offer_made_of_the_previous_offer_equals_an_offer_of_all_devices(
    kind: str, history: list[tuple[dict[int, tuple[bool, tuple[int, ...]]], int]]
) -> None:
    resource, keep_object = OFFERED[kind], cache(make_health)
    offer: ResourceOffer | None = None
    encoded: tuple[ResourceOffer, wire.DeviceList] | None = None
    for devices, max_grants in history:
        previous, offer = offer, build_offer(resource, list_devices(devices, keep_object), max_grants, offer)
        assert offer == build_offer(resource, list_devices(devices, make_health), max_grants)
        assert list(offer.grants) == [grant.id for grant in offer.entries]
        assert offer.healthy == sum(grant.healthy for grant in offer.entries)
        change = compare_offers(previous, offer)
        assert change.is_list_changed == (previous is None or previous.listed != offer.listed)
        known = previous.grants if previous is not None else {}
        assert {**{id_: known[id_] for id_ in known.keys() - change.before.keys()}, **change.after} == offer.grants
        encoded = (offer, encode_offer(offer, encoded))
        assert encoded[1] == wire.encode_list(offer.listed)
        assert pb.ListAndWatchResponse.FromString(encoded[1].message) == pb.ListAndWatchResponse(
            devices=[
                pb.Device(
                    ID=device.id,
                    health="Healthy" if device.healthy else "Unhealthy",
                    topology=pb.TopologyInfo(nodes=[pb.NUMANode(ID=node) for node in device.numa])
                    if device.numa
                    else None,
                )
                for device in offer.listed
            ]
        )


def count_change(resource: Resource, size: int, *, is_removed: bool) -> int:
    """Return the lines that are executed for the offer and the list after a change of a device among ``size``."""
    devices = [make_health(number, healthy=True, numa=(number % 2,)) for number in range(size)]
    offer = build_offer(resource, devices)
    encoded = encode_offer(offer)
    devices[3] = make_health(3, healthy=False, numa=(1,))
    if is_removed:
        del devices[5]
    else:
        devices[-1] = make_health(size + 2, healthy=True, numa=(0,))

    def change() -> None:
        changed = build_offer(resource, devices, previous=offer)
        assert compare_offers(offer, changed).is_list_changed
        assert changed.options.get_preferred_allocation_available
        encode_offer(changed, (offer, encoded))

    return count_lines(change)[0]


@pytest.mark.parametrize("kind", ["device", "replicas", "slices", "contiguous"])
@pytest.mark.parametrize("is_removed", [False, True])
def test_work_of_a_change_does_not_grow_with_unchanged_devices(kind: str, *, is_removed: bool) -> None:
    few, many = (count_change(OFFERED[kind], size, is_removed=is_removed) for size in (21, 6_000))
    assert few == many


def test_unchanged_devices_keep_the_offer_and_its_grants() -> None:
    devices = [make_health(number, healthy=True, numa=()) for number in range(4)]
    for resource in (OFFERED["device"], OFFERED["tokens"]):
        offer = build_offer(resource, devices, 2)
        assert build_offer(replace(resource), tuple(devices), 2, offer) is offer
    offer = build_offer(OFFERED["device"], devices)
    changed = build_offer(OFFERED["device"], [devices[0], *devices[2:]], previous=offer)
    assert [offer.grants[grant.id] is grant for grant in changed.entries] == [True, True, True]
    assert build_offer(replace(OFFERED["device"], replicas=2), devices, previous=offer).grants.keys() == {
        f"x{number}-r{replica}" for number in range(4) for replica in range(2)
    }
