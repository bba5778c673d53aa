"""The HTTP endpoints of ``--listen``: ``/healthz``, ``/readyz``, ``/metrics`` and ``/statusz``.

A thread responds to each request from a frozen status, so a slow client delays nothing. ``/healthz`` runs a task on the
event loop.
"""

import asyncio
import json
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import TimeoutError as TaskTimeoutError
from ipaddress import ip_address
from socketserver import TCPServer, ThreadingMixIn
from typing import cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import make_wsgi_app

from genplug.observe.metrics import Metrics
from genplug.observe.status import Status

_LOOP_TIMEOUT_SECONDS = 2.0
"""The time within which a responsive event loop runs a task."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        host, _ = address
        # An empty host includes the IPv6 addresses, because a node can have IPv6 only. The socket accepts IPv4 too.
        is_v6 = ":" in host or (host == "" and socket.has_dualstack_ipv6())
        self.address_family = socket.AF_INET6 if is_v6 else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind the socket without the reverse lookup of WSGIServer, which can block while the node starts."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Do not log requests."""


class StatusServer:
    """Serves the HTTP endpoints until :meth:`close`. It is created in the event loop of the agent."""

    def __init__(self, host: str, port: int, status: Callable[[], Status], metrics: Metrics) -> None:
        """Listen on an address; port 0 lets the system choose a port.

        Raises:
            OSError: the address is not an address of this host, or is in use.
        """
        self._status = status
        self._metrics = make_wsgi_app(metrics.registry)
        self._loop = asyncio.get_running_loop()
        self._server = make_server(host, port, self._respond, _Server, _QuietHandler)
        self._server.timeout = 0
        # The loop accepts connections, and threads respond. (serve_forever would wake up twice a second.)
        self._loop.add_reader(self._server.fileno(), self._server.handle_request)

    @property
    def port(self) -> int:
        """The port on which the server listens."""
        return self._server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._loop.remove_reader(self._server.fileno())
        self._server.server_close()

    def _respond(self, environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        match environment.get("PATH_INFO", "/"):
            case "/metrics":
                return cast("Iterable[bytes]", self._metrics(environment, start))
            case "/healthz":
                if self._is_loop_responsive():
                    return _respond_text(start, "200 OK", "ok\n")
                seconds = f"{_LOOP_TIMEOUT_SECONDS:g} s"
                text = f"the event loop has not run a task within {seconds}: the agent hangs or is overloaded\n"
                return _respond_text(start, "503 Service Unavailable", text)
            case "/readyz":
                return self._respond_readiness(start, verbose="verbose" in environment.get("QUERY_STRING", ""))
            case "/statusz" if not _is_from_loopback(environment):
                # The status contains paths and errors of the node.
                text = "/statusz responds only to clients on the same host; run 'genplug status' there\n"
                return _respond_text(start, "403 Forbidden", text)
            case "/statusz":
                start("200 OK", [("Content-Type", "application/json")])
                return [json.dumps(self._status().as_json(), indent=1).encode() + b"\n"]
            case _:
                text = "not found; the endpoints are /healthz, /readyz, /readyz?verbose, /metrics and /statusz\n"
                return _respond_text(start, "404 Not Found", text)

    def _respond_readiness(self, start: StartResponse, *, verbose: bool) -> Iterable[bytes]:
        status = self._status()
        lines = ["ready" if status.is_ready else "not ready"]
        if verbose:
            lines += [f"[-] {reason}" for reason in status.unready]
            lines += [
                f"[+] {resource.name}: {resource.healthy} healthy, {resource.unhealthy} unhealthy"
                for resource in status.resources
                if resource.is_registered
            ]
            if status.config.error and status.config.loaded_at is not None:
                lines.append("[!] the newest configuration is invalid, so the previous configuration remains active:")
                lines.append(status.config.error)
        return _respond_text(start, "200 OK" if status.is_ready else "503 Service Unavailable", "\n".join(lines) + "\n")

    def _is_loop_responsive(self) -> bool:
        task = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop)
        try:
            task.result(_LOOP_TIMEOUT_SECONDS)
        except (TaskTimeoutError, asyncio.CancelledError):
            return False
        return True


def _is_from_loopback(environment: WSGIEnvironment) -> bool:
    client = ip_address(environment["REMOTE_ADDR"])
    # A dual-stack socket has an IPv4 client as ::ffff:a.b.c.d.
    return (getattr(client, "ipv4_mapped", None) or client).is_loopback


def _respond_text(start: StartResponse, status: str, text: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]
