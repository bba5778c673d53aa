"""Checks that the server on a Unix socket responds, without a gRPC channel, which costs a hundred times as much."""

import asyncio
import errno
import socket
from pathlib import Path

from genplug.kubelet.client import CallError, SocketMissingError, SystemLimitError

_HEADER_BYTES = 9
_SETTINGS = 4
"""The length of the header of a frame, and the type of a SETTINGS frame (RFC 9113, sections 4.1 and 6.5)."""
_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


async def check_server(path: Path, *, deadline: float) -> None:
    """Return when the server on a socket has accepted a connection and sent its first frame.

    A server sends SETTINGS as its first frame, and C-core does so before it receives anything (RFC 9113, section 3.4).

    Raises:
        SocketMissingError: the socket does not exist.
        SystemLimitError: this process has no descriptor or memory for the connection.
        CallError: no server responds within ``deadline`` (seconds), or it is not a server of HTTP/2.
    """
    try:
        async with asyncio.timeout(deadline):
            header = await _read_header(path)
    except TimeoutError:
        raise CallError(f"no response from {path} within {deadline:.0f} s") from None
    except FileNotFoundError:
        raise SocketMissingError(f"{path} does not exist") from None
    except OSError as error:
        error_type = SystemLimitError if error.errno in _LIMITS else CallError
        raise error_type(f"cannot connect to {path}: {error.strerror or error}") from error
    if len(header) < _HEADER_BYTES or header[3] != _SETTINGS:
        raise CallError(f"expected the SETTINGS of an HTTP/2 server on {path}, found {header!r}")


async def _read_header(path: Path) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        await loop.sock_connect(connection, str(path))
        header = b""
        while len(header) < _HEADER_BYTES and (part := await loop.sock_recv(connection, _HEADER_BYTES - len(header))):
            header += part
    return header
