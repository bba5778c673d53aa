"""The HTTP endpoints of ``--listen``: the status page, ``/healthz``, ``/readyz``, ``/metrics`` and ``/statusz``.

:mod:`genplug.observe.http_server` runs them in a thread, so that a slow client does not delay the agent, and
``/healthz`` can report that the event loop of the agent hangs. A client on another host receives codes and places
only, because texts of errors contain lines of the configuration and names of files.
"""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from weakref import ref

from msgspec import Struct

from genplug.observe.health_history import DeviceKey, HealthEntry
from genplug.observe.http_server import HttpServer, Request, Response, text_response
from genplug.observe.metrics import Metrics, choose_encoder
from genplug.observe.status import Status
from genplug.spec.printable import escape_line, escape_lines

if TYPE_CHECKING:
    from concurrent.futures import Future

    from genplug.observe.page.live import LivePages

MAX_DOCUMENTS = 4
"""Texts of a page in memory. While so many are sent to slow clients, further clients receive the newest of them."""
_LOOP_TIMEOUT_SECONDS = 2.0
"""The time within which a responsive event loop runs a task."""
_ATTEMPTS = 3
"""Attempts to read the status. A mapping that the agent changes meanwhile raises RuntimeError."""
_ENDPOINTS = "/ (a page for browsers), /healthz, /readyz, /readyz?verbose, /metrics and /statusz"
_LOCAL_PATHS = {
    "/": "on the same host; run 'kubectl port-forward' to the pod, or open the page on the node",
    "/events": "on the same host",
    "/statusz": "on the same host; run 'genplug status' there",
}
"""The paths that contain paths and errors of the node, and a hint for a client on another host."""
_EVENTS_RETRY_SECONDS = 15


class StatusSource(Struct, frozen=True):
    """The functions by which the endpoints read the agent.

    ``status`` and ``history`` (the health of the devices over the last hour) are called in another thread. ``refresh``
    runs in the event loop of the agent before the status is read for the page, ``/statusz`` and ``/metrics``.
    """

    status: Callable[[], Status]
    refresh: Callable[[], Coroutine[Any, Any, None]]
    history: Callable[[], Mapping[DeviceKey, HealthEntry]] = dict


class StatusServer:
    """Serves the HTTP endpoints until :meth:`close`. It is created in the event loop of the agent."""

    def __init__(
        self,
        host: str,
        port: int,
        source: StatusSource,
        metrics: Metrics,
        report_failure: Callable[[str, Exception], None],
    ) -> None:
        """Listen on an address; port 0 lets the system choose a port.

        ``report_failure`` is called in the current event loop with the path of a request that failed, and the error.

        Raises:
            OSError: the address is not an address of this host, or is in use.
        """
        self._source = source
        self._metrics = metrics.registry
        self._live: LivePages | None = None
        """The open pages; None before the first of them, so that its modules are loaded only if they are needed."""
        self._loop = asyncio.get_running_loop()
        self._documents: dict[str, list[ref[Response]]] = {}
        self._server = HttpServer(host, port, self._respond, report_failure)

    @property
    def port(self) -> int:
        """The port on which the server listens."""
        return self._server.port

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def mark_changed(self) -> None:
        """Update the open pages soon, because the agent emitted an event. Any thread may call this."""
        live = self._live
        if live is not None and live.is_open:
            self._server.call(live.mark_changed)

    async def _respond(self, request: Request) -> Response:
        if request.path in _LOCAL_PATHS and not request.is_local:
            text = f"{request.path} responds only to clients {_LOCAL_PATHS[request.path]}\n"
            return text_response(HTTPStatus.FORBIDDEN, text)
        match request.path:
            case "/":
                await self._refresh_status()
                return self._share_document("/", self._render_page)
            case "/events":
                return self._respond_events(request)
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
            case "/statusz":
                await self._refresh_status()
                return self._share_document("/statusz", self._render_status)
            case _:
                return text_response(HTTPStatus.NOT_FOUND, f"not found; the endpoints are {_ENDPOINTS}\n")

    async def _refresh_status(self) -> None:
        await wait_for_loop(asyncio.run_coroutine_threadsafe(self._source.refresh(), self._loop))

    def _render_page(self) -> Response:
        # Imported here: an agent whose page is never opened does not load its modules.
        from genplug.observe.page.content import Clock  # noqa: PLC0415
        from genplug.observe.page.document import build_headers, render_page  # noqa: PLC0415

        text = render_page(self._read_status(), self._source.history(), Clock(time.time(), time.monotonic()))
        return Response(HTTPStatus.OK, text.encode(), "text/html; charset=utf-8", build_headers())

    def _respond_events(self, request: Request) -> Response:
        """Return the events of a page."""
        if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            # A page of another site could not read the events, but it would use up their connections.
            return text_response(HTTPStatus.FORBIDDEN, "/events responds only to the page of the agent\n")
        content_type = "text/event-stream"
        if request.method == "HEAD":
            return Response(HTTPStatus.OK, b"", content_type)
        if self._live is None:
            from genplug.observe.page.live import LivePages  # noqa: PLC0415 - like the modules of the page

            self._live = LivePages(self._read_live)
        page = self._live.open_page()
        if page is None:
            text = "the agent has too many live pages; close one of them, or reload the page\n"
            headers = {"Retry-After": str(_EVENTS_RETRY_SECONDS)}
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE, text, headers)
        headers = {"Cross-Origin-Resource-Policy": "same-origin", "X-Accel-Buffering": "no"}
        return Response(HTTPStatus.OK, b"", content_type, headers, page)

    async def _read_live(self) -> tuple[Status, Mapping[DeviceKey, HealthEntry]]:
        await self._refresh_status()
        return self._read_status(), self._source.history()

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
            if status.audit is not None and status.audit.error:
                reason = escape_line(f"audit log: {status.audit.error}")
                lines.append(f"[!] {reason if is_local else 'the audit log cannot be written'}")
            if status.dra is not None and (warnings := status.dra.warnings):
                texts = warnings if is_local else ("Dynamic Resource Allocation has warnings",)
                lines += [f"[!] {escape_line(text)}" for text in texts]
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
                return self._source.status()
        return self._source.status()

    async def _is_loop_responsive(self) -> bool:
        task = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop)
        return await wait_for_loop(task)


async def wait_for_loop(future: "Future[None]") -> bool:
    """Wait for a call in the event loop of the agent; return whether it has returned in time."""
    # Not wait_for: in Python 3.11, it ignores a cancellation if the future is done, and a stream would not end.
    try:
        async with asyncio.timeout(_LOOP_TIMEOUT_SECONDS):
            await asyncio.wrap_future(future)
    except TimeoutError:
        return False
    return True


def _escape_reason(reason: str, status: Status) -> str:
    # Only the errors of a configuration have several lines.
    has_lines = status.config.error and status.config.error in reason
    return escape_lines(reason) if has_lines else escape_line(reason)
