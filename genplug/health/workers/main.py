"""A worker: a process of its own, without gRPC, that answers questions about the host and may hang while it does.

It is started as ``python -m genplug.health.workers.main ROOT STAND_INS THREADS PROGRESS`` with a socket as its standard
input, and ends when that is closed. A message is four bytes of length and what :mod:`marshal` makes of it: in come
``(number, [(question, seconds), ...])``, out go lists of ``(number, index, (answer, error))``. With one thread,
questions are answered in their order, and before each the worker writes into a shared page which one it is and since
when, so that who waits knows what it hangs on (:class:`Progress`).
"""

import marshal
import mmap
import os
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from genplug.hardware.host import Host
from genplug.health.probes import exec as exec_probe
from genplug.health.probes import file, http, open, pci, unix_socket  # noqa: A004 - the kinds are called so
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest

PROBE_FUNCTIONS: Mapping[str, Callable[[ProbeRequest, CachedFileReader, float], Any]] = {
    "file": file.run,
    "pci": pci.run,
    "open": open.run,
    "exec": exec_probe.run,
    "http": http.run,
    "unixSocket": unix_socket.run,
}
"""What answers the questions of each kind."""
LENGTH = struct.Struct("=I")
_FLUSH = 0.02
"""Seconds after which answers are sent although there are more to come."""


class Progress:
    """A page that a worker and who started it share: which question of which batch it is at, and since when."""

    _FORM = struct.Struct("=qqd")

    def __init__(self, descriptor: int) -> None:
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)

    def write(self, number: int, index: int) -> None:
        """Note that a question is begun."""
        self._FORM.pack_into(self._page, 0, number, index, time.monotonic())

    def read(self) -> tuple[int, int, float]:
        """Return the batch's number, the question's index and when it was begun (monotonic seconds)."""
        number, index, since = self._FORM.unpack_from(self._page, 0)
        return number, index, since

    def close(self) -> None:
        """Give the page back."""
        self._page.close()


def run_probe(question: ProbeRequest, eyes: CachedFileReader, timeout: float) -> tuple[Any, str]:
    """Answer a question; the second is why there is no answer, empty where there is one."""
    try:
        return PROBE_FUNCTIONS[question[0]](question, eyes, timeout), ""
    except OSError as error:
        return None, f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    except Exception as error:  # noqa: BLE001 - whatever went wrong with one question, the next is answered
        return None, f"{type(error).__name__}: {error}"


def main(root: str, stand_ins: str, threads: int, progress: Progress) -> None:
    """Answer until the other side closes."""
    host = Host(Path(root), stand_ins=stand_ins == "1")
    talk = socket.socket(fileno=0)
    if threads == 1:
        _serve_sequential(talk, CachedFileReader(host), progress)
    else:
        _serve_concurrent(talk, host, threads)


def _serve_sequential(talk: socket.socket, eyes: CachedFileReader, progress: Progress) -> None:
    while (message := _received(talk)) is not None:
        number, questions = message
        eyes.clear_cache()
        done: list[tuple[int, int, tuple[Any, str]]] = []
        flushed = time.monotonic()
        for index, (question, timeout) in enumerate(questions):
            progress.write(number, index)
            done.append((number, index, run_probe(question, eyes, timeout)))
            if (now := time.monotonic()) > flushed + _FLUSH:
                _send(talk, done)
                done, flushed = [], now
        progress.write(number, len(questions))
        _send(talk, done)


def _serve_concurrent(talk: socket.socket, host: Host, threads: int) -> None:
    waiting: queue.SimpleQueue[tuple[int, int, ProbeRequest, float]] = queue.SimpleQueue()
    lock = threading.Lock()

    def work() -> None:
        while True:
            number, index, question, timeout = waiting.get()
            done = (number, index, run_probe(question, CachedFileReader(host), timeout))
            with lock:
                _send(talk, [done])

    started = 0
    while (message := _received(talk)) is not None:
        number, questions = message
        for index, (question, timeout) in enumerate(questions):
            waiting.put((number, index, question, timeout))
            if started < threads:
                started += 1
                threading.Thread(target=work, daemon=True).start()


def _received(talk: socket.socket) -> Any:  # noqa: ANN401 - marshal's
    head = _bytes(talk, LENGTH.size)
    if head is None:
        return None
    body = _bytes(talk, LENGTH.unpack(head)[0])
    return marshal.loads(body) if body is not None else None  # noqa: S302 - from the process that started this one


def _bytes(talk: socket.socket, number: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < number:
        part = talk.recv(number - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


def _send(talk: socket.socket, done: Sequence[object]) -> None:
    if done:
        body = marshal.dumps(list(done))
        talk.sendall(LENGTH.pack(len(body)) + body)


if __name__ == "__main__":
    with suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Progress(int(sys.argv[4])))
    # Not the interpreter's own end: it would wait for what hangs.
    os._exit(0)
