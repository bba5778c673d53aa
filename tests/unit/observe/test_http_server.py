"""The limits of the HTTP server: connections, deadlines, methods, headers and descriptors."""

import asyncio
import contextlib
import resource
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from genplug.observe import http_server
from genplug.observe.http_server import MAX_CONNECTIONS, HttpServer, Request, Response, text_response

GET = b"GET /a?b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Endless:
    """A stream that yields parts of a size until it is closed."""

    def __init__(self, size: int) -> None:
        self.part = bytes(size)
        self.closed = threading.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.part
        # A client that does not read blocks the second part.
        while len(self.part) > 1:
            yield self.part
        await asyncio.Event().wait()

    def close(self) -> None:
        self.closed.set()


STREAMS: list[Endless] = []


def ignore_failure(path: str, error: Exception) -> None:
    """Do nothing; the tests that expect a failure have their own server."""


async def respond(request: Request) -> Response:
    """Return the path and the query of a request; ``/large`` is larger than the buffers of a socket."""
    if request.path.startswith("/stream"):
        STREAMS.append(Endless(1 << 20 if request.query == "large" else 1))
        return Response(HTTPStatus.OK, b"", stream=STREAMS[-1])
    if request.path == "/error":
        raise ValueError("hunter2")
    if request.path == "/error2":
        raise KeyError("x")
    if request.path == "/large":
        return Response(HTTPStatus.OK, bytes(16 << 20))
    return text_response(HTTPStatus.OK, f"{request.path} {request.query}")


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    """Serve on a port of the loopback address."""
    http = HttpServer("127.0.0.1", 0, respond, ignore_failure)
    yield http
    http.close()


async def exchange(server: HttpServer, content: bytes) -> bytes:
    """Send bytes on a new connection, and return all that the server sends."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(content)
        received = await reader.read()
        writer.close()
        return received


@contextlib.asynccontextmanager
async def open_idle(server: HttpServer, number: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open connections and send nothing on them."""
    async with contextlib.AsyncExitStack() as stack:
        readers = []
        for _ in range(number):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.close)
            readers.append(reader)
        yield readers


