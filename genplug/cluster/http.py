"""Requests and watches of the API server: HTTP/1.1, parsed by h11, with a limit for each read and wait."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

import h11
from msgspec import Struct

from genplug.cluster.account import Account, Credentials
from genplug.cluster.errors import UnreachableError, read_error
from genplug.cluster.stream import ByteStream, Connector
from genplug.spec.json_text import parse_json
from genplug.spec.limits import MAX_API_BODY_BYTES, MAX_API_CONNECTIONS, MAX_API_EVENT_BYTES

REQUEST_SECONDS = 15.0
"""Seconds for a request, with the connection and the whole answer."""
MAX_IDLE_SECONDS = 30.0
"""Seconds after which an idle connection is not used again: a load balancer may have forgotten it."""
WATCH_GRACE_SECONDS = 30.0
"""Seconds after the end that a watch requested, after which it counts as lost."""
_MAX_HEADER_BYTES = 1 << 16
_UNAUTHORIZED = 401


class Request(Struct, frozen=True):
    """A request. ``verb`` and ``subject`` are for messages: ``list resourceslices``."""

    verb: str
    subject: str
    method: str
    path: str
    query: Mapping[str, str] = {}
    document: Mapping[str, Any] | None = None

    @property
    def action(self) -> str:
        """The request for messages."""
        return f"{self.verb} {self.subject}"

    @property
    def target(self) -> str:
        """The path with the query."""
        # A value of the API server can have characters that UTF-8 cannot encode.
        return f"{self.path}?{urlencode(self.query, errors='replace')}" if self.query else self.path


def build_path(*segments: str) -> str:
    """Return a path of quoted segments; a character that UTF-8 cannot encode becomes a question mark."""
    return "".join(f"/{quote(segment, safe='', errors='replace')}" for segment in segments)


class HttpClient:
    """Sends requests to the API server, on a few connections that are kept. For one event loop."""

    def __init__(
        self, account: Account, user_agent: str, count: Callable[[str, str], None] = lambda _verb, _code: None
    ) -> None:
        """Create a client. ``count`` gets the verb and the status of each request, ``0`` without an answer."""
        self._account = account
        self._count = count
        self._user_agent = user_agent
        self._connector = Connector()
        self._idle: list[_Connection] = []
        self._places = asyncio.Semaphore(MAX_API_CONNECTIONS)

    async def request(self, request: Request, seconds: float = REQUEST_SECONDS) -> dict[str, Any]:
        """Send a request; return the JSON object of the answer.

        A token that the server refuses is read again, and used at once if it has changed.

        Raises:
            AccountError: the credentials are missing or invalid.
            ApiError: the API server answered with an error.
            UnreachableError: there was no valid answer in time. A write may have had its effect.
        """
        credentials = self._account.read()
        status = 0
        try:
            async with asyncio.timeout(seconds), self._places:
                status, headers, body = await self._exchange(credentials, request)
                if status == _UNAUTHORIZED:
                    self._account.forget()
                    renewed = self._account.read()
                    if renewed.token != credentials.token:
                        status, headers, body = await self._exchange(renewed, request)
        except TimeoutError:
            self.close()
            text = f"the API server at {credentials.authority} did not answer '{request.action}' within {seconds:g} s"
            raise UnreachableError(text) from None
        except UnreachableError:
            self.close()
            raise
        finally:
            self._count(request.verb, str(status))
        if not 200 <= status < 300:  # noqa: PLR2004 - success
            raise read_error(request.action, status, headers, body)
        return _read_object(credentials, request, body)

    @asynccontextmanager
    async def watch(self, request: Request, seconds: float) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Open a watch, which the request limits to a number of seconds; yield an iterator over its events.

        The iterator ends when the server ends the watch. The connection is closed at the end of the context.

        Raises:
            AccountError: the credentials are missing or invalid.
            ApiError: the API server refused the watch.
            UnreachableError: there was no answer in time, or the connection was lost.
        """
        credentials = self._account.read()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                connection = await self._start_watch(credentials, request)
        except TimeoutError:
            text = f"the API server at {credentials.authority} did not answer '{request.action}' in time"
            raise UnreachableError(text) from None
        try:
            yield self._read_events(credentials, request, connection, seconds + WATCH_GRACE_SECONDS)
        except UnreachableError:
            self.close()
            raise
        finally:
            connection.close()

    def close(self) -> None:
        """Close the idle connections, which may be lost too after a connection was lost."""
        while self._idle:
            self._idle.pop().close()

    async def _read_events(
        self, credentials: Credentials, request: Request, connection: "_Connection", seconds: float
    ) -> AsyncIterator[dict[str, Any]]:
        deadline = asyncio.get_running_loop().time() + seconds
        lines = connection.read_lines(MAX_API_EVENT_BYTES)
        while True:
            # The limit is for the reads, and not for the caller between them.
            try:
                async with asyncio.timeout_at(deadline):
                    line = await anext(lines, b"")
            except TimeoutError:
                text = f"the API server at {credentials.authority} did not end '{request.action}' within {seconds:g} s"
                raise UnreachableError(text) from None
            if not line:
                return
            yield _read_object(credentials, request, line)

    async def _start_watch(self, credentials: Credentials, request: Request) -> "_Connection":
        status = 0
        try:
            connection = await self._open(credentials)
            try:
                status, headers = await connection.start(self._build_head(credentials, request), b"")
                if status == 200:  # noqa: PLR2004 - OK
                    return connection
                body = await connection.read_body()
            except BaseException:
                connection.close()
                raise
        finally:
            self._count(request.verb, str(status))
        connection.close()
        if status == _UNAUTHORIZED:
            self._account.forget()
        raise read_error(request.action, status, headers, body)

    async def _exchange(self, credentials: Credentials, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        body = b"" if request.document is None else json.dumps(request.document).encode()
        head = self._build_head(credentials, request, len(body))
        connection, status, headers = await self._start(credentials, head, body)
        try:
            answer = await connection.read_body()
        except BaseException:
            connection.close()
            raise
        if connection.prepare_next():
            self._idle.append(connection)
        return status, headers, answer

    async def _start(
        self, credentials: Credentials, head: h11.Request, body: bytes
    ) -> "tuple[_Connection, int, Mapping[str, str]]":
        """Send a request; return its connection, and the status and the headers of the answer.

        A server can close an idle connection at any time. The request is then repeated on a new connection; a write
        that had its effect is refused the second time, because each write has a precondition or a fixed name.
        """
        while (connection := self._take_idle(credentials)) is not None:
            try:
                return connection, *await connection.start(head, body)
            except UnreachableError:
                connection.close()
                self.close()
            except BaseException:
                connection.close()
                raise
        connection = await self._open(credentials)
        try:
            return connection, *await connection.start(head, body)
        except BaseException:
            connection.close()
            raise

    def _take_idle(self, credentials: Credentials) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable(credentials):
                return connection
            connection.close()
        return None

    async def _open(self, credentials: Credentials) -> "_Connection":
        return _Connection(await self._connector.connect(credentials), credentials)

    def _build_head(self, credentials: Credentials, request: Request, length: int = 0) -> h11.Request:
        headers = [
            ("Host", credentials.authority),
            ("User-Agent", self._user_agent),
            ("Authorization", f"Bearer {credentials.token}"),
            ("Accept", "application/json"),
            # Go compresses answers for clients that accept it: they cannot be bounded before they are expanded.
            ("Accept-Encoding", "identity"),
        ]
        if request.document is not None:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(length))]
        return h11.Request(method=request.method, target=request.target, headers=headers)


