"""A worker: a process without gRPC and without an event loop that runs probe requests, and that may hang.

:func:`run` is called with the arguments ROOT STAND_INS THREADS PROGRESS on the command line and a socket as the
standard input, and ends when the other end closes the socket (:mod:`genplug.health.workers.protocol`).

With one thread, a worker runs requests in their order, and writes the current request and its start to the shared page,
so that the pool can identify the request in which it hangs.
With more threads, requests run concurrently, and each request ends by itself at its timeout.

Each worker pays for its imports in memory: a worker with one thread imports neither socket nor threading.
"""

import os
import sys
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from genplug.lean_imports import hide_modules, postpone_patterns, replace_modules, use_builtin_datetime

# msgspec imports the types that it can encode, uuid the name of the system, and pathlib the modules for URLs and for
# paths of Windows.
_UNUSED = ("decimal", "platform", "urllib.parse", "ntpath", "msgspec.inspect", "msgspec._json_schema")
# msgspec uses typing_extensions, and uuid its accelerator, only if they exist.
with hide_modules("typing_extensions", "_uuid"), replace_modules(*_UNUSED), use_builtin_datetime(), postpone_patterns():
    from pathlib import Path

    from genplug.hardware.host import Host
    from genplug.health.probes import PROBES, READ_KINDS
    from genplug.health.workers.file_reader import CachedFileReader
    from genplug.health.workers.protocol import (
        ProbeRequest,
        Progress,
        RequestResult,
        TimedRequest,
        receive,
        send,
    )

_CONNECTION = 0
"""The descriptor of the socket, the standard input."""
_FLUSH_SECONDS = 0.02
"""Time after which results of an incomplete batch are sent."""


def run_request(request: ProbeRequest, reader: CachedFileReader, timeout: float) -> tuple[Any, str]:
    """Run a request; return its answer, and an error that is empty if there is an answer."""
    try:
        polling = PROBES[request[0]].polling
        if polling is None:
            return None, f"probes of kind {request[0]!r} are not run"
        return polling.run(request, reader, timeout), ""
    except OSError as error:
        return None, f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    except Exception as error:  # noqa: BLE001 - after any error, the next request is run
        return None, f"{type(error).__name__}: {error}"


def run() -> None:
    """Run the worker, and end the process."""
    root, stand_ins, threads, progress = sys.argv[1:]
    with suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        main(root, stand_ins, int(threads), Progress(int(progress)))
    # A return would make the interpreter wait for threads that hang.
    os._exit(0)


def main(root: str, stand_ins: str, threads: int, progress: Progress) -> None:
    """Run requests until the other end closes the socket."""
    host = Host(Path(root), stand_ins=stand_ins == "1")
    # Kinds are imported at the start: an import during a request would count against the timeout of the request.
    # subprocess uses the locale for texts only, and programs write bytes.
    with replace_modules("locale"), postpone_patterns():
        for key in READ_KINDS if threads == 1 else PROBES:
            PROBES[key]
    if threads == 1:
        progress.write(0, 0, time.monotonic())
        _serve_sequential(CachedFileReader(host), progress)
        return
    from genplug.health.workers.sessions import kill_session  # noqa: PLC0415 - only for a worker with threads

    progress.write(0, 0, time.monotonic())
    try:
        _serve_concurrent(host, threads)
    finally:
        # The agent has ended, possibly without the time to end the programs.
        kill_session(os.getpid())


def _serve_sequential(reader: CachedFileReader, progress: Progress) -> None:
    kept: dict[int, _Batch] = {}
    while (message := receive(_CONNECTION)) is not None:
        number, key, requests = message
        batch = kept[key] if requests is None else _Batch(requests)
        if key:
            kept[key] = batch
        reader.start_batch()
        _run_batch(number, batch, reader, progress)


class _Batch:
    """Requests with the hashes of their last results; the results themselves would need 270 bytes each."""

    def __init__(self, requests: Sequence[TimedRequest]) -> None:
        self.requests = [request for request, _ in requests]
        self.timeouts = array("d", [timeout for _, timeout in requests])
        # The interpreter has no hash of -1, so the first results are changes.
        self.hashes = array("q", [-1]) * len(requests)


def _run_batch(number: int, batch: _Batch, reader: CachedFileReader, progress: Progress) -> None:
    """Run the requests of a batch, and send the results that have changed since the previous run of the batch."""
    results: list[RequestResult] = []
    hashes = batch.hashes
    flushed = now = time.monotonic()
    for index, request in enumerate(batch.requests):
        began = now
        progress.write(number, index, began)
        result = run_request(request, reader, batch.timeouts[index])
        now = time.monotonic()
        result_hash = hash(result)
        # The agent waits for the result of a request that is slow.
        if result_hash != hashes[index] or now > began + _FLUSH_SECONDS:
            hashes[index] = result_hash
            results.append((number, index, result))
        if now > flushed + _FLUSH_SECONDS:
            send(_CONNECTION, [*results, (number, index + 1, None)])
            results, flushed = [], now
    progress.write(number, len(batch.requests), now)
    send(_CONNECTION, [*results, (number, len(batch.requests), None)])


def _serve_concurrent(host: Host, max_threads: int) -> None:
    import queue  # noqa: PLC0415 - only for a worker with threads
    import threading  # noqa: PLC0415 - only for a worker with threads

    waiting: queue.SimpleQueue[tuple[int, int, ProbeRequest, float]] = queue.SimpleQueue()
    lock = threading.Lock()

    def work() -> None:
        while True:
            number, index, request, timeout = waiting.get()
            result = (number, index, run_request(request, CachedFileReader(host), timeout))
            with lock:
                send(_CONNECTION, [result])

    threads = 0
    while (batch := receive(_CONNECTION)) is not None:
        number, _, requests = batch
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
