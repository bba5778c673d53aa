"""Messages between the agent and its worker processes, and the page on which a worker reports its progress.

A message is a header of four bytes, the length of the body, and the body, a marshaled value.
Both ends run the same interpreter, as :mod:`marshal` requires, and the module costs a worker no memory.

The agent sends batches: ``(number, key, [(request, timeout_seconds), ...])``.
A worker sends lists of results: ``[(number, index, (answer, error)), ...]``. The results of a batch may arrive in
several messages.

A worker with one thread keeps the newest batch of each ``key``, except for the key 0. The agent then sends
``(number, key, None)`` to run the batch again, and the worker leaves out results that have not changed. The result
``(number, stop, None)`` means that the requests before the index ``stop`` have been run.
"""

import marshal
import mmap
import os
import struct
from typing import Any, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

ProbeRequest: TypeAlias = tuple[str, ...]
"""The name of a probe kind (``genplug.health.probes.PROBES``) and its arguments.

Equal requests of several devices are sent to a worker once.
"""

TimedRequest: TypeAlias = tuple[ProbeRequest, float]
"""A request and its timeout in seconds."""


class ResourceRequest(Protocol):
    """A request, its timeout in seconds, and the resource for which it runs."""

    @property
    def request(self) -> ProbeRequest: ...  # noqa: D102

    @property
    def timeout(self) -> float: ...  # noqa: D102

    @property
    def resource(self) -> str: ...  # noqa: D102


class PoolRequest(NamedTuple):
    """A request, its timeout in seconds, and the resource for which it runs."""

    request: ProbeRequest
    timeout: float
    resource: str = ""


RequestResult: TypeAlias = tuple[int, int, tuple[Any, str] | None]
"""The number of a batch, the index of a request in it, and the answer and error that make a :class:`ProbeResponse`.

With None, the index is the first one that has not been run yet.
"""

HEADER = struct.Struct("=I")


class ProbeResponse(Struct, frozen=True):
    """The answer to a request, in the form of its probe kind, or the reason why there is none."""

    answer: Any = None
    error: str = ""


class Progress:
    """A memory page shared with a worker: the request and batch that it runs, and the start of the run.

    A worker that has started and does not run a request yet is at request 0 of batch 0.
    """

    _FORMAT = struct.Struct("=qqd")

    def __init__(self, descriptor: int) -> None:
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)

    def write(self, number: int, index: int, now: float) -> None:
        """Record that a request of a batch begins now (monotonic seconds)."""
        self._FORMAT.pack_into(self._page, 0, number, index, now)

    def read(self) -> tuple[int, int, float]:
        """Return the number of the batch, the index of the request, and its start (monotonic seconds)."""
        number, index, since = self._FORMAT.unpack_from(self._page, 0)
        return number, index, since

    @property
    def started_at(self) -> float:
        """When the worker wrote last (monotonic seconds), 0 before it has started. One with threads writes once."""
        return self.read()[2]

    @property
    def has_started(self) -> bool:
        """Whether the worker has written anything."""
        return self.started_at > 0

    def close(self) -> None:
        """Unmap the page."""
        self._page.close()


def encode(message: Any) -> bytes:  # noqa: ANN401 - any value that marshal supports
    """Return a message with its header."""
    body = marshal.dumps(message)
    return HEADER.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """Return the length of the body in bytes."""
    length: int = HEADER.unpack(header)[0]
    return length


def decode(body: bytes) -> Any:  # noqa: ANN401 - the type depends on the message
    """Return the value in a body."""
    return marshal.loads(body)  # noqa: S302 - the other end is genplug itself


def send(descriptor: int, message: Any) -> None:  # noqa: ANN401 - any value that marshal supports
    """Write a message to a blocking socket."""
    data = memoryview(encode(message))
    while data:
        data = data[os.write(descriptor, data) :]


def receive(descriptor: int) -> Any:  # noqa: ANN401 - see decode
    """Return the next message from a blocking socket, or None if the other end has closed it."""
    header = _receive_bytes(descriptor, HEADER.size)
    if header is None:
        return None
    body = _receive_bytes(descriptor, body_length(header))
    return decode(body) if body is not None else None


def _receive_bytes(descriptor: int, length: int) -> bytes | None:
    received = bytearray()
    while len(received) < length:
        part = os.read(descriptor, length - len(received))
        if not part:
            return None
        received += part
    return bytes(received)
