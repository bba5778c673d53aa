"""The publisher at a stand-in of the API server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from genplug.agent import publisher_failures, publisher_write_limits
from genplug.agent.publisher import Publisher
from genplug.agent.publisher_state import Phase, Registration
from genplug.allocation.published import PublishedResource
from genplug.cluster import http
from genplug.observe.events import Event, EventLog, LogEvent
from genplug.testing.api_server import ApiServerStandIn
from genplug.testing.condition import Condition
from tests.support.api_server import DRIVER, NODE, TAINT, connect, publish

Published = tuple[PublishedResource, ...] | None


class Running:
    """A publisher that runs, and what it publishes and reports."""

    def __init__(self, server: ApiServerStandIn, directory: Path) -> None:
        self.server = server
        self.resources: Callable[[bool], Published] = lambda _keeps_taints: (publish(3),)
        self.notices: list[LogEvent] = []
        self.reported = Condition()
        log = EventLog()
        log.listen(self._report)
        self.publisher = Publisher(connect(server, directory), DRIVER, NODE, self._publish, log)

    def publish(self, *resources: PublishedResource) -> None:
        self.resources = lambda _keeps_taints: resources
        self.publisher.mark_changed()

    def stop_publishing(self) -> None:
        self.resources = lambda _keeps_taints: None
        self.publisher.mark_changed()

    async def wait_for_notice(self, event: Event, times: int = 1) -> str:
        def find() -> list[str]:
            return [notice.text for notice in self.notices if notice.event is event]

        await self.reported.wait_for(lambda: len(find()) >= times, 20, lambda: f"{self.notices} {self.server!r}")
        return find()[-1]

    async def wait_published(self, devices: int, value: int = 0) -> list[dict[str, Any]]:
        def is_published(slices: list[dict[str, Any]]) -> bool:
            found = [device for document in slices for device in document["spec"].get("devices") or ()]
            return len(found) == devices and all(device["attributes"]["value"] == {"int": value} for device in found)

        return await self.server.wait_for_slices(is_published, timeout=20)

    def _publish(self, keeps_taints: bool) -> Published:  # noqa: FBT001 - called by the publisher
        return self.resources(keeps_taints)

    def _report(self, notice: LogEvent) -> None:
        self.notices.append(notice)
        self.reported.notify_all()


@asynccontextmanager
async def run(server: ApiServerStandIn, directory: Path) -> AsyncIterator[Running]:
    """Run a publisher whose driver is registered."""
    running = Running(server, directory)
    running.publisher.set_registration(Registration.REGISTERED)
    task = asyncio.create_task(running.publisher.run())
    try:
        yield running
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write without pauses; tests with a simulated time are in test_publisher_state."""
    for name in ("WRITE_SECONDS", "SLOW_WRITE_SECONDS"):
        monkeypatch.setattr(publisher_write_limits, name, 0.01)
    monkeypatch.setattr(publisher_failures, "WRITE_SECONDS", 0.01)
    for name in (
        "MAX_RETRY_SECONDS",
        "MAX_CONNECT_RETRY_SECONDS",
        "MAX_ANSWER_RETRY_SECONDS",
        "FORBIDDEN_SECONDS",
        "MISSING_NODE_SECONDS",
    ):
        monkeypatch.setattr(publisher_failures, name, 0.05)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ApiServerStandIn]:
    async with ApiServerStandIn(tls=False) as server:
        server.add_node(NODE)
        yield server


@pytest_asyncio.fixture
async def running(server: ApiServerStandIn, tmp_path: Path) -> AsyncIterator[Running]:
    async with run(server, tmp_path) as running:
        yield running


@pytest.mark.openssl
async def test_1000_devices_of_10_resources_are_published_over_tls_dra_01(
    api_server: ApiServerStandIn, tmp_path: Path
) -> None:
    api_server.add_node(NODE)
    resources = tuple(publish(100, resource=f"example.com/x{number}") for number in range(10))
    running = Running(api_server, tmp_path)
    running.publish(*resources)
    running.publisher.set_registration(Registration.REGISTERED)
    task = asyncio.create_task(running.publisher.run())
    slices = await running.wait_published(1000)
    text = await running.wait_for_notice(Event.SLICES_PUBLISHED)
    assert text == "the API server has 20 ResourceSlices with 1000 devices of 10 resources"
    assert len(slices) == 20
    assert len(api_server.requests) <= 40
    assert {request.code for request in api_server.requests} == {200, 201}
    assert running.publisher.status.phase is Phase.WATCH
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_slices_come_back_after_the_kubelet_has_deleted_them_dra_10(
    running: Running, server: ApiServerStandIn
) -> None:
    running.publish(publish(130))
    before = await running.wait_published(130)
    await running.wait_for_notice(Event.SLICES_PUBLISHED)
    for _ in range(5):
        assert server.wipe_slices(NODE) == 3
        after = await running.wait_published(130)
        assert [document["spec"] for document in after] == [document["spec"] for document in before]


