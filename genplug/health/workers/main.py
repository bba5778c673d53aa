"""A worker: a process without gRPC and without an event loop that runs probe requests, and that may hang.

It is started as ``python -m genplug.health.workers.main ROOT STAND_INS THREADS PROGRESS`` with a socket as its standard
input, and ends when the other end closes the socket (:mod:`genplug.health.workers.protocol`).

With one thread, a worker runs requests in their order, and writes the current request and its start to the shared page,
so that the pool can identify the request in which it hangs.
With more threads, requests run concurrently, and each request ends by itself at its timeout.
"""

import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from genplug.hardware.host import Host
from genplug.health.probes import PROBES
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest, Progress, RequestResult, encode, receive
from genplug.health.workers.sessions import kill_session

_KINDS = dict(PROBES)
"""All kinds, imported at the start: an import during a request would count against the timeout of the request."""
_FLUSH_SECONDS = 0.02
"""Time after which results of an incomplete batch are sent."""


def run_request(request: ProbeRequest, reader: CachedFileReader, timeout: float) -> tuple[Any, str]:
    """Run a request; return its answer, and an error that is empty if there is an answer."""
    try:
        polling = _KINDS[request[0]].polling
        if polling is None:
            return None, f"probes of kind {request[0]!r} are not run"
        return polling.run(request, reader, timeout), ""
    except OSError as error:
        return None, f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    except Exception as error:  # noqa: BLE001 - after any error, the next request is run
        return None, f"{type(error).__name__}: {error}"


def main(root: str, stand_ins: str, threads: int, progress: Progress) -> None:
    """Run requests until the other end closes the socket."""
    host = Host(Path(root), stand_ins=stand_ins == "1")
    connection = socket.socket(fileno=0)
    progress.write(0, 0)
    if threads == 1:
        _serve_sequential(connection, CachedFileReader(host), progress)
    else:
        try:
            _serve_concurrent(connection, host, threads)
        finally:
            # The agent has ended, possibly without the time to end the programs.
            kill_session(os.getpid())


def _serve_sequential(connection: socket.socket, reader: CachedFileReader, progress: Progress) -> None:
    while (batch := receive(connection)) is not None:
        number, requests = batch
        reader.start_batch()
        results: list[RequestResult] = []
        flushed = time.monotonic()
        for index, (request, timeout) in enumerate(requests):
            progress.write(number, index)
            results.append((number, index, run_request(request, reader, timeout)))
            if (now := time.monotonic()) > flushed + _FLUSH_SECONDS:
                _send(connection, results)
                results, flushed = [], now
        progress.write(number, len(requests))
        _send(connection, results)


def _serve_concurrent(connection: socket.socket, host: Host, max_threads: int) -> None:
    waiting: queue.SimpleQueue[tuple[int, int, ProbeRequest, float]] = queue.SimpleQueue()
    lock = threading.Lock()

    def work() -> None:
        while True:
            number, index, request, timeout = waiting.get()
            result = (number, index, run_request(request, CachedFileReader(host), timeout))
            with lock:
                _send(connection, [result])

    threads = 0
    while (batch := receive(connection)) is not None:
        number, requests = batch
        for index, (request, timeout) in enumerate(requests):
            waiting.put((number, index, request, timeout))
            if threads < max_threads:
                try:
                    threading.Thread(target=work, daemon=True).start()
                except RuntimeError:
                    # The limit of processes is reached (pids.max): an existing thread runs the request later.
                    if not threads:
                        raise
                else:
                    threads += 1


def _send(connection: socket.socket, results: Sequence[RequestResult]) -> None:
    if results:
        connection.sendall(encode(list(results)))


if __name__ == "__main__":
    with suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Progress(int(sys.argv[4])))
    # A return would make the interpreter wait for threads that hang.
    os._exit(0)
