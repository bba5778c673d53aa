"""Reads the kernel log by syslog(2), where /dev/kmsg cannot be opened.

The device cgroup of a container without privileges denies /dev/kmsg. syslog(2) has no device: it needs the capability
SYSLOG, or nothing if ``kernel.dmesg_restrict`` is 0 (``check_syslog_permissions`` in kernel/printk/printk.c).

The action SYSLOG_ACTION_READ_ALL returns the last records as text and does not consume them, unlike
SYSLOG_ACTION_READ. It cannot wait for records, so the log is read every second, and new lines are those after the last
known lines. The kernel writes the time of a record (``printk.time``) at the begin of each line, which makes lines
distinct.
"""

import asyncio
import ctypes
import errno
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from genplug.health.kernel_log import FACILITY_KERNEL, MAX_RECORDS_PER_TURN, PATH, LogRecord
from genplug.spec.limits import MAX_KERNEL_LOG_BYTES, MAX_KERNEL_LOG_POLL_BYTES

POLL_SECONDS = 1.0
"""Time between two reads of the log."""
_READ_ALL, _SIZE_BUFFER = 3, 10
"""SYSLOG_ACTION_READ_ALL and SYSLOG_ACTION_SIZE_BUFFER (include/linux/syslog.h)."""
_KMSG_NUMBERS = (1, 11)
"""Major and minor number of /dev/kmsg (Documentation/admin-guide/devices.txt)."""
_ANCHOR_BYTES = 1 << 10
"""Bytes of the last known lines by which the position in the log is found again."""
_LINE = re.compile(rb"<(\d{1,10})>(\[ *\d+\.\d+\])?(?:\[ *[CT]\d+\])? ?(.*)", re.DOTALL)
"""A line: facility and level, the time, the caller (CONFIG_PRINTK_CALLER), the text (``info_print_prefix``)."""
_ESCAPED = re.compile(rb"[^ -~]|\\")
NO_TIME = (
    "has no times, because the kernel parameter printk.time is off; without /dev/kmsg, genplug cannot distinguish new "
    "lines then: write Y to /sys/module/printk/parameters/time of the host"
)


class LogCursor(Struct):
    """The position in the log: the last known lines, and the number of the next line. Lines are numbered from 0."""

    next_number: int = 0
    anchor: bytes = b""

    def contains_position(self, content: bytes) -> bool:
        """Return whether the last known lines are in the content of a read."""
        return self.anchor in content

    def advance(self, content: bytes) -> tuple[tuple[LogRecord, ...], bool]:
        """Move to the end of the content of a read; return the new records of the kernel, and whether lines were lost.

        Lines are lost if the last known lines are not in the content: the kernel has overwritten them, or a program has
        cleared the log. All lines of the content are new then.

        Raises:
            OSError: the lines have no times.
        """
        if not content:
            return (), False
        new = self._cut_known(content)
        lines = split_lines(content if new is None else new)
        records = parse_lines(lines, self.next_number)
        self.next_number += len(lines)
        self.anchor = cut_anchor(content)
        return records, new is None

    def _cut_known(self, content: bytes) -> bytes | None:
        """Return the content after the last known lines, or None if they are not in the content."""
        if self.anchor in content:
            return content[content.index(self.anchor) + len(self.anchor) :] if self.anchor else content
        # The kernel may have overwritten all known lines except the last.
        last = self.anchor[self.anchor.rstrip(b"\n").rfind(b"\n") + 1 :]
        return content[content.rindex(last) + len(last) :] if last in content else None

    def number_existing(self, content: bytes) -> tuple[LogRecord, ...]:
        """Return all records of the kernel in the content of the read to whose end the cursor was moved."""
        lines = split_lines(content)
        return parse_lines(lines, self.next_number - len(lines))


def split_lines(content: bytes) -> list[bytes]:
    """Return the lines of the content of a read; each line of a multi-line record has the prefix of the record."""
    return [line for line in content.split(b"\n") if line]


def cut_anchor(content: bytes) -> bytes:
    """Return the last whole lines of the content of a read, up to a limit, or the last line."""
    if len(content) <= _ANCHOR_BYTES:
        return content
    start = content.find(b"\n", len(content) - _ANCHOR_BYTES - 1) + 1
    if start >= len(content) - 1 or start == 0:
        start = content.rstrip(b"\n").rfind(b"\n") + 1
    return content[start:]


