"""The kernel log: the records in its ring buffer, and new records (Documentation/ABI/testing/dev-kmsg)."""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

PATH = "/dev/kmsg"
_MAX_RECORD_BYTES = 1 << 14
"""More than a record can have (CONSOLE_EXT_LOG_MAX is 8 KiB): the kernel does not return a part of a record."""
MAX_RECORDS_PER_TURN = 500
"""Records that are read before the event loop does other work."""
FACILITY_KERNEL = 0
"""The facility of the kernel's own records (``LOG_KERN``)."""
_MAX_NUMBER_DIGITS = 20
"""Digits of the largest number of 64 bits, the type of the number of a record."""
_MIN_FIELDS = 3
"""Fields before the text of a record: level and facility, number, time."""


class LogRecord(Struct, frozen=True):
    """A record that the kernel itself has logged. ``number`` counts the records since the machine started."""

    number: int
    text: str


def parse_record(content: bytes) -> Iterator[LogRecord]:
    """Yield the kernel's records in the content of one read; records that programs wrote are left out."""
    for line in content.decode(errors="replace").splitlines():
        head, semicolon, text = line.partition(";")
        fields = head.split(",")
        # Lines that start with a space are properties of the previous record, such as its device.
        if not semicolon or line.startswith(" ") or len(fields) < _MIN_FIELDS:
            continue
        if all(map(_is_number, fields[:2])) and int(fields[0]) >> 3 == FACILITY_KERNEL:
            yield LogRecord(int(fields[1]), text)


def _is_number(field: str) -> bool:
    # int() raises a ValueError for thousands of digits.
    return field.isdecimal() and field.isascii() and len(field) <= _MAX_NUMBER_DIGITS


class KernelLog:
    """Follows the log at ``path`` in the running event loop.

    ``on_records`` is called in the loop with new records, ``on_error`` when the log can no longer be read, and
    ``on_gap`` when the kernel has overwritten records before they were read. ``error`` is the reason, empty while the
    log can be read.
    """

    def __init__(
        self,
        path: Path,
        on_records: Callable[[Sequence[LogRecord]], None],
        on_error: Callable[[], None],
        on_gap: Callable[[], None] = lambda: None,
    ) -> None:
        self.error = ""
        self.records_per_turn = MAX_RECORDS_PER_TURN
        """The number of records after which the event loop does other work; evaluations take time."""
        self._path, self._on_records, self._on_error, self._on_gap = path, on_records, on_error, on_gap
        self._loop = asyncio.get_running_loop()
        self._file: int | None = None

    async def follow(self) -> tuple[LogRecord, ...]:
        """Open the log, return its existing records, and follow it from then on."""
        self._file = self._open()
        if self._file is None:
            return ()
        existing = await asyncio.to_thread(_read_all, self._file)
        try:
            if self._file is not None:
                self._loop.add_reader(self._file, self._read_new)
        except OSError as error:
            os.close(self._file)
            self._file = None
            self._set_error(error, "cannot be read: it is not a character device" if error.errno == errno.EPERM else "")
            return ()
        return existing

    async def read_existing(self) -> tuple[LogRecord, ...]:
        """Return the existing records of the log again."""
        file = self._open()
        if file is None:
            return ()
        try:
            return await asyncio.to_thread(_read_all, file)
        finally:
            os.close(file)

    def close(self) -> None:
        """Stop following the log; the callbacks are not called any more."""
        if self._file is not None:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = None

    def _open(self) -> int | None:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._set_error(error)
            return None

    def _set_error(self, error: OSError, reason: str = "") -> None:
        if not reason:
            reason = f"cannot be read: {os.strerror(error.errno or 0)}"
            is_denied = error.errno in {errno.EPERM, errno.EACCES}
            reason += "; the agent needs the capability SYSLOG" if is_denied else ""
        self.error = f"the kernel log ({PATH}) {reason}"

    def _read_new(self) -> None:
        records: list[LogRecord] = []
        for _ in range(self.records_per_turn):
            try:
                content = _read_one(self._file, self._on_gap) if self._file is not None else None
            except OSError as error:
                self.close()
                self._set_error(error)
                self._on_error()
                break
            if content is None:
                break
            records += parse_record(content)
        if records:
            self._on_records(records)


def _read_all(file: int) -> tuple[LogRecord, ...]:
    records: list[LogRecord] = []
    try:
        while (content := _read_one(file)) is not None:
            records += parse_record(content)
    except OSError:
        # Following the log has the same error, and reports it.
        pass
    return tuple(records)


def _read_one(file: int, on_gap: Callable[[], None] = lambda: None) -> bytes | None:
    """Return the next record, or None if there is none yet; call ``on_gap`` if records were lost.

    Raises:
        OSError: the log cannot be read.
    """
    while True:
        try:
            content = os.read(file, _MAX_RECORD_BYTES)
        except BlockingIOError:
            return None
        except BrokenPipeError:
            # Records were overwritten before they were read; the next record is the oldest that exists.
            on_gap()
            continue
        if not content:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return content
