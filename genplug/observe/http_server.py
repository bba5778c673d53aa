"""A small HTTP server in one thread, which bounds what its clients can use.

Any client in the network of the cluster can connect. Therefore the number of connections is limited, each connection
has deadlines and serves one request, and the last file descriptors of the process are kept for the kubelet. The body of
a response can be a stream, whose parts have a deadline each; the creator of streams limits their number.
"""

import asyncio
import re
import resource
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from msgspec import Struct

MAX_CONNECTIONS = 32
"""Connections that are open at the same time. A further connection replaces one that has not sent its request, or one
of the client with the most connections."""
MAX_HEADER_BYTES = 8192
"""Bytes of a request line and its headers."""
REQUEST_SECONDS = 5.0
"""Seconds within which a client has to send its request."""
RESPONSE_SECONDS = 10.0
"""Seconds within which a client has to read the response, or 64 KiB of a stream."""
RESERVED_DESCRIPTORS = 32
"""File descriptors that connections never use; at most a quarter of the limit of the process."""
_RETRY_SECONDS = 1.0
"""Seconds after which the server continues if the system could not open a connection or start a thread."""
_STOP_SECONDS = 1.0
"""The time for which :meth:`HttpServer.close` waits for the thread."""
_CHUNK_BYTES = 1 << 16
_BACKLOG = 128

TEXT = "text/plain; charset=utf-8"
_REQUEST_LINE = re.compile(r"([A-Za-z]{1,16}) (\S+) HTTP/1\.[01]")
_ABSOLUTE_TARGET = re.compile(r"https?://([^/?#]*)(.*)")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_PROXY_HEADERS = frozenset(
    {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}
)
"""Headers that proxies add (RFC 7239; RFC 9110, section 7.6.3; and those of nginx and others)."""
_END_OF_HEAD = b"\r\n\r\n"


class Stream(Protocol):
    """A body without an end. The server iterates over it once, and closes it in any case."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body."""
        ...

    def close(self) -> None:
        """Free what the stream holds."""
        ...


class Response(Struct, frozen=True, weakref=True):
    """The response to a request. With a stream, the body is what the stream yields."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = {}
    stream: Stream | None = None

    def encode_head(self) -> bytes:
        """Return the status line and the headers."""
        fields = {
            "Content-Type": self.content_type,
            # The end of the connection is the end of a stream (RFC 9112, section 6.3).
            **({"Content-Length": str(len(self.body))} if self.stream is None else {}),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **self.headers,
        }
        status_line = f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
        return (status_line + "".join(f"{name}: {text}\r\n" for name, text in fields.items()) + "\r\n").encode("ascii")


def text_response(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a text."""
    return Response(status, text.encode(), headers=headers or {})


_BUSY = text_response(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "the server has too many connections, or the process has few file descriptors left; try again later\n",
    {"Retry-After": "1"},
)


