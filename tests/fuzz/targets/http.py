"""HTTP requests: the parser of the agent, and the real server with a real socket."""

import asyncio
import ipaddress
import re
import socket
import threading
from functools import cache
from http import HTTPStatus

from genplug.observe.events import EventLog
from genplug.observe.http import StatusServer, StatusSource
from genplug.observe.http_server import _parse_request, _RefusedError
from genplug.observe.metrics import Metrics
from genplug.observe.status import ConfigStatus, Status
from tests.fuzz.target import Target

_STATUS = Status("1.2.3", "node", ConfigStatus(files=("c.yaml",), error="c.yaml:1:1: error\n  1 | x"), "", ())
_PATHS = ("/", "/healthz", "/readyz", "/readyz?verbose", "/metrics", "/statusz", "/events", "/x")


def run_request(content: bytes) -> None:
    request = _parse_request(content.partition(b"\r\n\r\n")[0], "::ffff:127.0.0.1")
    assert request.method in {"GET", "HEAD"}
    assert "?" not in request.path
    assert all(name == name.lower().strip() for name in request.headers)
    assert isinstance(request.is_local, bool)


def run_server(content: bytes) -> None:
    """Send bytes to a server; it must respond or close, never with an internal error, and only to known hosts."""
    with socket.create_connection(("127.0.0.1", _start_server())) as client:
        client.settimeout(60)
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        response = bytearray()
        while part := client.recv(1 << 16):
            response += part
    if not response:
        return
    matched = re.match(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+\r\n", response)
    assert matched is not None, bytes(response[:80])
    status = int(matched[1])
    assert status != HTTPStatus.INTERNAL_SERVER_ERROR
    if status == HTTPStatus.OK:
        check_host(content)


def check_host(content: bytes) -> None:
    """Assert that a request that was answered does not name a host of a public domain (DNS rebinding)."""
    first, *lines = content.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    target = first.split(" ")[1]
    absolute = re.match(r"https?://([^/?#]*)", target)
    hosts = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("host:")]
    host = absolute[1] if absolute else hosts[0] if hosts else "localhost"
    name = re.sub(r":\d{1,5}\Z", "", host).strip("[]").rstrip(".").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        is_known = "." not in name or name.endswith((".svc", ".cluster.local")) or name == socket.gethostname().lower()
        assert is_known, host


@cache
def _start_server() -> int:
    """Start a server in a thread of this process, and return its port."""
    ports: list[int] = []
    is_started = threading.Event()

    async def refresh() -> None:
        """Do nothing: the status does not change."""

    def report(path: str, error: Exception) -> None:
        """Do nothing: the fuzzer finds the response with code 500."""

    async def serve() -> None:
        source = StatusSource(lambda: _STATUS, refresh)
        server = StatusServer("127.0.0.1", 0, source, Metrics(lambda: _STATUS, EventLog()), report)
        ports.append(server.port)
        is_started.set()
        await asyncio.Event().wait()

    threading.Thread(target=asyncio.run, args=(serve(),), daemon=True).start()
    is_started.wait()
    return ports[0]


def list_requests() -> list[bytes]:
    hosts = ("localhost:9808", "127.0.0.1", "[::1]:9808", "genplug.genplug.svc", "evil.example", "node.")
    headers = "Accept: application/openmetrics-text; version=1.0.0\r\nX-Forwarded-For: 10.0.0.1\r\n"
    requests = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n" for path in _PATHS]
    requests += [f"HEAD / HTTP/1.0\r\nHost: {host}\r\n\r\n" for host in hosts]
    requests += [
        "GET http://evil.example/statusz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST / HTTP/1.1\r\n\r\n",
        "GET",
    ]
    return [request.encode() for request in requests]


_WORDS = (
    *(
        "GET ",
        "HEAD ",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "\r\n\r\n",
        "\r\n",
        "Host: ",
        "host:",
        "Accept: ",
        "X-Forwarded-For: ",
    ),
    *(
        "Via: ",
        "Forwarded: for=",
        "http://",
        "https://",
        "evil.example",
        "localhost",
        "127.0.0.1",
        "[::1]",
        ".svc",
        ".",
    ),
    *("application/openmetrics-text; version=1.0.0", "Sec-Fetch-Site: ", "?verbose", *_PATHS),
)

TARGETS = (
    Target(
        "http-request",
        "HTTP requests, the parser",
        run_request,
        list_requests,
        allowed=(_RefusedError,),
        words=_WORDS,
        max_bytes=2048,
    ),
    Target(
        "http-server",
        "HTTP requests, the server",
        run_server,
        list_requests,
        words=_WORDS,
        max_bytes=10000,
        short_runs=300,
    ),
)
