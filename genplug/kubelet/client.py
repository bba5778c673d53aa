"""Call a gRPC method on a Unix socket, with the request and the response as bytes.

Each call has its own channel with its own connection pool. C-core otherwise shares a connection and its back-off
between all channels of one address, and a kubelet that was unreachable a moment ago would remain so for seconds.
"""

import errno
import os
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
    try:
        async with grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS) as channel:
            unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            return await unary(request, timeout=deadline)
    except grpc.aio.AioRpcError as error:
        raise _convert_error(error, socket, deadline) from error
    except Exception as error:
        # For example no descriptor or no thread for the connection. The library has no common type for its errors.
        raise SystemLimitError(f"the call to {socket} cannot be made: {error}") from error


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
