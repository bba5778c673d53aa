"""Writes the log in a thread, so that a reader of the log that does not read blocks no other part of the agent.

A write to a pipe blocks while the pipe is full, and a write to a file blocks while its file system does not respond.
Lines wait in a queue of limited size. Lines that exceed it are dropped and counted, and the log contains their number
as soon as it can be written again.
"""

import errno
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

MAX_QUEUED_BYTES = 1 << 20
"""Bytes of lines that wait to be written. Further lines are dropped."""
FLUSH_SECONDS = 0.3
"""The time for which the end of the process waits for lines in the queue."""
_RETRY_SECONDS = 1.0
"""Seconds before a write is repeated that the system refused, and before a thread is started again."""


class LogWriter(logging.Handler):
    """A handler that writes to a descriptor in a thread. ``report_dropped`` logs a number of dropped lines."""

    def __init__(self, descriptor: int, report_dropped: Callable[[int], None] = lambda _: None) -> None:
        super().__init__()
        self.dropped = 0
        """The number of lines that were dropped since the start."""
        self._descriptor = descriptor
        self._report_dropped = report_dropped
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._reported = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._next_start = float("-inf")

    def __repr__(self) -> str:
        return f"<LogWriter [{len(self._lines)} lines queued, {self.dropped} dropped]>"

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record to the queue; this does not block."""
        try:
            line = self.format(record).encode(errors="backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001 - as every handler
            self.handleError(record)
            return
        self._start()
        with self._changed:
            if self._bytes + len(line) > MAX_QUEUED_BYTES:
                self.dropped += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait for a short time until all lines are written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes, FLUSH_SECONDS)

    def _start(self) -> None:
        """Start the thread, also after the system could not start it (cgroup limit pids.max)."""
        if self._thread is not None or time.monotonic() < self._next_start:
            return
        self._next_start = time.monotonic() + _RETRY_SECONDS
        thread = threading.Thread(target=self._run, name="genplug-log", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return
        self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines[0]
            is_written = self._write(line)
            with self._changed:
                self._lines.popleft()
                self._bytes -= len(line)
                self.dropped += not is_written
                self._changed.notify_all()
                unreported = self.dropped - self._reported if is_written else 0
                self._reported += unreported
            if unreported:
                self._report_dropped(unreported)

    def _write(self, line: bytes) -> bool:
        """Write a line, for as long as that takes; return whether it was written."""
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:
                # Another process has made the shared pipe non-blocking.
                select.select((), (self._descriptor,), (), _RETRY_SECONDS)
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
                    return False
                # A full file system may have space later; meanwhile the queue bounds the lines that wait.
                time.sleep(_RETRY_SECONDS)
        return True
