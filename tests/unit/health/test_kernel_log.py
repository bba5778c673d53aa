"""The kernel log: what a record is, how the log is followed, and a log that cannot be read."""

import asyncio
import fcntl
import os
import re
import termios
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.health.kernel_log import KernelLog, LogRecord, parse_record

KMSG = Path("/dev/kmsg")


@pytest.mark.parametrize("priority", range(8))
def test_record_of_the_kernel_counts_at_any_level(priority: int) -> None:
    assert list(parse_record(b"%d,7,1,-;text\n" % priority)) == [LogRecord(7, "text")]


@pytest.mark.parametrize("facility", [1, 3, 4, 10, 16, 23])
def test_record_of_a_program_does_not_count(facility: int) -> None:
    assert list(parse_record(b"%d,7,1,-;NVRM: Xid (PCI:0000:3b:00): 79\n" % (facility << 3 | 6))) == []


@pytest.mark.parametrize(
    ("record", "lines"),
    [
        # A later kernel may add fields (Documentation/ABI/testing/dev-kmsg).
        (b"6,339,5140900,-,caller=T1;text\n", [LogRecord(339, "text")]),
        (b"6,1,0,-;\n", [LogRecord(1, "")]),
        (b"6,1,0,-; indented; and more\n", [LogRecord(1, " indented; and more")]),
        (b"6,1,0,-;text\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:02.0\n", [LogRecord(1, "text")]),
        (b"6,1,0,-;text\n 6,2,0,-;is the first line's\n", [LogRecord(1, "text")]),
        (b"6,1,0,c;a\n6,2,0,+;b\n", [LogRecord(1, "a"), LogRecord(2, "b")]),
        (b"6,1,0,-;no end", [LogRecord(1, "no end")]),
        (b"6,1,0,-;caf\xe9\n", [LogRecord(1, "caf\N{REPLACEMENT CHARACTER}")]),
        (b"", []),
        (b"\n\n", []),
        (b"no record at all\n", []),
        (b";text\n", []),
        (b"6,1;text\n", []),
        (b"6;text\n", []),
        (b"x,1,0,-;text\n", []),
        (b"6,x,0,-;text\n", []),
        (b"-6,1,0,-;text\n", []),
        (b"6,18446744073709551615,0,-;text\n", [LogRecord(18446744073709551615, "text")]),
        # int() raises a ValueError for more than 4300 digits.
        (b"6," + b"1" * 5000 + b",0,-;text\n", []),
        (b"1" * 5000 + b",1,0,-;text\n", []),
        ("6,\N{ARABIC-INDIC DIGIT ONE},0,-;text\n".encode(), []),
        (b"<6>text; of an old kernel\n", []),
    ],
)
def test_content_is_parsed_into_records(record: bytes, lines: list[LogRecord]) -> None:
    assert list(parse_record(record)) == lines


RECORDS = st.lists(st.builds("{},{},0,-;{}\n".format, st.integers(0, 40), st.integers(0, 10**6), st.text(max_size=20)))


@given(st.one_of(st.binary(max_size=60), RECORDS.map("".join).map(str.encode)))
def test_records_of_any_content_have_a_number_and_a_text_of_it(record: bytes) -> None:
    content = record.decode(errors="replace")
    numbers = {int(field) for field in re.split(r"[,;\s]", content) if field.isdecimal()}
    for line in parse_record(record):
        assert line.number in numbers
        assert line.text in content


