"""One call on a unix socket, bytes in and bytes out, on a channel of its own.

Own channels with an own connection pool: C-core otherwise shares connections and their back-off between channels of one
address, and a kubelet that was away a moment ago would stay unreachable for seconds.
"""

import errno
import os
from pathlib import Path

import grpc

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    # Answers of pod-resources on large nodes exceed gRPC's 4 MiB (contract 1.3).
    ("grpc.max_receive_message_length", 16 << 20),
)


class CallError(Exception):
    """A call that failed; the text is the other side's, or says why it could not be reached."""


async def call(socket: Path, path: str, request: bytes, *, deadline: float, wait: bool = False) -> bytes:
    """Return the answer to a call of the method ``path`` (``/service/Method``).

    With ``wait``, a socket on which nobody listens yet is waited for within the ``deadline`` (seconds).

    Raises:
        CallError: there was no answer, or it was an error.
    """
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        try:
            return await method(request, timeout=deadline, wait_for_ready=wait)
        except grpc.aio.AioRpcError as error:
            raise CallError(_describe_error(error, socket, deadline)) from error


def _describe_error(error: grpc.aio.AioRpcError, socket: Path, deadline: float) -> str:
    details = error.details() or "no details"
    if os.strerror(errno.ECONNREFUSED) in details:
        return f"nobody listens on {socket} (connection refused)"
    if os.strerror(errno.ENOENT) in details:
        return f"{socket} is not there"
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer from {socket} within {deadline:.0f} s"
    return f"{details} ({error.code().name})"
