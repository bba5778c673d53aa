"""Writes the audit log in a thread, so that a file system that is full, read-only or hangs blocks no other part.

A log is a directory of files; the name of a file has the sequence number of its first record. Files are only appended
to, and the oldest are deleted. Records wait in a queue of limited size, and each is written until that succeeds.
Records that exceed the queue are refused; the caller counts them.
"""

import fcntl
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from genplug.audit.history import History
from genplug.audit.limits import Limits, Sync
from genplug.audit.reader import Problem, build_file_name, is_file_name, read_records
from genplug.audit.records import Assignment, RecordError, complete_line
from genplug.audit.steady_clock import SteadyClock, seconds_since_boot
from genplug.spec.limits import MAX_AUDIT_QUEUE_BYTES

HANG_SECONDS = 5.0
"""Seconds after which a file operation counts as hanging."""
SYNC_SECONDS = 1.0
"""Seconds between two calls of fdatasync with ``Sync.INTERVAL``."""
_RETRY_SECONDS = 1.0
"""Seconds before a failed operation is repeated, and before a thread is started again."""
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_FLAGS = os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Recovery(Struct, frozen=True):
    """The state that an earlier process left in the log.

    ``assignments`` have not ended in it. ``sequence`` is that of its last record, 0 without a record. With
    ``is_complete``, that record is the end of the agent. ``size`` (bytes) and ``began_at`` (seconds since the epoch, of
    its first record) are those of the newest file.
    """

    assignments: tuple[Assignment, ...] = ()
    sequence: int = 0
    is_complete: bool = True
    size: int = 0
    began_at: float | None = None


class DirectoryError(OSError):
    """The directory or a file in it must not be used; the text states why."""


