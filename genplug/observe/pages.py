"""The pages of ``--listen``: ``/healthz``, ``/readyz``, ``/metrics``, ``/statusz``, served by threads of their own.

They read frozen snapshots only, so a slow scraper holds up nothing. ``/healthz`` asks the loop to turn once.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from concurrent.futures import TimeoutError as LoopTimeoutError
from socketserver import ThreadingMixIn
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


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Leave requests out of the log."""


class Pages:
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


def _text(start: StartResponse, good: bool, text: str) -> Iterable[bytes]:  # noqa: FBT001 - private
    start("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]
