"""Pools of devices with aliases, when the kubelet does not answer the pod-resources API, and when it does again."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
import pytest_asyncio
from msgspec.structs import replace

from genplug.agent import alias_pools
from genplug.agent.alias_pools import AliasPools
from genplug.agent.settings import Settings
from genplug.allocation.offer import ResourceOffer, build_offer
from genplug.observe.events import Event, EventLog, LogEvent
from genplug.testing.node.fake_node import FakeNode
from tests.support.allocation import DeviceTree, build_resource
from tests.support.hardware import open_tree

ALIAS = "a.example/alias"


class Fixture:
    """Pools of a resource with an alias, the log events they emit, and the names whose offers changed."""

    def __init__(self, node: FakeNode, offer: ResourceOffer) -> None:
        self.offer = offer
        self.events: asyncio.Queue[LogEvent] = asyncio.Queue()
        self.changes: asyncio.Queue[set[str]] = asyncio.Queue()
        event_log = EventLog()
        event_log.listen(self.events.put_nowait)
        settings = Settings(config=(), kubelet_dir=node.kubelet_dir, drain_seconds=0.05)
        self.pools = AliasPools(settings, event_log, self._on_change)
        self.pools.update_resources([offer.resource])

    def _on_change(self, names: Iterable[str]) -> None:
        self.changes.put_nowait(set(names))

    def list_healthy(self) -> list[str]:
        return [device.id for device in self.pools.remaining_offer(self.offer).listed if device.healthy]


@pytest_asyncio.fixture
async def pools(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fixture]:
    monkeypatch.setattr(alias_pools, "FIRST_POLL_SECONDS", 0.05)
    with open_tree(DeviceTree) as tree:
        resource = replace(build_resource(), aliases=(ALIAS,))
        fixture = Fixture(node, build_offer(resource, tree.make_healthy("x0", "x1")))
        running = asyncio.create_task(fixture.pools.run())
        yield fixture
        running.cancel()
        await asyncio.wait([running])


async def test_unreachable_kubelet_is_reported_once_and_devices_are_withheld(pools: Fixture) -> None:
    event = await asyncio.wait_for(pools.events.get(), 10)
    assert event.event is Event.POD_RESOURCES_UNAVAILABLE
    assert "cannot read which devices pods use, so devices with aliases" in event.text
    assert pools.list_healthy() == []
    with pytest.raises(TimeoutError):
        # Several polls fail in this time.
        await asyncio.wait_for(pools.events.get(), 0.5)


async def test_devices_are_offered_when_the_kubelet_answers(node: FakeNode, pools: Fixture) -> None:
    await asyncio.wait_for(pools.events.get(), 10)
    await node.kubelet.start()
    assert await asyncio.wait_for(pools.changes.get(), 10) == {pools.offer.resource.name, ALIAS}
    assert pools.list_healthy() == ["x0", "x1"]


async def test_allocation_without_a_pod_is_dropped_after_the_grace_polls(node: FakeNode, pools: Fixture) -> None:
    await node.kubelet.start()
    await asyncio.wait_for(pools.changes.get(), 10)
    pools.pools.record_allocation(ALIAS, ["x0"])
    assert await asyncio.wait_for(pools.changes.get(), 10) == {pools.offer.resource.name}
    assert pools.list_healthy() == ["x1"]
    assert await asyncio.wait_for(pools.changes.get(), 10) == {pools.offer.resource.name, ALIAS}
    assert pools.list_healthy() == ["x0", "x1"]