class AuditWriter:
    """Writes records to a directory from a thread; ``on_open`` is called there once, when the log is open.

    ``began_at`` of files and :class:`Recovery` are in seconds since the epoch.
    """

    def __init__(self, directory: Path, limits: Limits, on_open: Callable[[Recovery], None]) -> None:
        self.written = 0
        """The number of records that were written since the start."""
        self._directory = directory
        self._limits = limits
        self._on_open = on_open
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._next_start = float("-inf")
        self._is_closing = False
        self._error = ""
        self._busy_since: float | None = None
        self._dir = -1
        self._file = -1
        self._sequence: int | None = None
        """The sequence number of the last record, None before the log was read."""
        self._unsynced_since: float | None = None
        self._clock = SteadyClock(limits.max_age)

    def __repr__(self) -> str:
        state = self.error or "writing"
        return f"<AuditWriter {self._directory} [{state} | {len(self._queue)} queued, {self.written} written]>"

    @property
    def error(self) -> str:
        """The reason for which records cannot be written now, empty if they can be."""
        busy_since = self._busy_since
        if busy_since is not None and time.monotonic() - busy_since > HANG_SECONDS:
            text = f"an operation in {self._directory} has not returned within {HANG_SECONDS:g} s"
            return f"{text}; does the file system respond?"
        return self._error

    @property
    def is_idle(self) -> bool:
        """Whether all records are written."""
        return not self._queue

    def start(self) -> None:
        """Start the thread, also after the system could not start it (cgroup limit pids.max)."""
        if self._thread is not None or time.monotonic() < self._next_start:
            return
        self._next_start = time.monotonic() + _RETRY_SECONDS
        thread = threading.Thread(target=self._run, name="genplug-audit", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._error = "no thread can be started; the limit of processes of the pod or the user is reached"
            return
        self._thread = thread

    def put(self, record: bytes, *, begins_file: bool = False, is_forced: bool = False) -> bool:
        """Add a record to the queue and return True, or return False if the queue is full; this does not block.

        With ``is_forced``, the limit of the queue does not apply.
        """
        self.start()
        with self._changed:
            if self._bytes + len(record) > MAX_AUDIT_QUEUE_BYTES and not is_forced:
                return False
            self._queue.append((record, begins_file))
            self._bytes += len(record)
            self._changed.notify_all()
        return True

    def close(self, seconds: float) -> None:
        """Wait until all records are written, for ``seconds`` at most, and end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self) -> None:
        while True:
            try:
                if self._file < 0:
                    self._open()
                    if not self._queue:
                        self._error = ""
                if not self._step():
                    break
            except OSError as error:
                self._error = self._describe(error)
                self._close_files()
                with self._changed:
                    if self._changed.wait_for(lambda: self._is_closing, _RETRY_SECONDS):
                        return
            finally:
                self._busy_since = None
        self._close_files()

    def _step(self) -> bool:
        """Write the next record, or sync; return whether there may be further work.

        Raises:
            OSError: the system refuses it.
        """
        with self._changed:
            timeout = None
            if self._unsynced_since is not None:
                timeout = max(self._unsynced_since + SYNC_SECONDS - time.monotonic(), 0)
            self._changed.wait_for(lambda: self._queue or self._is_closing, timeout)
            if not self._queue and self._is_closing:
                self._sync()
                return False
            record, begins_file = self._queue[0] if self._queue else (b"", False)
        self._busy_since = time.monotonic()
        if record:
            if begins_file or os.fstat(self._file).st_nlink == 0:
                self._begin_file()
            self._write(record)
            with self._changed:
                self._queue.popleft()
                self._bytes -= len(record)
        since = self._unsynced_since
        if since is not None and (self._limits.sync is Sync.ALWAYS or time.monotonic() >= since + SYNC_SECONDS):
            self._sync()
        self._busy_since = None
        self._error = ""
        return True

    def _write(self, record: bytes) -> None:
        """Append a record as a line. If that fails, the file does not contain a part of it, where possible.

        Raises:
            OSError: the system refuses it.
        """
        sequence = (self._sequence or 0) + 1
        line = complete_line(sequence, record)
        size = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError:
            # A file with the attribute "append only" cannot be truncated: then the next open ends the line.
            with suppress(OSError):
                os.ftruncate(self._file, size)
            raise
        self._sequence = sequence
        self.written += 1
        if self._limits.sync is not Sync.NEVER and self._unsynced_since is None:
            self._unsynced_since = time.monotonic()

    def _sync(self) -> None:
        if self._unsynced_since is not None:
            os.fdatasync(self._file)
            self._unsynced_since = None

    def _open(self) -> None:
        """Open the newest file of the log, or create the first; read what an earlier process left.

        Raises:
            OSError: the system refuses it, or another process may change the files.
        """
        self._busy_since = time.monotonic()
        with suppress(FileExistsError):
            self._directory.mkdir(0o700)
        self._dir = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        _check_owner(os.fstat(self._dir), str(self._directory))
        try:
            fcntl.flock(self._dir, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryError(f"another process writes the audit log in {self._directory}") from None
        names = self._list_names()
        if names:
            self._file = self._open_file(names[-1], os.O_RDWR)
            self._end_torn_line()
        if self._sequence is None:
            recovery = self._recover(names)
            self._sequence = recovery.sequence
            if not names:
                self._create_file()
            self._on_open(recovery)
        elif not names:
            self._create_file()
        self._delete_old_files()
        self._busy_since = None

    def _open_file(self, name: str, mode: int) -> int:
        descriptor = os.open(name, mode | _FLAGS, 0o600, dir_fd=self._dir)
        try:
            status = os.fstat(descriptor)
            path = str(self._directory / name)
            if not stat.S_ISREG(status.st_mode):
                raise DirectoryError(f"expected a regular file at {path}, found another type of file")
            _check_owner(status, path)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _begin_file(self) -> None:
        """Continue in a new file, and delete files that exceed the limits."""
        self._sync()
        os.close(self._file)
        self._file = -1
        named, opened = self._directory.lstat(), os.fstat(self._dir)
        if (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino):
            raise DirectoryError(f"{self._directory} was replaced; the audit log continues in the new directory")
        self._create_file()
        self._delete_old_files()

    def _create_file(self) -> None:
        name = build_file_name((self._sequence or 0) + 1)
        try:
            self._file = self._open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            # An earlier process has created it and ended before the first record.
            self._file = self._open_file(name, os.O_RDWR)
            self._end_torn_line()
        if self._limits.sync is not Sync.NEVER:
            os.fsync(self._dir)

    def _end_torn_line(self) -> None:
        """End an incomplete last line, so that the next record is a line of its own."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def _recover(self, names: tuple[str, ...]) -> Recovery:
        """Return what the last two files contain: each begins with the assignments of its time."""
        history = History()
        began_at: float | None = None
        for name in names[-2:]:
            began_at = None
            with os.fdopen(self._open_file(name, os.O_RDONLY), "rb") as file:
                for record in read_records(file, name):
                    if isinstance(record, Problem):
                        continue
                    began_at = record.time if began_at is None else began_at
                    self._clock.add_record(record.time)
                    with suppress(RecordError, ValueError):
                        for _ in history.apply(record):
                            pass
        if names and not history.sequence:
            # The files contain no record: the sequence continues after the name.
            history.sequence = int(names[-1][6:22]) - 1
        self._clock.begin(time.time(), seconds_since_boot())
        return Recovery(
            history.list_recovered(),
            history.sequence,
            history.is_stopped or not history.sequence,
            os.fstat(self._file).st_size if names else 0,
            began_at,
        )

    def _describe(self, error: OSError) -> str:
        if isinstance(error, DirectoryError):
            return str(error)
        return f"cannot write to {self._directory}: {error.strerror or error}"

    def _list_names(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in os.listdir(self._dir) if is_file_name(name)))  # noqa: PTH208 - a descriptor

    def _delete_old_files(self) -> None:
        *older, _ = self._list_names() or ("",)
        # A time that jumped forward must not make all files old.
        is_trusted = self._clock.is_trusted(time.time(), seconds_since_boot())
        oldest = time.time() - self._limits.max_age if is_trusted else 0.0
        for number, name in enumerate(older):
            is_excess = number < len(older) + 1 - self._limits.keep
            with suppress(FileNotFoundError):
                if is_excess or os.stat(name, dir_fd=self._dir, follow_symlinks=False).st_mtime < oldest:
                    os.unlink(name, dir_fd=self._dir)

    def _close_files(self) -> None:
        for descriptor in (self._file, self._dir):
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)
        self._file = self._dir = -1
        self._unsynced_since = None


def _check_owner(status: os.stat_result, path: str) -> None:
    """Raise DirectoryError unless only this user or root can change a file or directory."""
    if status.st_uid not in {0, os.geteuid()}:
        text = f"expected root or user {os.geteuid()} as the owner of {path}, found user {status.st_uid}"
        raise DirectoryError(f"{text}; run chown")
    if status.st_mode & _WRITABLE_BY_OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise DirectoryError(f"expected that only the owner can write to {path}, found mode {mode:o}; run chmod go-w")
