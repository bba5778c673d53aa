"""The part of HTTP/2 (RFC 9113) that a client needs to behave as gRPC's client never does."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8
"""Types of frames (RFC 9113, section 6)."""
END_STREAM, END_HEADERS = 1, 4
"""Flags of frames."""
INITIAL_WINDOW_SIZE = 4
"""A parameter of a SETTINGS frame."""


def build_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return the bytes of a frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def build_headers(method: str) -> bytes:
    """Return the header block of a gRPC call, uncompressed (RFC 7541, sections 6.1 and 6.2.2).

    Surrogates in the name of the method are bytes that are not UTF-8 (PEP 383).
    """

    def encode(text: str) -> bytes:
        content = text.encode(errors="surrogateescape")
        return bytes([len(content)]) + content

    post_http = b"\x83\x86"
    path_and_authority = b"\x04" + encode(method) + b"\x01" + encode("localhost")
    fields = (("content-type", "application/grpc"), ("te", "trailers"))
    return post_http + path_and_authority + b"".join(b"\x00" + encode(name) + encode(value) for name, value in fields)


class UnreadStream:
    """A client with an open ListAndWatch whose flow control window is empty until :meth:`start_reading`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._received = b""

    async def open(self) -> None:
        """Call ListAndWatch; return when the server has begun to answer."""
        no_window = build_frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0))
        headers = build_headers(method_path(DEVICE_PLUGIN, "ListAndWatch"))
        call = build_frame(HEADERS, END_HEADERS, 1, headers) + build_frame(DATA, END_STREAM, 1, bytes(5))
        self._writer.write(PREFACE + no_window + call)
        # Headers need no window.
        while (await self._read_frame())[0] != HEADERS:
            pass

    def start_reading(self) -> None:
        """Open the window, so that the server can send its lists."""
        window = (10 << 20).to_bytes(4, "big")
        self._writer.write(build_frame(WINDOW_UPDATE, 0, 0, window) + build_frame(WINDOW_UPDATE, 0, 1, window))

    async def read_message(self) -> pb.ListAndWatchResponse:
        """Return the next list.

        Raises:
            TimeoutError: There is no list within 10 s.
        """
        async with asyncio.timeout(10):
            while len(self._received) < 5 or len(self._received) < 5 + int.from_bytes(self._received[1:5], "big"):
                kind, payload = await self._read_frame()
                self._received += payload if kind == DATA else b""
        end = 5 + int.from_bytes(self._received[1:5], "big")
        message, self._received = self._received[5:end], self._received[end:]
        return pb.ListAndWatchResponse.FromString(message)

    async def _read_frame(self) -> tuple[int, bytes]:
        header = await self._reader.readexactly(9)
        return header[3], await self._reader.readexactly(int.from_bytes(header[:3], "big"))


@asynccontextmanager
async def open_unread_stream(socket: Path) -> AsyncIterator[UnreadStream]:
    """Open ListAndWatch at a socket without reading from it."""
    reader, writer = await asyncio.open_unix_connection(socket)
    stream = UnreadStream(reader, writer)
    await stream.open()
    try:
        yield stream
    finally:
        writer.close()