class _Connection:
    """A connection that sends one request at a time."""

    def __init__(self, stream: ByteStream, credentials: Credentials) -> None:
        self._stream = stream
        self._credentials = credentials
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER_BYTES)
        self._idle_since = time.monotonic()

    async def start(self, head: h11.Request, body: bytes) -> tuple[int, Mapping[str, str]]:
        """Send a request; return the status of the answer and its headers, with names in lower case.

        Raises:
            UnreachableError: the connection ended, or the answer is not HTTP.
        """
        data = [self._send(head)]
        if body:
            data.append(self._send(h11.Data(data=body)))
        data.append(self._send(h11.EndOfMessage()))
        try:
            await self._stream.write(b"".join(data))
        except OSError as error:
            raise self._lost_error(error) from error
        event = await self._next_event()
        while isinstance(event, h11.InformationalResponse):
            event = await self._next_event()
        if not isinstance(event, h11.Response):
            raise self._lost_error("it closed the connection before the answer")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        return event.status_code, headers

    async def read_body(self) -> bytes:
        """Return the body of the answer.

        Raises:
            UnreachableError: the connection ended, or the body is too large.
        """
        body = bytearray()
        async for part in self._read_parts():
            body += part
            if len(body) > MAX_API_BODY_BYTES:
                raise self._lost_error(f"its answer has more than {MAX_API_BODY_BYTES} bytes")
        return bytes(body)

    async def read_lines(self, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield the lines of the body.

        Raises:
            UnreachableError: the connection ended, or a line is too long.
        """
        rest = bytearray()
        async for part in self._read_parts():
            for piece in part.splitlines(keepends=True):
                rest += piece
                if len(rest) > max_bytes:
                    raise self._lost_error(f"an event has more than {max_bytes} bytes")
                if rest.endswith(b"\n"):
                    if rest.strip():
                        yield bytes(rest)
                    rest.clear()

    def is_usable(self, credentials: Credentials) -> bool:
        """Return whether a further request may be sent with these credentials."""
        return (
            self._credentials.endpoint == credentials.endpoint
            and time.monotonic() - self._idle_since < MAX_IDLE_SECONDS
            and not self._stream.is_closing
        )

    def prepare_next(self) -> bool:
        """Return whether the connection can have another request; otherwise close it."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._idle_since = time.monotonic()
            return True
        self.close()
        return False

    def close(self) -> None:
        """Close the connection at once."""
        self._stream.close()

    async def _read_parts(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._next_event(), h11.Data):
            yield bytes(event.data)

    async def _next_event(self) -> "h11.Event | type[h11.PAUSED]":
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = await self._stream.read()
                if not data and self._http.their_state is h11.SEND_RESPONSE:
                    raise self._lost_error("it closed the connection before the answer")
                self._http.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise self._lost_error(f"its answer is incomplete or not HTTP: {error}") from error
        except UnreachableError:
            raise
        except OSError as error:
            raise self._lost_error(error) from error
        return event  # type: ignore[return-value]

    def _send(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""

    def _lost_error(self, reason: OSError | str) -> UnreachableError:
        text = reason if isinstance(reason, str) else reason.strerror or str(reason)
        return UnreachableError(f"no answer from the API server at {self._credentials.authority}: {text}")


def _read_object(credentials: Credentials, request: Request, text: bytes) -> dict[str, Any]:
    try:
        document = parse_json(text)
    except ValueError as error:
        reason = f"its answer to '{request.action}' is not JSON: {error}"
        raise UnreachableError(f"no answer from the API server at {credentials.authority}: {reason}") from error
    if not isinstance(document, dict):
        reason = f"its answer to '{request.action}' is not an object"
        raise UnreachableError(f"no answer from the API server at {credentials.authority}: {reason}")
    return document
