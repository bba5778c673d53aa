"""The pages of ``--listen``: ``/healthz``, ``/readyz``, ``/metrics``, ``/statusz``, served by threads of their own.

They read frozen snapshots only, so a slow scraper holds up nothing. ``/healthz`` asks the loop to turn once.
"""

import asyncio
import json
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import TimeoutError as LoopTimeoutError
from ipaddress import ip_address
from socketserver import TCPServer, ThreadingMixIn
from typing import cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import make_wsgi_app

from genplug.observe.metrics import Metrics
from genplug.observe.status import Status

_LOOP_TURN = 2.0
"""Seconds within which a living loop takes up a task."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        host, _ = address
        # Every address of a node or pod that may have IPv6 only; an IPv4 caller is seen as ::ffff:a.b.c.d then.
        is_v6 = ":" in host or (host == "" and socket.has_dualstack_ipv6())
        self.address_family = socket.AF_INET6 if is_v6 else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without asking the name service for a name that nobody wants: at a node's start it may not answer."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Leave requests out of the log."""


class StatusServer:
    """Serves the pages on an address until closed; for use inside the agent's loop."""

    def __init__(self, host: str, port: int, status: Callable[[], Status], metrics: Metrics) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._status = status
        self._metrics = make_wsgi_app(metrics.registry)
        self._loop = asyncio.get_running_loop()
        self._server = make_server(host, port, self._answer, _Server, _Quiet)
        self._server.timeout = 0
        # The loop only accepts; each request is answered by a thread. (serve_forever would wake up twice a second.)
        self._loop.add_reader(self._server.fileno(), self._server.handle_request)

    @property
    def port(self) -> int:
        """The port listened on (the one given, or the system's choice for 0)."""
        return self._server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._loop.remove_reader(self._server.fileno())
        self._server.server_close()

    def _answer(self, environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environment.get("PATH_INFO", "/")
        verbose = "verbose" in environment.get("QUERY_STRING", "")
        match path:
            case "/metrics":
                return cast("Iterable[bytes]", self._metrics(environment, start))
            case "/healthz":
                alive = self._is_loop_turning()
                return _text(start, alive, "ok\n" if alive else "the event loop does not turn\n")
            case "/readyz":
                return self._readiness(start, verbose=verbose)
            case "/statusz" if not _is_from_here(environment):
                # It names every path and every mistake: for those who are on the node (or in the pod) anyway.
                start("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
                return [b"/statusz is told to callers on this host only; see genplug status\n"]
            case "/statusz":
                start("200 OK", [("Content-Type", "application/json")])
                return [json.dumps(self._status().as_json(), indent=1).encode() + b"\n"]
            case _:
                start("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
                return [b"there are /healthz, /readyz?verbose, /metrics and /statusz\n"]

    def _readiness(self, start: StartResponse, *, verbose: bool) -> Iterable[bytes]:
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
                lines.append("[!] the newest configuration was refused, the last good one serves:")
                lines.append(status.config.error)
        return _text(start, status.is_ready, "\n".join(lines) + "\n")

    def _is_loop_turning(self) -> bool:
        turn = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop)
        try:
            turn.result(_LOOP_TURN)
        except (LoopTimeoutError, asyncio.CancelledError):
            return False
        return True


def _is_from_here(environment: WSGIEnvironment) -> bool:
    caller = ip_address(environment["REMOTE_ADDR"])
    return (getattr(caller, "ipv4_mapped", None) or caller).is_loopback


def _text(start: StartResponse, good: bool, text: str) -> Iterable[bytes]:  # noqa: FBT001 - private
    start("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]
