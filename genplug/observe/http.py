"""The HTTP endpoints of ``--listen``: ``/healthz``, ``/readyz``, ``/metrics`` and ``/statusz``.

:mod:`genplug.observe.http_server` runs them in a thread, so that a slow client does not delay the agent, and
``/healthz`` can report that the event loop of the agent hangs. A client on another host receives codes and places
only, because texts of errors contain lines of the configuration and names of files.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from weakref import ref

from prometheus_client.exposition import choose_encoder

from genplug.observe.http_server import HttpServer, Request, Response, text_response
from genplug.observe.metrics import Metrics
from genplug.observe.status import Status
from genplug.spec.printable import escape_line, escape_lines

MAX_DOCUMENTS = 4
"""Texts of a page in memory. While so many are sent to slow clients, further clients receive the newest of them."""
_LOOP_TIMEOUT_SECONDS = 2.0
"""The time within which a responsive event loop runs a task."""
_ATTEMPTS = 3
"""Attempts to read the status. A mapping that the agent changes meanwhile raises RuntimeError."""
_ENDPOINTS = "/healthz, /readyz, /readyz?verbose, /metrics and /statusz"


class StatusServer:
    """Serves the HTTP endpoints until :meth:`close`. It is created in the event loop of the agent."""

    def __init__(
        self,
        host: str,
        port: int,
        status: Callable[[], Status],
        metrics: Metrics,
        refresh: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Listen on an address; port 0 lets the system choose a port.

        ``refresh`` runs in the event loop of the agent before the status is read for ``/statusz`` and ``/metrics``.

        Raises:
            OSError: the address is not an address of this host, or is in use.
        """
        self._status = status
        self._refresh = refresh
        self._metrics = metrics.registry
        self._loop = asyncio.get_running_loop()
        self._documents: dict[str, list[ref[Response]]] = {}
        self._server = HttpServer(host, port, self._respond)

    @property
    def port(self) -> int:
        """The port on which the server listens."""
        return self._server.port

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    async def _respond(self, request: Request) -> Response:
        match request.path:
            case "/metrics":
                await self._refresh_status()
                return self._share_document("/metrics", lambda: self._render_metrics(request.headers.get("accept", "")))
            case "/healthz":
                if await self._is_loop_responsive():
                    return text_response(HTTPStatus.OK, "ok\n")
                seconds = f"{_LOOP_TIMEOUT_SECONDS:g} s"
                text = f"the event loop has not run a task within {seconds}: the agent hangs or is overloaded\n"
                return text_response(HTTPStatus.SERVICE_UNAVAILABLE, text)
            case "/readyz":
                return self._respond_readiness(is_verbose="verbose" in request.query, is_local=request.is_local)
            case "/statusz" if not request.is_local:
                # The status contains paths and errors of the node.
                text = "/statusz responds only to clients on the same host; run 'genplug status' there\n"
                return text_response(HTTPStatus.FORBIDDEN, text)
            case "/statusz":
                await self._refresh_status()
                return self._share_document("/statusz", self._render_status)
            case _:
                return text_response(HTTPStatus.NOT_FOUND, f"not found; the endpoints are {_ENDPOINTS}\n")

    async def _refresh_status(self) -> None:
        refreshing = asyncio.run_coroutine_threadsafe(self._refresh(), self._loop)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(refreshing), _LOOP_TIMEOUT_SECONDS)

    def _respond_readiness(self, *, is_verbose: bool, is_local: bool) -> Response:
        status = self._read_status()
        lines = ["ready" if status.is_ready else "not ready"]
        if is_verbose:
            reasons = status.unready if is_local else status.public_unready
            lines += [f"[-] {_escape_reason(reason, status)}" for reason in reasons]
            lines += [
                f"[+] {resource.name}: {resource.healthy} healthy, {resource.unhealthy} unhealthy"
                for resource in status.resources
                if resource.is_registered
            ]
            shortages = [resource for resource in status.resources if resource.shortage]
            lines += [f"[!] {resource.name}: {resource.shortage}" for resource in shortages]
            if is_local:
                lines += [f"[!] {escape_line(reason)}" for reason in (*status.config.warnings, *status.unwatched)]
            elif status.unwatched:
                lines.append("[!] the kernel does not report changes of some files")
            config = status.config
            if config.error and config.loaded_at is not None:
                lines.append("[!] the newest configuration is invalid, so the previous configuration remains active:")
                lines += [escape_lines(config.error)] if is_local else map(escape_line, config.public_errors)
            if not is_local and not status.is_ready:
                lines.append("run 'genplug status' in the pod or on the node for the details")
        code = HTTPStatus.OK if status.is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return text_response(code, "\n".join(lines) + "\n")

    def _share_document(self, page: str, render: Callable[[], Response]) -> Response:
        documents = [document for weak in self._documents.get(page, ()) if (document := weak()) is not None]
        if len(documents) < MAX_DOCUMENTS:
            documents.append(render())
        self._documents[page] = [ref(document) for document in documents]
        return documents[-1]

    def _render_metrics(self, accept: str) -> Response:
        try:
            encode, content_type = choose_encoder(accept)
        except ValueError:
            # The header contains a version that is not a number.
            encode, content_type = choose_encoder("")
        for _ in range(_ATTEMPTS - 1):
            with suppress(RuntimeError):
                return Response(HTTPStatus.OK, encode(self._metrics), content_type)
        return Response(HTTPStatus.OK, encode(self._metrics), content_type)

    def _render_status(self) -> Response:
        document = json.dumps(self._read_status().as_json(), indent=1)
        return Response(HTTPStatus.OK, document.encode() + b"\n", "application/json")

    def _read_status(self) -> Status:
        for _ in range(_ATTEMPTS - 1):
            with suppress(RuntimeError):
                return self._status()
        return self._status()

    async def _is_loop_responsive(self) -> bool:
        task = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop)
        try:
            await asyncio.wait_for(asyncio.wrap_future(task), _LOOP_TIMEOUT_SECONDS)
        except TimeoutError:
            return False
        return True


def _escape_reason(reason: str, status: Status) -> str:
    # Only the errors of a configuration have several lines.
    has_lines = status.config.error and status.config.error in reason
    return escape_lines(reason) if has_lines else escape_line(reason)
