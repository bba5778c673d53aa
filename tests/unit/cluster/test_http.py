"""Requests and watches: limits, lost connections, tokens and errors."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from genplug.cluster import http as http_module
from genplug.cluster.account import Account
from genplug.cluster.errors import ApiError, NotConnectedError, UnreachableError, read_retry_after
from genplug.cluster.http import HttpClient, Request, build_path
from genplug.testing.api_server import ApiServerStandIn
from tests.support.api_server import SLICES_PATH, build_account, build_document, connect, list_slices

WATCH = Request("watch", "resourceslices", "GET", SLICES_PATH, {"watch": "1", "allowWatchBookmarks": "true"})


@asynccontextmanager
async def raw_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], directory: Path
) -> AsyncIterator[HttpClient]:
    """Run a server that is not HTTP, and return a client of it."""
    (directory / "token").write_text("token")
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)}
    client = HttpClient(Account(environment, directory, has_tls=False), "test")
    try:
        yield client
    finally:
        client.close()
        server.close()


async def test_requests_use_one_connection(server: ApiServerStandIn, http: HttpClient) -> None:
    for _ in range(3):
        assert (await http.request(list_slices()))["items"] == []
    assert server.accepted == 1
    assert [(request.verb, request.code) for request in server.requests] == [("list", 200)] * 3
    assert server.requests[0].user_agent == "genplug/test"


async def test_requests_at_the_same_time_use_few_connections(server: ApiServerStandIn, http: HttpClient) -> None:
    gate = server.faults.hang()
    requests = [asyncio.ensure_future(http.request(list_slices())) for _ in range(20)]
    await gate.wait_reached(4)
    gate.open()
    await asyncio.gather(*requests)
    assert server.accepted == 4


async def test_idle_connection_that_the_server_closed_is_replaced(server: ApiServerStandIn, http: HttpClient) -> None:
    await http.request(list_slices())
    await server.restart()
    await http.request(list_slices())
    assert server.accepted == 2


async def test_idle_connection_is_replaced_after_its_time(
    server: ApiServerStandIn, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await http.request(list_slices())
    monkeypatch.setattr(http_module, "MAX_IDLE_SECONDS", 0.0)
    await http.request(list_slices())
    assert server.accepted == 2


async def test_request_on_a_connection_that_ends_meanwhile_is_repeated(
    server: ApiServerStandIn, http: HttpClient
) -> None:
    await http.request(list_slices())
    server.faults.drop(times=1)
    await http.request(list_slices())
    assert [request.code for request in server.requests] == [200, 0, 200]


async def open_idle_connections(server: ApiServerStandIn, http: HttpClient, count: int) -> None:
    """Leave a number of connections idle."""
    gate = server.faults.hang()
    requests = [asyncio.ensure_future(http.request(list_slices())) for _ in range(count)]
    await gate.wait_reached(count)
    gate.open()
    await asyncio.gather(*requests)
    server.faults.clear()
    assert server.accepted == count


async def test_other_idle_connections_are_not_used_after_a_connection_was_lost(
    server: ApiServerStandIn, http: HttpClient
) -> None:
    await open_idle_connections(server, http, 3)
    server.faults.drop(times=1)
    await http.request(list_slices())
    await http.request(list_slices())
    assert server.accepted == 4


async def test_idle_connections_are_not_used_after_a_timeout(server: ApiServerStandIn, http: HttpClient) -> None:
    await open_idle_connections(server, http, 3)
    server.faults.hang(times=1)
    with pytest.raises(UnreachableError, match="did not answer"):
        await http.request(list_slices(), seconds=0.05)
    await http.request(list_slices())
    assert server.accepted == 4


async def test_idle_connections_are_not_used_after_a_watch_was_lost(
    server: ApiServerStandIn, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "WATCH_GRACE_SECONDS", 0.0)
    await open_idle_connections(server, http, 2)
    with pytest.raises(UnreachableError, match="did not end"):
        async with http.watch(WATCH, 0.05) as events:
            await anext(events)
    await http.request(list_slices())
    assert server.accepted == 4


async def test_request_on_a_new_connection_is_not_repeated(server: ApiServerStandIn, http: HttpClient) -> None:
    server.faults.drop()
    with pytest.raises(UnreachableError, match=f"no answer from the API server at 127.0.0.1:{server.port}"):
        await http.request(list_slices())
    assert len(server.requests) == 1


async def test_server_that_is_stopped_is_unreachable(server: ApiServerStandIn, http: HttpClient) -> None:
    await server.stop()
    with pytest.raises(NotConnectedError, match="cannot connect to the API server at"):
        await http.request(list_slices())


async def test_answer_that_is_late_is_an_error_with_the_limit(server: ApiServerStandIn, http: HttpClient) -> None:
    server.faults.hang()
    with pytest.raises(UnreachableError, match=r"did not answer 'list resourceslices' within 0\.05 s"):
        await http.request(list_slices(), seconds=0.05)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "incomplete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}", "incomplete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull", "not an object"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntext", "not JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + b"[" * 400, "not JSON"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "not HTTP"),
        (b"", "closed the connection before the answer"),
    ],
)
async def test_answer_that_is_invalid_is_an_error(raw: bytes, reason: str, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    async with raw_server(serve, tmp_path) as client:
        with pytest.raises(UnreachableError, match=reason):
            await client.request(list_slices())


async def test_answer_that_never_ends_is_cut_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "MAX_API_BODY_BYTES", 1 << 20)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
            await writer.drain()

    async with raw_server(serve, tmp_path) as client:
        with pytest.raises(UnreachableError, match="more than 1048576 bytes"):
            await client.request(list_slices())


async def test_informational_answer_is_skipped(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with raw_server(serve, tmp_path) as client:
        assert await client.request(list_slices()) == {}


async def test_request_has_the_headers_of_a_client_without_compression(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with raw_server(serve, tmp_path) as client:
        await client.request(list_slices(fieldSelector="spec.nodeName=a,spec.driver=b"))
    request_line, *fields = heads[0].decode().rstrip().split("\r\n")
    assert request_line == f"GET {SLICES_PATH}?fieldSelector=spec.nodeName%3Da%2Cspec.driver%3Db HTTP/1.1"
    headers = dict(field.split(": ") for field in fields)
    assert headers["Authorization"] == "Bearer token"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Host"].startswith("127.0.0.1:")


async def test_rotated_token_is_used_at_once(server: ApiServerStandIn, http: HttpClient) -> None:
    await http.request(list_slices())
    server.rotate_token()
    await http.request(list_slices())
    assert [request.code for request in server.requests] == [200, 200]


async def test_token_that_changes_during_a_request_is_used_once(
    server: ApiServerStandIn, http: HttpClient, tmp_path: Path
) -> None:
    old = server.token
    server.rotate_token()
    (tmp_path / "token").write_text(old)
    account_reads: list[str] = []
    original = Account.forget

    def forget(account: Account) -> None:
        account_reads.append("again")
        (tmp_path / "token").write_text(server.token)
        original(account)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Account, "forget", forget)
        await http.request(list_slices())
    assert account_reads == ["again"]
    assert [request.code for request in server.requests] == [401, 200]


async def test_token_that_is_refused_and_has_not_changed_is_an_error(
    server: ApiServerStandIn, http: HttpClient, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("other")
    with pytest.raises(ApiError) as failed:
        await http.request(list_slices())
    assert failed.value.status == 401
    assert [request.code for request in server.requests] == [401]


async def test_error_has_the_fields_of_the_status(server: ApiServerStandIn, http: HttpClient) -> None:
    server.faults.refuse(429, "the server is busy\x1b[31m", reason="TooManyRequests", retry_after=7)
    with pytest.raises(ApiError) as failed:
        await http.request(list_slices())
    error = failed.value
    assert (error.status, error.reason, error.message) == (429, "TooManyRequests", "the server is busy\x1b[31m")
    assert error.retry_after == 7
    assert str(error).startswith("the API server answered 429 to 'list resourceslices': the server is busy")


async def test_missing_object_differs_from_a_path_that_is_not_served(http: HttpClient) -> None:
    errors = []
    for path in (f"{SLICES_PATH}/a", "/apis/resource.k8s.io/v9/resourceslices/a"):
        with pytest.raises(ApiError) as failed:
            await http.request(Request("get", "resourceslices/a", "GET", path))
        errors.append(failed.value)
    assert [(error.status, error.is_path_unknown) for error in errors] == [(404, False), (404, True)]


async def test_group_is_unknown_to_kubernetes_1_33(tmp_path: Path) -> None:
    async with ApiServerStandIn(version=(1, 33), tls=False) as server:
        with pytest.raises(ApiError) as failed:
            await connect(server, tmp_path).request(list_slices())
        assert failed.value.is_path_unknown


@pytest.mark.parametrize(
    ("text", "seconds"), [("3", 3), ("9999", 600), ("", None), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("-1", None)]
)
def test_retry_after_is_a_bounded_number(text: str, seconds: float | None) -> None:
    assert read_retry_after(text) == seconds


def test_segments_of_paths_are_quoted() -> None:
    assert build_path("apis", "../x", "a b?") == "/apis/..%2Fx/a%20b%3F"


async def test_watch_yields_events_until_the_server_ends_it(server: ApiServerStandIn, http: HttpClient) -> None:
    found = []
    async with http.watch(WATCH, 60) as events:
        server.put_slice(build_document())
        found.append(await anext(events))
        server.end_watches()
        found += [event async for event in events]
    assert [event["type"] for event in found] == ["ADDED", "BOOKMARK"]


async def test_watch_is_closed_at_the_end_of_its_context(server: ApiServerStandIn, http: HttpClient) -> None:
    async with http.watch(WATCH, 60):
        assert server.watches == 1
    await server.wait_for(lambda: server.watches == 0)


async def test_cancelled_watch_closes_its_connection(server: ApiServerStandIn, http: HttpClient) -> None:
    async def follow() -> None:
        async with http.watch(WATCH, 60) as events:
            await anext(events)

    task = asyncio.ensure_future(follow())
    await server.wait_for(lambda: server.watches == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.wait_for(lambda: server.watches == 0)


async def test_watch_that_is_refused_is_an_error(server: ApiServerStandIn, http: HttpClient) -> None:
    server.faults.refuse(403, "forbidden", verb="watch")
    with pytest.raises(ApiError, match="403 to 'watch resourceslices': forbidden"):
        async with http.watch(WATCH, 60):
            pass


async def test_watch_of_a_server_that_stops_is_lost(server: ApiServerStandIn, http: HttpClient) -> None:
    async with http.watch(WATCH, 60) as events:
        await server.stop()
        with pytest.raises(UnreachableError, match="no answer from the API server"):
            await anext(events)


async def test_watch_that_never_ends_is_lost_after_its_time(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "WATCH_GRACE_SECONDS", 0.0)
    async with http.watch(WATCH, 0.05) as events:
        with pytest.raises(UnreachableError, match=r"did not end 'watch resourceslices' within 0\.05 s"):
            await anext(events)


async def test_event_that_is_too_long_ends_the_watch(
    server: ApiServerStandIn, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "MAX_API_EVENT_BYTES", 1000)
    async with http.watch(WATCH, 60) as events:
        server.put_slice(build_document(64))
        with pytest.raises(UnreachableError, match="an event has more than 1000 bytes"):
            await anext(events)


async def test_event_in_pieces_is_joined(tmp_path: Path) -> None:
    text = json.dumps({"type": "BOOKMARK", "object": {}}).encode() + b"\n\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (text[:5], text[5:20], text[20:] + text):
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with raw_server(serve, tmp_path) as client, client.watch(WATCH, 60) as events:
        assert [event["type"] async for event in events] == ["BOOKMARK", "BOOKMARK"]


async def test_requests_are_counted_with_their_verb_and_status(server: ApiServerStandIn, tmp_path: Path) -> None:
    counted: list[tuple[str, str]] = []
    account = build_account(server, tmp_path)
    http = HttpClient(account, "test", lambda verb, code: counted.append((verb, code)))
    await http.request(list_slices())
    async with http.watch(WATCH, 60):
        pass
    server.faults.refuse(403)
    with pytest.raises(ApiError):
        await http.request(list_slices())
    with pytest.raises(ApiError):
        async with http.watch(WATCH, 60):
            pass
    await server.stop()
    with pytest.raises(UnreachableError):
        await http.request(list_slices())
    assert counted == [("list", "200"), ("watch", "200"), ("list", "403"), ("watch", "403"), ("list", "0")]
