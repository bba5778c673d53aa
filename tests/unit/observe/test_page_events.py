"""The events of the status page: what changed, for a bounded number of pages."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from genplug.agent import Agent
from genplug.observe.events import EventLog
from genplug.observe.health_history import DeviceKey, HealthEntry
from genplug.observe.http import StatusServer, StatusSource
from genplug.observe.metrics import Metrics
from genplug.observe.page import live
from genplug.observe.page.content import describe_changes
from genplug.observe.page.live import MAX_PAGES, LivePage, LivePages
from genplug.observe.status import DeviceStatus, Status
from genplug.testing.node.fake_node import FakeNode
from tests.unit.observe.test_status import LIVE, STATUS

LISTEN = ("127.0.0.1", 0)
CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x: {devices: [{glob: /dev/x*}]}
  a.io/y: {devices: [{glob: /dev/y*}]}
"""


class Source:
    """A status that a test changes, with the number of times that it was read."""

    def __init__(self) -> None:
        self.status = STATUS
        self.reads = 0

    async def read(self) -> tuple[Status, Mapping[DeviceKey, HealthEntry]]:
        self.reads += 1
        return self.status, {}


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def pages(source: Source, monkeypatch: pytest.MonkeyPatch) -> LivePages:
    """Pages whose states follow each other without a pause."""
    monkeypatch.setattr(live, "MIN_SECONDS", 0.0)
    return LivePages(source.read)


def open_page(pages: LivePages) -> LivePage:
    page = pages.open_page()
    assert page is not None
    return page


async def next_update(events: AsyncIterator[bytes]) -> dict[str, Any]:
    """Return the content of the next update."""
    async with asyncio.timeout(10):
        while not (event := await anext(events)).startswith(b"event: update\n"):
            pass
    return dict(json.loads(event.split(b"\n")[1].removeprefix(b"data: ")))


def rename_node(source: Source, name: str) -> None:
    """Change the status so that only one section of the page changes."""
    source.status = replace(source.status, node=name)


async def test_first_event_has_all_sections_and_the_next_those_that_changed(source: Source, pages: LivePages) -> None:
    page = open_page(pages)
    events = aiter(page)
    first = await next_update(events)
    assert list(first["sections"]) == first["order"]
    assert {"summary", "resources", "containers"} < set(first["order"])
    rename_node(source, "node-2")
    pages.mark_changed()
    second = await next_update(events)
    assert list(second["sections"]) == ["summary"]
    assert second["title"].endswith("genplug on node-2")
    page.close()


async def test_events_at_once_cause_one_update(source: Source, pages: LivePages) -> None:
    page = open_page(pages)
    events = aiter(page)
    await next_update(events)
    reads = source.reads
    for number in range(50):
        rename_node(source, f"node-{number}")
        pages.mark_changed()
    await next_update(events)
    assert source.reads == reads + 1
    page.close()


async def test_pages_share_a_state(source: Source, pages: LivePages) -> None:
    opened = [open_page(pages) for _ in range(MAX_PAGES)]
    streams = [aiter(page) for page in opened]
    await asyncio.gather(*map(next_update, streams))
    rename_node(source, "node-2")
    pages.mark_changed()
    updates = await asyncio.gather(*map(next_update, streams))
    assert all(list(update["sections"]) == ["summary"] for update in updates)
    assert source.reads == 2
    for page in opened:
        page.close()


async def test_change_during_the_creation_of_a_state_is_sent(source: Source, pages: LivePages) -> None:
    page = open_page(pages)
    events = aiter(page)
    await next_update(events)
    first_read = source.read

    async def read_slowly() -> tuple[Status, Mapping[DeviceKey, HealthEntry]]:
        result = await first_read()
        if source.status.node == "node-2":
            rename_node(source, "node-3")
            pages.mark_changed()
        return result

    pages._read = read_slowly  # noqa: SLF001 - the moment between two reads has no event
    rename_node(source, "node-2")
    pages.mark_changed()
    titles = [(await next_update(events))["title"][-6:] for _ in range(2)]
    assert titles == ["node-2", "node-3"]
    page.close()