@contextlib.contextmanager
def limit_descriptors(number: int) -> Iterator[None]:
    """Limit the descriptors of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def fill_descriptors(stack: contextlib.ExitStack) -> int:
    """Open files until all descriptors below the largest one are used; return the largest."""
    largest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    descriptor = -1
    while descriptor < largest:
        descriptor = stack.enter_context(Path("/dev/null").open(encoding="ascii")).fileno()  # noqa: SIM115 - it does
    return descriptor


async def test_get_has_a_body_and_head_has_none(server: HttpServer) -> None:
    head, _, body = (await exchange(server, GET)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in head
    assert body == b"/a b"
    head, _, body = (await exchange(server, GET.replace(b"GET", b"HEAD"))).partition(b"\r\n\r\n")
    assert b"Content-Length: 4" in head
    assert body == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get"])
async def test_other_methods_are_refused_with_the_allowed_methods(server: HttpServer, method: str) -> None:
    response = await exchange(server, GET.replace(b"GET", method.encode()))
    assert response.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"\r\nAllow: GET, HEAD\r\n" in response


@pytest.mark.parametrize(
    "host", ["10.1.2.3:9808", "[fd00::1]:9808", "::1", "localhost:9808", "node-a", "genplug.kube-system.svc:9808"]
)
async def test_host_header_with_an_address_or_a_cluster_name_is_accepted(server: HttpServer, host: str) -> None:
    # An IPv6 address in a Host header has brackets.
    expected = b"HTTP/1.1 421" if host == "::1" else b"HTTP/1.1 200"
    assert (await exchange(server, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).startswith(expected)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "a.svc.evil.example", "a b", "", "x@y"])
async def test_host_header_with_a_public_name_is_refused(server: HttpServer, host: str) -> None:
    response = await exchange(server, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert response.startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
    response = await exchange(server, f"GET http://{host or 'a.b'}/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert not response.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(256)) + b"\r\n\r\n",
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ],
)
async def test_invalid_request_is_refused(server: HttpServer, content: bytes) -> None:
    assert (await exchange(server, content)).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert (await exchange(server, GET)).startswith(b"HTTP/1.1 200")


async def test_headers_without_an_end_are_refused(server: HttpServer) -> None:
    content = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000
    assert (await exchange(server, content)).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    ("headers", "is_local"),
    [
        ({}, True),
        ({"accept": "*/*"}, True),
        ({"via": "1.1 proxy"}, False),
        ({"x-real-ip": "192.0.2.1"}, False),
        ({"x-forwarded-proto": "https"}, False),
        ({"forwarded": "for=192.0.2.1"}, False),
    ],
)
def test_request_of_a_proxy_is_not_local(headers: dict[str, str], *, is_local: bool) -> None:
    assert Request("GET", "/", "", headers, "127.0.0.1").is_local is is_local


async def test_error_of_a_page_is_not_sent_and_ends_nothing(server: HttpServer) -> None:
    response = await exchange(server, GET.replace(b"/a", b"/error"))
    assert response.startswith(b"HTTP/1.1 500")
    assert b"hunter2" not in response
    assert (await exchange(server, GET)).startswith(b"HTTP/1.1 200")


async def test_failure_is_reported_once_until_another_failure_follows() -> None:
    failures: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    server = HttpServer("127.0.0.1", 0, respond, lambda path, error: failures.put_nowait((path, repr(error))))
    for path in (b"/error", b"/error", b"/error2", b"/error"):
        await exchange(server, GET.replace(b"/a", path))
    server.close()
    expected = [("/error", "ValueError('hunter2')"), ("/error2", "KeyError('x')"), ("/error", "ValueError('hunter2')")]
    async with asyncio.timeout(10):
        assert [await failures.get() for _ in expected] == expected
    assert failures.empty()


async def test_idle_connections_use_no_threads_and_do_not_exclude_other_clients(server: HttpServer) -> None:
    threads = threading.active_count()
    async with open_idle(server, 4 * MAX_CONNECTIONS) as readers:
        assert (await exchange(server, GET)).startswith(b"HTTP/1.1 200")
        assert threading.active_count() <= threads
        # The oldest connections got 503 for newer connections, long before their deadline.
        async with asyncio.timeout(http_server.REQUEST_SECONDS / 2):
            for reader in readers[: 3 * MAX_CONNECTIONS]:
                assert (await reader.read()).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")


async def test_connection_without_a_request_ends_at_its_deadline(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.2)
    assert (await exchange(server, b"GET / HTTP/1.1\r\nHos")).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


async def test_client_that_does_not_read_is_disconnected_at_its_deadline(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "RESPONSE_SECONDS", 0.2)
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(GET.replace(b"/a", b"/large"))
        received = 0
        await asyncio.sleep(1)
        with contextlib.suppress(ConnectionResetError):
            while chunk := await reader.read(1 << 16):
                received += len(chunk)
        writer.close()
    assert received < 16 << 20


@contextlib.asynccontextmanager
async def open_stream(
    server: HttpServer, query: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Request a stream, and read its head and its first byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    writer.write(f"GET /stream?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length" not in head
        assert await reader.readexactly(1) == b"\0"
    yield reader, writer
    writer.close()


async def wait_closed(stream: Endless) -> None:
    """Wait until the server has closed a stream."""
    await asyncio.wait_for(asyncio.to_thread(stream.closed.wait, 10), 10)
    assert stream.closed.is_set()


async def test_stream_is_closed_when_its_client_closes_the_connection(server: HttpServer) -> None:
    async with open_stream(server, "small"):
        stream = STREAMS[-1]
        assert not stream.closed.is_set()
    await wait_closed(stream)


async def test_stream_is_closed_when_its_client_sends_more(server: HttpServer) -> None:
    async with open_stream(server, "small") as (reader, writer):
        writer.write(GET)
        await wait_closed(STREAMS[-1])
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_stream_of_a_client_that_does_not_read_is_closed_at_its_deadline(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "RESPONSE_SECONDS", 0.2)
    async with open_stream(server, "large"):
        await wait_closed(STREAMS[-1])


async def test_streams_are_closed_with_the_server() -> None:
    server = HttpServer("127.0.0.1", 0, respond, ignore_failure)
    async with open_stream(server, "small") as (reader, _):
        server.close()
        assert STREAMS[-1].closed.is_set()
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_new_connections_are_refused_while_all_connections_have_requests(
    server: HttpServer,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
            stack.callback(writer.close)
            writer.write(GET.replace(b"/a", b"/large"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        response = await exchange(server, b"")
        assert response.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"Retry-After: 1" in response


async def test_client_with_all_connections_does_not_exclude_other_clients(server: HttpServer) -> None:
    async with contextlib.AsyncExitStack() as stack:
        readers = []
        for _ in range(2 * MAX_CONNECTIONS):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, limit=1024, local_addr=("127.0.0.2", 0)
            )
            stack.callback(writer.close)
            writer.write(GET.replace(b"/a", b"/large"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 ")
            readers.append(reader)
        for _ in range(3):
            assert (await exchange(server, GET)).startswith(b"HTTP/1.1 200")
        # The oldest connection was closed within its response.
        received = b""
        with contextlib.suppress(ConnectionResetError):
            received = await asyncio.wait_for(readers[0].read(), http_server.RESPONSE_SECONDS / 2)
        assert b"503" not in received


async def test_last_descriptors_of_the_process_are_not_used_for_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "RESERVED_DESCRIPTORS", 8)
    # The clients of this process use descriptors too: 15 remain for the server and ten idle clients.
    with contextlib.ExitStack() as stack, limit_descriptors(fill_descriptors(stack) + 8 + 16):
        server = HttpServer("127.0.0.1", 0, respond, ignore_failure)
        try:
            async with open_idle(server, 10) as readers:
                async with asyncio.timeout(http_server.REQUEST_SECONDS / 2):
                    # The oldest connection, although fewer are open than are allowed otherwise.
                    assert (await readers[0].read()).startswith(b"HTTP/1.1 503")
                assert (await exchange(server, GET)).startswith(b"HTTP/1.1 200")
        finally:
            server.close()


async def test_server_serves_again_after_all_descriptors_were_used(server: HttpServer) -> None:
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setblocking(False)  # noqa: FBT003 - the parameter has no name
    with contextlib.ExitStack() as stack, limit_descriptors(fill_descriptors(stack) + 1):
        with pytest.raises(OSError, match="Too many open files"):
            socket.socket()
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        await loop.sock_sendall(client, GET)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.sock_recv(client, 100), 0.2)
    assert (await asyncio.wait_for(loop.sock_recv(client, 100), 10)).startswith(b"HTTP/1.1 200")
    client.close()
