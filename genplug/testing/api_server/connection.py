"""HTTP/1.1 connections of the stand-in, parsed by h11."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
from msgspec import Struct

_MAX_HEADER_BYTES = 1 << 16
_MAX_BODY_BYTES = 3 << 20
"""The largest body that the API server reads (k8s.io/apiserver, MaxRequestBodyBytes)."""
_READ_BYTES = 1 << 16


class HttpRequest(Struct, frozen=True):
    """A request. The names of ``headers`` are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """A request and the writer of its answer."""

    def __init__(self, connection: "_Connection", request: HttpRequest) -> None:
        self.request = request
        self._connection = connection

    async def respond(self, code: int, body: bytes, content_type: str, headers: Mapping[str, str]) -> None:
        """Send a whole answer."""
        fields = {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}
        await self._connection.send(_head(code, fields))
        await self._connection.send(h11.Data(data=body))
        await self._connection.send(h11.EndOfMessage())

    async def start_stream(self) -> None:
        """Send the head of an answer whose parts follow by :meth:`send_part`."""
        fields = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        await self._connection.send(_head(200, fields))

    async def send_part(self, part: bytes) -> None:
        """Send a part of a stream."""
        await self._connection.send(h11.Data(data=part))

    async def end_stream(self) -> None:
        """End a stream."""
        await self._connection.send(h11.EndOfMessage())

    async def wait_closed(self) -> None:
        """Wait until the client closes the connection."""
        while await self._connection.reader.read(_READ_BYTES):
            pass

    async def abort(self, raw: bytes) -> None:
        """Send bytes that need not be an answer, and close the connection."""
        self._connection.writer.write(raw)
        await self._connection.writer.drain()
        self._connection.writer.close()


Handler: TypeAlias = Callable[[Exchange], Awaitable[bool]]
"""Answers a request; returns whether the connection continues."""


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler) -> None:
    """Serve the requests of a connection until the client or a handler ends it."""
    connection = _Connection(reader, writer)
    try:
        while (request := await connection.read_request()) is not None:
            if not await handle(Exchange(connection, request)) or not connection.start_next():
                return
    except (OSError, h11.RemoteProtocolError, h11.LocalProtocolError):
        pass
    finally:
        writer.transport.abort()


class _Connection:
    """A connection: bytes to events of h11 and back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADER_BYTES)

    async def read_request(self) -> HttpRequest | None:
        """Return the next request, or None at the end of the connection."""
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > _MAX_BODY_BYTES:
                raise h11.RemoteProtocolError("the body is too large")
        target = urlsplit(head.target.decode("ascii"))
        return HttpRequest(
            head.method.decode("ascii"),
            unquote(target.path),
            dict(parse_qsl(target.query, keep_blank_values=True)),
            {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
            bytes(body),
        )

    async def send(self, event: h11.Event) -> None:
        """Send an event."""
        data = self._http.send(event)
        if data:
            self.writer.write(data)
            await self.writer.drain()

    def start_next(self) -> bool:
        """Prepare for the next request; return whether the connection can have another."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _next_event(self) -> "h11.Event | type[h11.PAUSED]":
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self.reader.read(_READ_BYTES))
        return event  # type: ignore[return-value]


def _head(code: int, fields: Mapping[str, str]) -> h11.Response:
    return h11.Response(status_code=code, headers=[(name, value) for name, value in fields.items()])
