"""The places of a pool: the limits of a resource, the reserved places, and the order in which they are given."""

import asyncio

from genplug.health.workers.places import Places


def test_resource_has_no_more_than_its_places() -> None:
    places = Places(10, 3, 2)
    for _ in range(3):
        assert places.is_free("a")
        places.take("a")
    assert not places.is_free("a")
    assert places.is_free("b")
    assert places.shortage("a", "calls") == "3 other calls of a use all places of a resource"


def test_last_places_are_for_resources_without_a_place() -> None:
    places = Places(6, 3, 2)
    for resource in ("a", "a", "b", "b"):
        places.take(resource)
    assert not places.is_free("a")
    assert places.is_free("c")
    places.take("c")
    assert not places.is_free("c")
    places.take("d")
    assert not places.is_free("e")
    assert places.shortage("e", "calls") == "6 calls of a and 3 other resources use all places"


async def test_waiting_resource_with_the_fewest_places_is_next() -> None:
    places = Places(2, 2, 0)
    places.take("a")
    places.take("a")
    order: list[str] = []

    async def wait(resource: str) -> None:
        assert await places.wait(resource, 20)
        order.append(resource)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for resource in ("a", "a", "b", "c"):
            tasks.create_task(wait(resource))
        await asyncio.sleep(0)
        for resource in ("a", "a", "b", "c"):
            places.release(resource)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    # After the second release, "a" has no place again, and has waited for longer than "c".
    assert order == ["b", "a", "c", "a"]


async def test_resource_gets_no_place_in_time_and_does_not_wait_any_longer() -> None:
    places = Places(1, 1, 0)
    places.take("a")
    assert not await places.wait("b", 0.01)
    places.release("a")
    assert repr(places) == "<Places [0 of 1 used, 0 waiting]>"


async def test_cancelled_wait_gives_its_place_back() -> None:
    places = Places(1, 1, 0)
    places.take("a")
    waiting = asyncio.ensure_future(places.wait("b", 20))
    await asyncio.sleep(0)
    places.release("a")
    waiting.cancel()
    await asyncio.wait([waiting])
    assert places.used == 0