async def test_page_that_has_the_state_receives_heartbeats_only(
    source: Source, pages: LivePages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(live, "POLL_SECONDS", 0.0)
    page = open_page(pages)
    events = aiter(page)
    await next_update(events)
    assert [await anext(events) for _ in range(3)] == 3 * [b"event: alive\ndata: {}\n\n"]
    assert source.reads >= 4
    page.close()


async def test_further_page_is_refused_until_a_page_closes(pages: LivePages) -> None:
    opened = [open_page(pages) for _ in range(MAX_PAGES)]
    assert pages.open_page() is None
    opened[0].close()
    opened[0].close()
    assert pages.open_page() is not None
    assert pages.open_page() is None


def test_changes_are_described_for_a_screen_reader() -> None:
    gone = replace(LIVE.devices[0], healthy=False, reason="gone")
    current = replace(
        STATUS,
        failures=(),
        resources=(replace(LIVE, devices=(gone, *LIVE.devices[1:]), is_registered=False), *STATUS.resources[2:]),
    )
    assert describe_changes(STATUS, STATUS) == ""
    assert describe_changes(STATUS, current) == (
        "example.com/camera: 1 healthy, 2 unhealthy; example.com/camera is not registered; "
        "example.com/serial was removed"
    )
    more = tuple(
        replace(LIVE, name=f"a.io/x{number}", devices=(DeviceStatus("x", (), healthy=True, reason=""),))
        for number in range(5)
    )
    assert describe_changes(STATUS, replace(STATUS, resources=(*STATUS.resources, *more))).endswith(
        "; and 2 more changes"
    )


@contextlib.asynccontextmanager
async def connect(agent: Agent, headers: str = "") -> AsyncIterator[asyncio.StreamReader]:
    """Request the events, and read the head of the response if it is a stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.http_port, limit=1 << 20)
    try:
        writer.write(f"GET /events HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        yield reader
    finally:
        writer.close()


async def read_head(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(10):
        return (await reader.readuntil(b"\r\n\r\n")).decode()


async def read_update(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Return the content of the next update of a connection."""
    async with asyncio.timeout(10):
        while not (await reader.readline()).startswith(b"event: update"):
            pass
        return dict(json.loads((await reader.readline()).removeprefix(b"data: ")))


async def test_open_page_receives_the_changed_devices_of_the_agent(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The events of the agent cause the updates.
    monkeypatch.setattr(live, "POLL_SECONDS", 1000.0)
    for path in ("/dev/x0", "/dev/y0"):
        node.plug(path)
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        await node.kubelet.wait_for_list("a.io/y", healthy={"y0"})
        async with connect(agent) as reader:
            head = await read_head(reader)
            assert head.startswith("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            assert "Content-Length" not in head
            first = await read_update(reader)
            node.unplug("/dev/x0")
            while "a.io/x: 0 healthy, 1 unhealthy" not in (update := await read_update(reader))["news"]:
                pass
            # The devices of the other resource are not sent again.
            assert first["order"][3] not in update["sections"]
            assert first["order"][2] in update["sections"]
            text = json.dumps(update["sections"])
            assert "/dev/x0 is gone" in text


async def test_stream_ends_when_the_agent_stops(node: FakeNode) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with node.run_agent(CONFIG, listen=LISTEN) as agent:
            await node.kubelet.wait_registered("a.io/x")
            reader = await stack.enter_async_context(connect(agent))
            await read_head(reader)
            await read_update(reader)
        async with asyncio.timeout(10):
            await reader.read()
        assert reader.at_eof()


def fail_on_failure(path: str, error: Exception) -> None:
    pytest.fail(f"the response to a request for {path} failed: {error!r}")


async def test_stream_ends_when_the_server_closes_while_the_agent_responds() -> None:
    """The response of the agent and the end of the server reach the thread of the server at the same time."""
    is_asked, may_respond = asyncio.Event(), asyncio.Event()
    is_blocked, may_continue = threading.Event(), threading.Event()

    async def refresh() -> None:
        is_asked.set()
        await may_respond.wait()

    def block() -> None:
        is_blocked.set()
        may_continue.wait(10)

    metrics = Metrics(lambda: STATUS, EventLog())
    server = StatusServer(*LISTEN, StatusSource(lambda: STATUS, refresh), metrics, fail_on_failure)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await read_head(reader)
    await is_asked.wait()
    server._server.call(block)  # noqa: SLF001 - the thread must not continue between the two
    await asyncio.to_thread(is_blocked.wait, 10)
    may_respond.set()
    for _ in range(5):
        await asyncio.sleep(0)
    threading.Timer(0.2, may_continue.set).start()
    server.close()
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()


async def test_further_client_is_asked_to_retry_until_a_client_leaves(node: FakeNode) -> None:
    async with node.run_agent(CONFIG, listen=LISTEN) as agent, contextlib.AsyncExitStack() as others:
        await node.kubelet.wait_registered("a.io/x")
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(MAX_PAGES):
                assert "200 OK" in await read_head(await stack.enter_async_context(connect(agent)))
            head = await read_head(await others.enter_async_context(connect(agent)))
            assert head.startswith("HTTP/1.1 503 Service Unavailable\r\n")
            assert "\r\nRetry-After: 15\r\n" in head

        async def is_accepted() -> bool:
            async with connect(agent) as reader:
                return "200 OK" in await read_head(reader)

        async with asyncio.timeout(10):
            while not await is_accepted():
                pass


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_page_of_another_site_receives_no_events(node: FakeNode, site: str) -> None:
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await node.kubelet.wait_registered("a.io/x")
        async with connect(agent, f"Sec-Fetch-Site: {site}\r\n") as reader:
            assert (await read_head(reader)).startswith("HTTP/1.1 403 Forbidden\r\n")
        async with connect(agent, "Sec-Fetch-Site: same-origin\r\n") as reader:
            assert (await read_head(reader)).startswith("HTTP/1.1 200 OK\r\n")
