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
from itertools import islice

MAX_QUEUED_BYTES = 1 << 20
"""Bytes of lines that wait to be written. Further lines are dropped."""
FLUSH_SECONDS = 0.3
"""The time for which the end of the process waits for lines in the queue."""
MAX_WRITE_BYTES = select.PIPE_BUF
"""Bytes of lines that are written together: other processes do not write into them in a shared pipe (pipe(7))."""
PAUSE_SECONDS = 0.005
"""Seconds that the thread sleeps after it has written all lines. It would otherwise wake up for each line, and delay
the event loop each time."""
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
                lines = self._first_lines()
            is_written = self._write(b"".join(lines))
            with self._changed:
                for line in lines:
                    self._lines.popleft()
                    self._bytes -= len(line)
                self.dropped += 0 if is_written else len(lines)
                self._changed.notify_all()
                is_empty = not self._lines
                unreported = self.dropped - self._reported if is_written else 0
                self._reported += unreported
            if unreported:
                self._report_dropped(unreported)
            if is_empty:
                time.sleep(PAUSE_SECONDS)

    def _first_lines(self) -> list[bytes]:
        """Return the lines to write together, at least one."""
        lines = [self._lines[0]]
        size = len(lines[0])
        for line in islice(self._lines, 1, None):
            if (size := size + len(line)) > MAX_WRITE_BYTES:
                break
            lines.append(line)
        return lines

    def _write(self, text: bytes) -> bool:
        """Write lines, for as long as that takes; return whether they were written."""
        while text:
            try:
                text = text[os.write(self._descriptor, text) :]
            except BlockingIOError:
                # Another process has made the shared pipe non-blocking.
                select.select((), (self._descriptor,), (), _RETRY_SECONDS)
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
                    return False
                # A full file system may have space later; meanwhile the queue bounds the lines that wait.
                time.sleep(_RETRY_SECONDS)
        return True
