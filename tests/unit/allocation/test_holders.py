"""Devices that pods or claims hold by the other API."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.allocation.holders import find_held_grants
from genplug.allocation.offer import ResourceOffer, build_offer
from genplug.hardware.device_ids import replica_id
from tests.support.allocation import DeviceTree, build_resource
from tests.support.hardware import open_tree

POD = "the pod default/user"
USED = st.sets(st.tuples(st.sampled_from(["x0", "x1"]), st.integers(0, 2)))


@pytest.fixture(scope="module")
def tree() -> Iterator[DeviceTree]:
    with open_tree(DeviceTree) as tree:
        yield tree


def make_offer(tree: DeviceTree, replicas: int = 1, tokens: int | None = None) -> ResourceOffer:
    resource = replace(build_resource(), replicas=replicas, tokens=tokens)
    return build_offer(resource, tree.make_healthy("x0", "x1"))


def test_grant_is_held_by_its_own_id(tree: DeviceTree) -> None:
    assert find_held_grants(make_offer(tree), {"x1": POD, "gone": "another pod"}) == {"x1": POD}


def test_replica_holds_only_itself_while_the_offer_has_it(tree: DeviceTree) -> None:
    replica = replica_id("x0", 1)
    assert find_held_grants(make_offer(tree, replicas=2), {replica: POD}) == {replica: POD}


def test_id_of_a_former_configuration_holds_all_grants_of_its_device(tree: DeviceTree) -> None:
    assert find_held_grants(make_offer(tree), {replica_id("x0", 1): POD}) == {"x0": POD}
    held = find_held_grants(make_offer(tree, replicas=2), {"x0": POD})
    assert held == {replica_id("x0", 0): POD, replica_id("x0", 1): POD}


def test_former_token_holds_the_whole_resource(tree: DeviceTree) -> None:
    [token] = make_offer(tree, tokens=1).grants
    assert find_held_grants(make_offer(tree), {token: POD}) == {"x0": POD, "x1": POD}


def test_former_device_holds_all_tokens_of_its_pool(tree: DeviceTree) -> None:
    offer = make_offer(tree, tokens=3)
    assert find_held_grants(offer, {"x1": POD}) == dict.fromkeys(offer.grants, POD)


@given(
    former=st.integers(1, 3),
    present=st.integers(1, 3),
    used=USED,
)
def test_device_in_use_has_a_held_grant_and_a_free_device_has_none(
    tree: DeviceTree, former: int, present: int, used: set[tuple[str, int]]
) -> None:
    ids = {replica_id(device, number) if former > 1 else device: POD for device, number in used}
    offer = make_offer(tree, replicas=present)
    held = {offer.grants[grant].devices[0].device.id for grant in find_held_grants(offer, ids)}
    assert held == {device for device, _ in used}