class Request(Struct, frozen=True):
    """A request with the method GET or HEAD. The names of ``headers`` are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    client: str
    """The address of the client."""

    @property
    def is_local(self) -> bool:
        """Whether a client on this host sent the request, and did not forward it for another client.

        ``kubectl port-forward`` is such a client: the container runtime connects to localhost in the network namespace
        of the pod (containerd, ``dialLocalhost`` in ``internal/cri/server/sandbox_portforward_linux.go``).
        """
        return _is_loopback(self.client) and not self.headers.keys() & _PROXY_HEADERS


class _RefusedError(Exception):
    """A request that gets an error response."""

    def __init__(self, status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.response = text_response(status, text + "\n", headers)


class _Connection(Struct, eq=False):
    """An open connection."""

    socket: socket.socket
    client: str
    task: "asyncio.Task[None] | None" = None
    has_request: bool = False
    """Whether the request was received."""
    is_replaced: bool = False
    """Whether another connection replaces this connection."""


class HttpServer:
    """Serves requests until :meth:`close`, in a thread with an event loop of its own.

    ``respond`` is called in that loop. The server is created in the event loop of the agent, and calls
    ``report_failure`` there with the path of a request and the error that ``respond`` raised for it. An error that is
    equal to the previous error is not reported again, because clients repeat their requests.
    """

    def __init__(
        self,
        host: str,
        port: int,
        respond: Callable[[Request], Awaitable[Response]],
        report_failure: Callable[[str, Exception], None],
    ) -> None:
        """Listen on an address; an empty host means all addresses, and port 0 lets the system choose a port.

        Raises:
            OSError: the address is not an address of this host, or is in use.
        """
        self._respond = respond
        self._report_failure = report_failure
        self._last_failure = ("", "")
        self._socket = _listen(host, port)
        self.port = int(self._socket.getsockname()[1])
        self._host_names = frozenset({"localhost", socket.gethostname().lower()})
        self._max_descriptor = _max_descriptor()
        self._agent_loop = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._connections: dict[_Connection, None] = {}
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._start_thread()

    def call(self, callback: Callable[[], None]) -> None:
        """Call a function in the thread of the server, soon, unless it is closed. Any thread may call this."""
        # The loop is closed while the process ends.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """Stop serving, and close the connections."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._thread is None:
            self._loop.close()
        else:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_STOP_SECONDS)
        self._socket.close()

    def _start_thread(self) -> None:
        """Start the thread; if the system cannot start a thread now (cgroup limit pids.max), try again later."""
        if self._is_closed:
            return
        thread = threading.Thread(target=self._run, name="genplug-http", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._agent_loop.call_later(_RETRY_SECONDS, self._start_thread)
        else:
            self._thread = thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.add_reader(self._socket, self._accept)
        try:
            self._loop.run_forever()
        finally:
            tasks = [connection.task for connection in self._connections if connection.task is not None]
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    def _accept(self) -> None:
        try:
            connected, address = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            # The process has no descriptor left, or the system no memory. The loop would call this again at once.
            self._loop.remove_reader(self._socket)
            self._loop.call_later(_RETRY_SECONDS, self._loop.add_reader, self._socket, self._accept)
            return
        connected.setblocking(False)  # noqa: FBT003 - the parameter has no name
        is_full = len(self._connections) >= MAX_CONNECTIONS or connected.fileno() > self._max_descriptor
        if is_full and not self._end_connection_for(str(address[0])):
            _refuse(connected)
            return
        connection = _Connection(connected, str(address[0]))
        self._connections[connection] = None
        connection.task = self._loop.create_task(self._serve(connection))

    def _end_connection_for(self, client: str) -> bool:
        """End a connection for a new connection of a client; return whether there was a connection to end.

        It is one that has not sent its request, else one of a client that has more connections than the new client: a
        client cannot exclude others, such as the kubelet, which restarts an agent that does not respond.
        """
        counts = Counter(connection.client for connection in self._connections)
        waiting = [connection for connection in self._connections if not connection.has_request]
        others = [connection for connection in self._connections if counts[connection.client] > counts[client] + 1]
        if not waiting and not others:
            return False
        # The oldest connection of the client with the most connections.
        replaced = max(waiting or others, key=lambda connection: counts[connection.client])
        replaced.is_replaced = True
        del self._connections[replaced]
        if replaced.task is not None:
            replaced.task.cancel()
        return True

    async def _serve(self, connection: _Connection) -> None:
        # A timeout, a reset by the client, and the end of this task for another connection have no other effect.
        with suppress(OSError, TimeoutError, asyncio.CancelledError):
            response, has_body = await self._handle(connection)
            if response is not None and response.stream is not None:
                await self._send_stream(connection.socket, response, response.stream)
            elif response is not None:
                async with asyncio.timeout(RESPONSE_SECONDS):
                    await self._send(connection.socket, response, has_body=has_body)
        self._connections.pop(connection, None)
        if connection.is_replaced and not connection.has_request:
            _refuse(connection.socket)
        else:
            connection.socket.close()

    async def _send(self, connected: socket.socket, response: Response, *, has_body: bool) -> None:
        await self._loop.sock_sendall(connected, response.encode_head())
        if has_body:
            await self._loop.sock_sendall(connected, response.body)
        connected.shutdown(socket.SHUT_WR)
        # If unread bytes of the client remained, the close would reset the connection and discard the response.
        while await self._loop.sock_recv(connected, _CHUNK_BYTES):
            pass

    async def _send_stream(self, connected: socket.socket, response: Response, stream: Stream) -> None:
        """Send a stream until it or the client ends, or the client does not read a part in time."""

        async def send_parts() -> None:
            async with asyncio.timeout(RESPONSE_SECONDS):
                await self._loop.sock_sendall(connected, response.encode_head())
            async for part in stream:
                for start in range(0, len(part), _CHUNK_BYTES):
                    async with asyncio.timeout(RESPONSE_SECONDS):
                        await self._loop.sock_sendall(connected, part[start : start + _CHUNK_BYTES])

        # A client has nothing more to send: its next bytes, or the end of its connection, end the stream.
        tasks = (
            asyncio.ensure_future(send_parts()),
            asyncio.ensure_future(self._loop.sock_recv(connected, _CHUNK_BYTES)),
        )
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            stream.close()

    async def _handle(self, connection: _Connection) -> tuple[Response | None, bool]:
        """Return the response to the request of a client and whether it has its body; None without a request."""
        has_body = True
        path = ""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await self._read_head(connection.socket)
            if head is None:
                return None, False
            connection.has_request = True
            request = _parse_request(head, connection.client)
            path, has_body = request.path, request.method != "HEAD"
            self._check_host(request)
            return await self._respond(request), has_body
        except TimeoutError:
            return text_response(HTTPStatus.REQUEST_TIMEOUT, f"no request within {REQUEST_SECONDS:g} s\n"), True
        except _RefusedError as error:
            return error.response, has_body
        except OSError:
            # The client has gone.
            return None, False
        except Exception as error:  # noqa: BLE001 - an error ends neither the server nor the process
            self._report(path, error)
            # The text of the error is not public.
            text = "genplug could not create the response; try again\n"
            return text_response(HTTPStatus.INTERNAL_SERVER_ERROR, text), has_body

    def _report(self, path: str, error: Exception) -> None:
        failure = (path, repr(error))
        if failure != self._last_failure:
            self._last_failure = failure
            # The loop of the agent is closed while the process ends.
            with suppress(RuntimeError):
                self._agent_loop.call_soon_threadsafe(self._report_failure, path, error)

    async def _read_head(self, connected: socket.socket) -> bytes | None:
        """Return the request line and the headers; None if the client closes the connection first."""
        head = b""
        while _END_OF_HEAD not in head:
            if len(head) > MAX_HEADER_BYTES:
                text = f"expected at most {MAX_HEADER_BYTES} bytes of request line and headers"
                raise _RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
            chunk = await self._loop.sock_recv(connected, MAX_HEADER_BYTES)
            if not chunk:
                return None
            head += chunk
        return head.partition(_END_OF_HEAD)[0]

    def _check_host(self, request: Request) -> None:
        """Refuse a host name that is neither a name of this host nor a name in the cluster.

        A web page can let a name of its domain resolve to this address, and a browser would let the page read the
        response (DNS rebinding). The kubelet and Prometheus request an address.

        Raises:
            _RefusedError: the name may be of a public domain.
        """
        host = request.headers.get("host", "localhost")
        matched = _HOST.fullmatch(host)
        name = matched[1].strip("[]").rstrip(".").lower() if matched else ""
        is_cluster_name = bool(name) and ("." not in name or name.endswith((".svc", ".cluster.local")))
        if _parse_address(name) is None and name not in self._host_names and not is_cluster_name:
            text = (
                "expected in the Host header an address, the name of this host, or a name that ends in .svc or "
                ".cluster.local; request the address of the pod or of the node"
            )
            raise _RefusedError(HTTPStatus.MISDIRECTED_REQUEST, text)


def _listen(host: str, port: int) -> socket.socket:
    # An empty host includes the IPv6 addresses, because a node can have IPv6 only. The socket accepts IPv4 too.
    is_v6 = ":" in host or (not host and socket.has_dualstack_ipv6())
    listening = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_v6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
        listening.setblocking(False)  # noqa: FBT003 - the parameter has no name
    except BaseException:
        listening.close()
        raise
    return listening


def _max_descriptor() -> int:
    """Return the largest descriptor of a connection. The system assigns the lowest free descriptor."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return 1 << 30
    return limit - min(RESERVED_DESCRIPTORS, limit // 4) - 1


def _refuse(connected: socket.socket) -> None:
    """Send 503 without waiting for the client, and close its connection."""
    with suppress(OSError):
        connected.send(_BUSY.encode_head() + _BUSY.body)
        connected.shutdown(socket.SHUT_WR)
        # Unread bytes would turn the close into a reset, which discards the response.
        connected.recv(_CHUNK_BYTES)
    connected.close()


def _parse_request(head: bytes, client: str) -> Request:
    """Return a request.

    Raises:
        _RefusedError: it is not a valid request with the method GET or HEAD.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    matched = _REQUEST_LINE.fullmatch(first)
    if matched is None:
        raise _RefusedError(HTTPStatus.BAD_REQUEST, "expected a request of HTTP/1.1, such as 'GET /healthz HTTP/1.1'")
    method, target = matched[1], matched[2]
    if method not in {"GET", "HEAD"}:
        text = "expected the method GET or HEAD"
        raise _RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, text, {"Allow": "GET, HEAD"})
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, text = line.partition(":")
        name = name.lower()
        # A space before the colon or a second Host header makes the request ambiguous (RFC 9112, sections 3.2, 5.1).
        if not colon or name != name.strip() or (name == "host" and name in headers):
            raise _RefusedError(
                HTTPStatus.BAD_REQUEST, "expected headers of the form 'Name: text', and one Host header"
            )
        headers[name] = text.strip()
    if absolute := _ABSOLUTE_TARGET.fullmatch(target):
        headers["host"], target = absolute[1], absolute[2] or "/"
    path, _, query = target.partition("?")
    return Request(method, path, query, headers, client)


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        # A link-local address can have the name of an interface.
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _is_loopback(client: str) -> bool:
    address = _parse_address(client)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        # A dual-stack socket has an IPv4 client as ::ffff:a.b.c.d.
        address = address.ipv4_mapped
    return address is not None and address.is_loopback