@pytest.mark.parametrize("change", ["delete", "edit"])
async def test_slice_that_was_changed_by_hand_is_put_back_dra_11(
    running: Running, server: ApiServerStandIn, change: str
) -> None:
    (before,) = await running.wait_published(3)
    await running.wait_for_notice(Event.SLICES_PUBLISHED)
    name = before["metadata"]["name"]
    if change == "delete":
        server.delete_slice(name)
    else:
        server.edit_slice(name, lambda document: document["spec"]["devices"].pop())
    (after,) = await running.wait_published(3)
    assert after["spec"] == before["spec"]
    text = await running.wait_for_notice(Event.SLICES_RESTORED)
    assert f"the ResourceSlice {name} was {'deleted' if change == 'delete' else 'changed by kubectl-edit'}" in text


async def test_node_that_is_created_again_owns_the_slices(running: Running, server: ApiServerStandIn) -> None:
    await running.wait_published(3)
    await running.wait_for_notice(Event.SLICES_PUBLISHED)
    server.remove_node(NODE)
    await server.wait_for(lambda: server.requests[-1].code == 404)
    uid = server.add_node(NODE)
    (found,) = await running.wait_published(3)
    assert found["metadata"]["ownerReferences"][0]["uid"] == uid


async def test_changes_while_the_server_is_away_are_published_when_it_is_back_dra_17(
    running: Running, server: ApiServerStandIn
) -> None:
    await running.wait_published(3)
    await server.stop()
    text = await running.wait_for_notice(Event.API_SERVER_AWAY)
    assert "the API server at" in text
    running.publish(publish(2, value=1))
    await server.start()
    await running.wait_published(2, value=1)
    assert len([notice for notice in running.notices if notice.event is Event.API_SERVER_AWAY]) <= 2


async def test_changes_that_the_watch_lost_are_found_by_a_list(running: Running, server: ApiServerStandIn) -> None:
    await running.wait_published(3)
    await server.wait_for(lambda: server.watches == 1)
    server.wipe_slices(NODE)
    server.expire_watches()
    await running.wait_published(3)