class Fifo:
    """A log that a test writes: a pipe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def write(self, *records: str) -> None:
        for record in records:
            os.write(self._writer, f"{record}\n".encode())

    def unread(self) -> int:
        """The number of bytes that have not been read."""
        number = array("i", [0])
        fcntl.ioctl(self._writer, termios.FIONREAD, number)
        return number[0]

    def close(self) -> None:
        os.close(self._writer)


def records(*numbers: int) -> list[str]:
    return [f"4,{number},0,-;line {number}" for number in numbers]


def expected(*numbers: int) -> list[LogRecord]:
    return [LogRecord(number, f"line {number}") for number in numbers]


async def receive(queue: "asyncio.Queue[Sequence[LogRecord]]", count: int) -> list[LogRecord]:
    """Receive so many records."""
    got: list[LogRecord] = []
    while len(got) < count:
        got += await asyncio.wait_for(queue.get(), 10)
    return got


def unexpected() -> None:
    pytest.fail("the log can be read")


async def test_every_record_is_received_once_and_in_order(tmp_path: Path) -> None:
    log, queue = Fifo(tmp_path / "kmsg"), asyncio.Queue[Sequence[LogRecord]]()
    log.write(*records(1, 2), "30,3,0,-;systemd[1]: line 3", *records(4))
    follower = KernelLog(log.path, queue.put_nowait, unexpected)
    assert list(await follower.follow()) == expected(1, 2, 4)
    for number in range(5, 700):
        log.write(*records(number))
        await asyncio.sleep(0)
    assert await receive(queue, 695) == expected(*range(5, 700))
    assert follower.error == ""
    follower.close()
    log.close()


async def test_record_of_a_program_is_read_and_dropped(tmp_path: Path) -> None:
    log, queue = Fifo(tmp_path / "kmsg"), asyncio.Queue[Sequence[LogRecord]]()
    follower = KernelLog(log.path, queue.put_nowait, unexpected)
    assert await follower.follow() == ()
    log.write("30,1,0,-;systemd[1]: line 1")
    for _ in range(10):
        await asyncio.sleep(0)
    # It has been read, and nothing error of it.
    assert (log.unread(), queue.empty()) == (0, True)
    log.write(*records(2))
    assert await asyncio.wait_for(queue.get(), 10) == expected(2)
    follower.close()
    log.close()


async def test_existing_records_can_be_read_while_following(tmp_path: Path) -> None:
    log, queue = Fifo(tmp_path / "kmsg"), asyncio.Queue[Sequence[LogRecord]]()
    follower = KernelLog(log.path, queue.put_nowait, unexpected)
    # A pipe gives its content to the first reader only.
    log.write(*records(1))
    assert list(await follower.read_existing()) == expected(1)
    log.write(*records(2))
    assert list(await follower.follow()) == expected(2)
    log.write(*records(3))
    assert await receive(queue, 1) == expected(3)
    follower.close()
    log.close()


async def test_closed_follower_receives_nothing(tmp_path: Path) -> None:
    log, closed = Fifo(tmp_path / "kmsg"), asyncio.Queue[Sequence[LogRecord]]()
    follower = KernelLog(log.path, closed.put_nowait, unexpected)
    await follower.follow()
    follower.close()
    follower.close()
    queue = asyncio.Queue[Sequence[LogRecord]]()
    after = KernelLog(log.path, queue.put_nowait, unexpected)
    await after.follow()
    log.write(*records(1))
    assert await receive(queue, 1) == expected(1)
    assert closed.empty()
    after.close()
    log.close()


async def test_end_of_log_is_an_error_after_its_last_records(tmp_path: Path) -> None:
    log, queue, failed = Fifo(tmp_path / "kmsg"), asyncio.Queue[Sequence[LogRecord]](), asyncio.Queue[str]()
    follower = KernelLog(log.path, queue.put_nowait, lambda: failed.put_nowait(follower.error))
    await follower.follow()
    log.write(*records(1))
    log.close()
    assert await receive(queue, 1) == expected(1)
    error = "the kernel log (/dev/kmsg) cannot be read: No data available"
    assert await asyncio.wait_for(failed.get(), 10) == error
    assert (failed.empty(), follower.error) == (True, error)


async def test_missing_log_is_an_error(tmp_path: Path) -> None:
    follower = KernelLog(tmp_path / "kmsg", lambda _: unexpected(), unexpected)
    for read in (follower.follow, follower.read_existing):
        assert await read() == ()
        assert follower.error == "the kernel log (/dev/kmsg) cannot be read: No such file or directory"
    follower.close()


async def test_missing_permission_is_an_error_with_a_hint(tmp_path: Path) -> None:
    log = Fifo(tmp_path / "kmsg")
    log.path.chmod(0)
    follower = KernelLog(log.path, lambda _: unexpected(), unexpected)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        assert await follower.follow() == ()
    finally:
        if is_root:
            os.seteuid(0)
    why = "Permission denied; the agent needs the capability SYSLOG"
    assert follower.error == f"the kernel log (/dev/kmsg) cannot be read: {why}"
    log.close()


def link_to_null(path: Path) -> None:
    """Create the link that is often at this path where a node runs in a container."""
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, link_to_null], ids=["file", "directory", "null"])
async def test_file_that_is_not_a_log_is_an_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "kmsg")
    failed = asyncio.Event()
    follower = KernelLog(tmp_path / "kmsg", lambda _: unexpected(), failed.set)
    assert await follower.follow() == ()
    if not follower.error:
        await asyncio.wait_for(failed.wait(), 10)
    assert follower.error.startswith("the kernel log (/dev/kmsg) cannot be read: ")
    assert "SYSLOG" not in follower.error
    follower.close()


def real_log() -> int:
    """Open the kernel's log."""
    return os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK)


@pytest.mark.root
async def test_real_log_yields_exactly_the_records_of_the_kernel() -> None:
    file = real_log()
    follower = KernelLog(KMSG, lambda _: None, unexpected)
    existing = await follower.follow()
    follower.close()
    assert existing
    kernels: set[int] = set()
    while True:
        try:
            head = os.read(file, 1 << 14).split(b",", 2)
        except BrokenPipeError:
            # Some are overwritten by now.
            continue
        except BlockingIOError:
            break
        if int(head[0]) < 8:
            kernels.add(int(head[1]))
    os.close(file)
    both = range(max(min(kernels), existing[0].number), existing[-1].number + 1)
    assert [line.number for line in existing if line.number in both] == sorted(kernels & set(both))


@pytest.mark.root
async def test_real_log_can_be_read_again() -> None:
    os.close(real_log())
    log = KernelLog(KMSG, lambda _: None, unexpected)
    first, second = await log.read_existing(), await log.read_existing()
    known = {line.number: line.text for line in second}
    assert first
    assert {known.get(line.number, line.text) == line.text for line in first} == {True}
    assert second[-1].number >= first[-1].number
