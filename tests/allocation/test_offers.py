"""Offers: what a resource lists at the kubelet, of its devices once, several times, or as a pool."""

from allocation_values import Node, healthy, offer, resource, unhealthy

from genplug.allocation.offer import Listed


def test_each_device_is_listed_once_with_its_health(node: Node) -> None:
    x2, x10 = node.device("x2"), node.device("x10")
    made = offer(resource(), *healthy(x2), unhealthy(x10, "/dev/x10 is gone"))
    assert made.listed == (Listed("x2", healthy=True), Listed("x10", healthy=False))
    assert made.grants["x10"].reason == "/dev/x10 is gone"
    assert made.grants["x2"].devices == healthy(x2)


def test_replicas_list_each_device_several_times_and_share_its_fault(node: Node) -> None:
    x0, x1 = node.device("x0"), node.device("x1")
    made = offer(resource(replicas=2), *healthy(x0), unhealthy(x1, "broken"))
    assert made.listed == (
        Listed("x0-r0", healthy=True),
        Listed("x0-r1", healthy=True),
        Listed("x1-r0", healthy=False),
        Listed("x1-r1", healthy=False),
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