async def test_publisher_that_cannot_open_a_watch_fails(
    server: ApiServerStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_connection = asyncio.open_connection

    async def connect_once(*arguments: Any) -> Any:
        if server.accepted:
            # As the resolver of names does without a thread.
            raise RuntimeError("can't start new thread")
        return await open_connection(*arguments)

    monkeypatch.setattr(asyncio, "open_connection", connect_once)
    running = Running(server, tmp_path)
    running.publisher.set_registration(Registration.REGISTERED)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await asyncio.wait_for(running.publisher.run(), 5)


async def test_publisher_whose_watch_has_no_memory_fails(
    server: ApiServerStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(_text: bytes) -> object:
        raise MemoryError

    running = Running(server, tmp_path)
    running.publisher.set_registration(Registration.REGISTERED)
    task = asyncio.create_task(running.publisher.run())
    await running.wait_for_notice(Event.SLICES_PUBLISHED)
    monkeypatch.setattr(http, "parse_json", parse)
    server.send_bookmarks()
    with pytest.raises(MemoryError):
        await asyncio.wait_for(task, 5)
    await server.wait_for(lambda: server.watches == 0)


async def test_token_that_is_rotated_does_not_interrupt(running: Running, server: ApiServerStandIn) -> None:
    await running.wait_published(3)
    server.rotate_token()
    running.publish(publish(4))
    await running.wait_published(4)
    assert 401 not in {request.code for request in server.requests}


async def test_missing_rights_are_reported_with_the_message_of_the_server_dra_18(
    running: Running, server: ApiServerStandIn
) -> None:
    await running.wait_published(3)
    server.faults.refuse(403, "slices of node node-2 only", verb="update")
    running.publish(publish(3, value=1))
    text = await running.wait_for_notice(Event.SLICES_REFUSED)
    assert "403 to 'update resourceslices/" in text
    assert "slices of node node-2 only" in text
    server.faults.clear()
    await running.wait_published(3, value=1)


async def test_slice_that_is_refused_does_not_stop_the_others(running: Running, server: ApiServerStandIn) -> None:
    invalid = publish(1, resource="example.com/bad")
    device = replace(invalid.devices[0], attributes={"value": "x" * 65})
    await running.wait_for_notice(Event.SLICES_PUBLISHED)
    running.publish(replace(invalid, devices=(device,)), publish(5, value=1))
    text = await running.wait_for_notice(Event.SLICES_REFUSED)
    assert "of example.com/bad is refused" in text
    assert "may not be more than 64 bytes" in text
    await running.wait_published(5, value=1)
    await running.wait_for_notice(Event.SLICES_PUBLISHED, 2)
    assert [request.code for request in server.requests].count(422) == 1


async def test_write_whose_answer_is_lost_is_adopted(running: Running, server: ApiServerStandIn) -> None:
    await running.wait_for_notice(Event.SLICES_PUBLISHED)
    server.faults.drop(verb="update", is_late=True, times=2)
    running.publish(publish(3, value=1))
    (found,) = await running.wait_published(3, value=1)
    await running.wait_for_notice(Event.SLICES_PUBLISHED, 2)
    assert server.slices() == [found]


async def test_unhealthy_device_is_left_out_where_taints_are_dropped_dra_19(tmp_path: Path) -> None:
    async with ApiServerStandIn(version=(1, 34), tls=False) as server:
        server.add_node(NODE)
        async with run(server, tmp_path) as running:
            running.resources = lambda keeps_taints: (
                (publish(3, tainted=frozenset({2})),) if keeps_taints else (publish(2),)
            )
            running.publisher.mark_changed()
            await running.wait_for_notice(Event.TAINTS_DROPPED)
            await running.wait_published(2)
            await running.wait_for_notice(Event.SLICES_PUBLISHED)


async def test_unhealthy_device_has_a_taint_after_an_upgrade_of_the_server_dra_19(tmp_path: Path) -> None:
    async with ApiServerStandIn(version=(1, 34), tls=False) as old:
        old.add_node(NODE)
        async with run(old, tmp_path) as running:
            running.resources = lambda keeps_taints: (
                (publish(3, tainted=frozenset({2})),) if keeps_taints else (publish(2),)
            )
            running.publisher.mark_changed()
            await running.wait_for_notice(Event.TAINTS_DROPPED)
            await running.wait_published(2)
            await old.stop()
            await running.wait_for_notice(Event.API_SERVER_AWAY)
            new = ApiServerStandIn(tls=False)
            new.port, new.token = old.port, old.token
            new.add_node(NODE)
            async with new:
                (found,) = await new.wait_for_slices()
                assert "taints" in found["spec"]["devices"][2]


async def test_unhealthy_device_has_a_taint_where_taints_are_kept_dra_19(running: Running) -> None:
    running.publish(publish(3, tainted=frozenset({2})))
    (found,) = await running.server.wait_for_slices(
        lambda slices: bool(slices) and "taints" in slices[0]["spec"]["devices"][2]
    )
    (taint,) = found["spec"]["devices"][2]["taints"]
    assert (taint["key"], taint["value"], taint["effect"]) == (TAINT.key, TAINT.value, TAINT.effect)


async def test_slices_are_deleted_after_the_last_resource_and_created_again(
    running: Running, server: ApiServerStandIn
) -> None:
    await running.wait_published(3)
    running.stop_publishing()
    await server.wait_for(lambda: not server.slices() and server.watches == 0)
    running.publish(publish(2))
    await running.wait_published(2)


async def test_slices_remain_after_the_publisher_was_cancelled_and_are_adopted(
    server: ApiServerStandIn, tmp_path: Path
) -> None:
    async with run(server, tmp_path) as running:
        before = await running.wait_published(3)
        await running.wait_for_notice(Event.SLICES_PUBLISHED)
    await server.wait_for(lambda: server.watches == 0)
    async with run(server, tmp_path) as running:
        await running.wait_for_notice(Event.SLICES_PUBLISHED)
    assert server.slices() == before


async def test_server_without_the_api_group_is_reported_dra_24(tmp_path: Path) -> None:
    async with ApiServerStandIn(version=(1, 30), tls=False) as server:
        server.add_node(NODE)
        async with run(server, tmp_path) as running:
            text = await running.wait_for_notice(Event.DRA_UNSUPPORTED)
            assert text == "the API server does not have resource.k8s.io/v1: upgrade Kubernetes to 1.34 or later"
