"""The kernel's log: what the ring buffer holds, and what comes (Documentation/ABI/testing/dev-kmsg)."""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import frozen

PATH = "/dev/kmsg"
_MAX_BYTES = 1 << 14
"""More than any record has (CONSOLE_EXT_LOG_MAX is 8 KiB): of one that does not fit, the kernel gives nothing."""
_MAX_RECORDS = 500
"""Records taken before the loop's other work gets its turn."""
_KERNEL = 0


@frozen
class LogRecord:
    """One message of the kernel's own. ``number`` counts through since the machine started."""

    number: int
    text: str


def parse_record(record: bytes) -> Iterator[LogRecord]:
    """Yield the kernel's messages of what was read at once; what programs wrote into the log is left out."""
    for raw in record.decode(errors="replace").splitlines():
        head, semicolon, text = raw.partition(";")
        fields = head.split(",")
        # What follows a message on lines of its own (its device) begins with a space.
        if not semicolon or raw.startswith(" ") or not all(one.isdecimal() for one in fields[:2]) or len(fields) < 3:  # noqa: PLR2004
            continue
        if int(fields[0]) >> 3 == _KERNEL:
            yield LogRecord(int(fields[1]), text)


class KernelLog:
    """Follows the log at ``path``. It belongs to the loop that it is made in.

    ``heard`` is called in the loop with what comes; ``failure`` is why nothing can be read, empty where it can.
    """

    def __init__(self, path: Path, heard: Callable[[Sequence[LogRecord]], None], failed: Callable[[], None]) -> None:
        self.failure = ""
        self._path, self._heard, self._failed = path, heard, failed
        self._loop = asyncio.get_running_loop()
        self._file: int | None = None

    async def follow(self) -> tuple[LogRecord, ...]:
        """Open the log, return what it holds, and hear from now on."""
        self._file = self._open()
        if self._file is None:
            return ()
        held = await asyncio.to_thread(_all, self._file)
        try:
            if self._file is not None:
                self._loop.add_reader(self._file, self._read)
        except OSError as error:
            # A file or a directory stands there, of which nobody tells when there is more.
            os.close(self._file)
            self._file = None
            self._fail(error)
            return ()
        return held

    async def read_existing(self) -> tuple[LogRecord, ...]:
        """Return once more what the log holds."""
        file = self._open()
        if file is None:
            return ()
        try:
            return await asyncio.to_thread(_all, file)
        finally:
            os.close(file)

    def close(self) -> None:
        """Stop; nothing is called any more."""
        if self._file is not None:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = None

    def _open(self) -> int | None:
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._fail(error)
            return None
        return file

    def _fail(self, error: OSError) -> None:
        hint = "; the pod has to be privileged for it" if error.errno in {errno.EPERM, errno.EACCES} else ""
        self.failure = f"the kernel's log ({PATH}) cannot be read: {os.strerror(error.errno or 0)}{hint}"

    def _read(self) -> None:
        lines: list[LogRecord] = []
        for _ in range(_MAX_RECORDS):
            try:
                record = _record(self._file) if self._file is not None else None
            except OSError as error:
                self.close()
                self._fail(error)
                self._failed()
                break
            if record is None:
                break
            lines += parse_record(record)
        if lines:
            self._heard(lines)


def _all(file: int) -> tuple[LogRecord, ...]:
    lines: list[LogRecord] = []
    try:
        while (record := _record(file)) is not None:
            lines += parse_record(record)
    except OSError:
        # Whoever follows it will meet this too, and say so.
        pass
    return tuple(lines)


def _record(file: int) -> bytes | None:
    """Return the next record; None where there is none yet.

    Raises:
        OSError: the log cannot be read.
    """
    while True:
        try:
            record = os.read(file, _MAX_BYTES)
        except BlockingIOError:
            return None
        except BrokenPipeError:
            # Some were overwritten before they were read; the next is the oldest that is left.
            continue
        if not record:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return record
