"""Call gRPC methods on a Unix socket, with requests and responses as bytes.

Each channel has its own connection pool. C-core otherwise shares a connection and its back-off between all channels of
one address, and a kubelet that was unreachable a moment ago would remain so for seconds. For the same reason, a channel
on which a call has failed gets no further calls.
"""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from genplug.kubelet.denied_access import DENIALS, describe_denied_access

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    # The pod-resources responses of large nodes exceed the 4 MiB that gRPC accepts by default
    # (docs/internals/kubelet-contract.md §1.3).
    ("grpc.max_receive_message_length", 16 << 20),
)
_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_SYSTEM_ERRORS = (*_LIMITS, errno.EACCES, errno.EPERM, errno.ENOTSOCK, errno.ELOOP)
"""The errors of connect(2) and socket(2) that gRPC reports as a part of a longer text."""


class CallError(Exception):
    """A call that failed; the message is the server's, or states why the server did not respond."""


class SocketMissingError(CallError):
    """A call that failed because the socket does not exist."""


class SystemLimitError(CallError):
    """A call that failed because this process could not get what a connection needs, for example a descriptor."""


async def call(socket: Path, method: str, request: bytes, *, deadline: float) -> bytes:
    """Return the response to a call of ``method`` (``/service/Method``) within ``deadline`` (seconds).

    Raises:
        SocketMissingError: the socket does not exist.
        SystemLimitError: this process has no descriptor, memory or thread for the call.
        CallError: the server responded with an error, or not within the deadline, or the call cannot be made.
    """
    return await Client(socket).call(method, request, deadline=deadline)


class Client:
    """Calls methods on a socket. Concurrent calls share a connection, which is closed after the last of them.

    A connection is specific to the socket file: after the file is replaced, the next call opens a new connection.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._newest: _SharedChannel | None = None

    async def call(self, method: str, request: bytes, *, deadline: float) -> bytes:
        """Return the response to a call of ``method``, and raise the errors of :func:`call`."""
        try:
            async with self._open_channel() as channel:
                unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
                return await unary(request, timeout=deadline)
        except grpc.aio.AioRpcError as error:
            raise _convert_error(error, self._socket, deadline) from error
        except Exception as error:
            # For example no descriptor or no thread for the connection. The library has no common type for its errors.
            raise SystemLimitError(f"the call to {self._socket} cannot be made: {error}") from error

    @asynccontextmanager
    async def _open_channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """Share the newest channel, or open a channel if there is none, or none to the present socket file."""
        identity = _stat_file(self._socket)
        shared = self._newest
        if shared is None or shared.identity != identity:
            channel = grpc.aio.insecure_channel(f"unix:{self._socket}", options=_OPTIONS)
            shared = self._newest = _SharedChannel(channel, identity)
        shared.calls += 1
        try:
            yield shared.channel
        except BaseException:
            self._forget(shared)
            raise
        finally:
            shared.calls -= 1
            if not shared.calls:
                self._forget(shared)
                await shared.channel.close()

    def _forget(self, shared: "_SharedChannel") -> None:
        if self._newest is shared:
            self._newest = None


class _SharedChannel:
    """A channel, the socket file that it was opened for, and the number of calls in progress."""

    def __init__(self, channel: grpc.aio.Channel, identity: tuple[int, int, int] | None) -> None:
        self.channel = channel
        self.identity = identity
        self.calls = 0


def _stat_file(path: Path) -> tuple[int, int, int] | None:
    """Return what identifies a file; None if it cannot be stat'ed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _convert_error(error: grpc.aio.AioRpcError, socket: Path, deadline: float) -> CallError:
    details = error.details() or "no details"
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        for number in _SYSTEM_ERRORS:
            if os.strerror(number) in details:
                hint = f". {describe_denied_access(socket)}" if number in DENIALS else ""
                error_type = SystemLimitError if number in _LIMITS else CallError
                return error_type(f"cannot connect to {socket}: {os.strerror(number)}{hint}")
    if os.strerror(errno.ECONNREFUSED) in details:
        return CallError(f"connection refused: no process listens on {socket}")
    if os.strerror(errno.ENOENT) in details:
        return SocketMissingError(f"{socket} does not exist")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CallError(f"no response from {socket} within {deadline:.0f} s")
    return CallError(f"{details} ({error.code().name})")