def parse_lines(lines: Sequence[bytes], first_number: int) -> tuple[LogRecord, ...]:
    """Return the records of the kernel among lines; records that programs wrote are left out.

    The text is escaped as in /dev/kmsg (``msg_add_ext_text``), so that the same expressions match.

    Raises:
        OSError: a line has no time.
    """
    records = []
    for number, line in enumerate(lines, first_number):
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        if found[2] is None:
            raise OSError(errno.EINVAL, NO_TIME)
        if int(found[1]) >> 3 == FACILITY_KERNEL:
            text = _ESCAPED.sub(lambda part: b"\\x%02x" % part[0][0], found[3])
            records.append(LogRecord(number, text.decode("ascii")))
    return tuple(records)


def read_buffer(max_bytes: int) -> bytes:
    """Return the last records of the kernel log as text, whole records up to a limit.

    Raises:
        OSError: the process has no permission, or the kernel has no log.
    """
    size = _call_syslog(_SIZE_BUFFER, None, 0)
    # The text of the records has a prefix, which the buffer of the kernel does not contain.
    buffer = ctypes.create_string_buffer(min(max_bytes, 2 * size))
    length = _call_syslog(_READ_ALL, buffer, len(buffer))
    return ctypes.string_at(buffer, length)


def is_kernel_log(path: Path) -> bool:
    """Return whether the device node at a path is that of the kernel log."""
    try:
        info = path.stat()
    except OSError:
        return False
    return stat.S_ISCHR(info.st_mode) and (os.major(info.st_rdev), os.minor(info.st_rdev)) == _KMSG_NUMBERS


def is_open_denied(path: Path) -> bool:
    """Return whether this process has no permission to open the device node at a path."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _call_syslog(action: int, buffer: "ctypes.Array[ctypes.c_char] | None", length: int) -> int:
    """Call syslog(2) and return its result.

    Raises:
        OSError: the call failed.
    """
    library = ctypes.CDLL(None, use_errno=True)
    result = int(library.klogctl(ctypes.c_int(action), buffer, ctypes.c_int(length)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class KernelLogBuffer:
    """Follows the kernel log in the running event loop, like :class:`genplug.health.kernel_log.KernelLog`.

    ``on_gap`` is called when lines were lost between two reads. ``period`` is the time between two reads in seconds.
    """

    def __init__(
        self,
        on_records: Callable[[Sequence[LogRecord]], None],
        on_error: Callable[[], None],
        on_gap: Callable[[], None],
        period: float = POLL_SECONDS,
    ) -> None:
        self.error = ""
        self.records_per_turn = MAX_RECORDS_PER_TURN
        self._on_records, self._on_error, self._on_gap = on_records, on_error, on_gap
        self._period = period
        self._cursor = LogCursor()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def follow(self) -> tuple[LogRecord, ...]:
        """Return the existing records of the log, and follow it from then on."""
        try:
            existing = await self._read_all()
        except OSError as error:
            self._set_error(error)
            return ()
        self._task = asyncio.get_running_loop().create_task(self._poll(), name="kernel log")
        return existing

    async def read_existing(self) -> tuple[LogRecord, ...]:
        """Return the existing records of the log again."""
        try:
            return await self._read_all()
        except OSError as error:
            self._set_error(error)
            return ()

    def close(self) -> None:
        """Stop following the log; the callbacks are not called any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _read_all(self) -> tuple[LogRecord, ...]:
        async with self._lock:
            content = await asyncio.to_thread(read_buffer, MAX_KERNEL_LOG_BYTES)
            new, has_gap = self._cursor.advance(content)
            existing = self._cursor.number_existing(content)
        if self._task is not None:
            await self._deliver(new, has_gap=has_gap)
        return existing

    async def _poll(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._period)
                async with self._lock:
                    content = await asyncio.to_thread(read_buffer, MAX_KERNEL_LOG_POLL_BYTES)
                    if not self._cursor.contains_position(content):
                        content = await asyncio.to_thread(read_buffer, MAX_KERNEL_LOG_BYTES)
                    new, has_gap = self._cursor.advance(content)
                await self._deliver(new, has_gap=has_gap)
        except OSError as error:
            self._task = None
            self._set_error(error)
            self._on_error()

    async def _deliver(self, records: Sequence[LogRecord], *, has_gap: bool) -> None:
        if has_gap:
            self._on_gap()
        for start in range(0, len(records), self.records_per_turn):
            self._on_records(records[start : start + self.records_per_turn])
            await asyncio.sleep(0)

    def _set_error(self, error: OSError) -> None:
        if error.strerror == NO_TIME:
            self.error = f"the kernel log {NO_TIME}"
        elif error.errno == errno.EPERM:
            self.error = (
                f"the kernel log ({PATH} and syslog) cannot be read: Operation not permitted; the container needs the "
                "capability SYSLOG (in the chart: daemonset.kernelLog), and its seccomp profile has to allow syslog"
            )
        else:
            self.error = f"the kernel log (syslog) cannot be read: {error.strerror}"
