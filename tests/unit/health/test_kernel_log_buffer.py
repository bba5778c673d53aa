"""The kernel log by syslog(2): lines, the position in the log, lost lines, and the log of this machine."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.health.kernel_log import KernelLog, LogRecord
from genplug.health.kernel_log_buffer import (
    KernelLogBuffer,
    LogCursor,
    cut_anchor,
    is_kernel_log,
    is_open_denied,
    parse_lines,
    read_buffer,
)
from genplug.spec.limits import MAX_KERNEL_LOG_BYTES
from tests.support.kernel_log import KMSG, crash, log_program, make_name, needs_crash_log
from tests.support.pages import ROOT


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"<6>[    0.000000] Linux version 6.1", "Linux version 6.1"),
        (b"<3>[12345.678901] amdgpu 0000:03:00.0: GPU reset end with ret = -62", None),
        # CONFIG_PRINTK_CALLER adds the task or the processor.
        (b"<4>[    1.500000][    T1] text", "text"),
        (b"<4>[    1.500000][   C12] text", "text"),
        # Only a caller directly after the time is one.
        (b"<4>[    1.500000] [T1] text", "[T1] text"),
        (b"<4>[    1.500000] ", ""),
        # As in /dev/kmsg.
        (b"<4>[    1.500000] caf\xe9\t\\ \x1b[31m", r"caf\xe9\x09\x5c \x1b[31m"),
    ],
)
def test_line_of_the_kernel_is_a_record(line: bytes, text: str | None) -> None:
    expected = text if text is not None else line.split(b"] ", 1)[1].decode()
    assert parse_lines([line], 7) == (LogRecord(7, expected),)


@pytest.mark.parametrize("line", [b"<12>[    1.5] systemd: text", b"<30>[    1.500000] text", b"no prefix", b"<6"])
def test_line_of_a_program_is_counted_but_is_not_a_record(line: bytes) -> None:
    assert parse_lines([line, b"<6>[    1.500000] text"], 3) == (LogRecord(4, "text"),)


def test_line_without_a_time_is_an_error() -> None:
    with pytest.raises(OSError, match=r"printk\.time is off"):
        LogCursor().advance(b"<6>[    1.500000] text\n<6>text\n")


def build_line(number: int) -> bytes:
    """Return a line of the log; the lines of a record of three lines have the same time, and may be equal."""
    facility = 3 if number % 5 == 0 else 0
    return f"<{facility << 3 | 6}>[{number // 3:5}.{number // 3:06}] line {number // 2}\n".encode()


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 80)), max_size=20),
    st.integers(1, 80),
)
def test_every_line_is_a_record_once_unless_lines_were_lost(steps: list[tuple[int, int]], capacity: int) -> None:
    """Lines are appended to a buffer that holds ``capacity`` lines, and read after each step."""
    cursor, end = LogCursor(), 0
    log: list[bytes] = []
    received: list[LogRecord] = []
    for appended, window in steps:
        log += [build_line(len(log) + number) for number in range(appended)]
        held = log[-capacity:] if log else []
        content = b"".join(held[-window:])
        if not cursor.contains_position(content):
            content = b"".join(held)
        records, has_gap = cursor.advance(content)
        oldest = len(log) - len(held)
        # Equal lines at the border of the buffer may hide that the first of them is lost.
        if oldest > end and len(set(log[end - 2 : oldest + 1])) == len(log[end - 2 : oldest + 1]):
            assert has_gap or end == 0
        assert not has_gap or oldest >= end > 0
        received += records
        start, end = (oldest if has_gap or (end == 0 and oldest) else end), len(log)
        kernel = [line.split(b"] ", 1)[1].decode().strip() for line in log[start:end] if line.startswith(b"<6>")]
        texts = [record.text for record in records]
        # The last lines of the buffer can be equal; they count once then.
        assert texts == kernel or (not has_gap and texts == kernel[-len(texts) or len(kernel) :])
    numbers = [record.number for record in received]
    assert numbers == sorted(set(numbers))


def test_cleared_log_is_reported_when_new_lines_arrive() -> None:
    cursor = LogCursor()
    assert cursor.advance(build_line(1) + build_line(2))[1] is False
    assert cursor.advance(b"") == ((), False)
    records, has_gap = cursor.advance(build_line(7))
    assert ([record.text for record in records], has_gap) == (["line 3"], True)


def test_position_is_found_when_only_the_last_known_line_remains() -> None:
    cursor = LogCursor()
    cursor.advance(b"".join(map(build_line, range(1, 5))))
    records, has_gap = cursor.advance(build_line(4) + build_line(6))
    assert ([record.text for record in records], has_gap) == (["line 3"], False)


@pytest.mark.parametrize("sizes", [[10], [600, 600], [2000], [100, 2000], [500, 523, 1], [1, 1022]])
def test_anchor_consists_of_whole_lines(sizes: list[int]) -> None:
    lines = [b"x" * size + b"\n" for size in sizes]
    anchor = cut_anchor(b"".join(lines))
    assert any(anchor == b"".join(lines[start:]) for start in range(len(lines)))


def test_existing_records_have_the_numbers_of_followed_records() -> None:
    cursor, content = LogCursor(), b"".join(map(build_line, range(1, 5)))
    records, _ = cursor.advance(content)
    assert cursor.number_existing(content) == records
    more, _ = cursor.advance(content + build_line(6))
    assert cursor.number_existing(content + build_line(6)) == (*records, *more)


def unexpected() -> None:
    pytest.fail("the log can be read, and nothing is lost")


@pytest.mark.root
async def test_buffer_has_the_records_of_the_device() -> None:
    device, buffer = KernelLog(KMSG, lambda _: None, unexpected), KernelLogBuffer(print, unexpected, unexpected)
    by_buffer = await buffer.read_existing()
    by_device = await device.read_existing()
    lines = {line for record in by_device for line in record.text.split("\\x0a")}
    assert by_buffer
    assert {record.text for record in by_buffer[-50:]} <= lines


@pytest.mark.root
@needs_crash_log
async def test_new_record_of_the_kernel_is_received_once() -> None:
    queue = asyncio.Queue[Sequence[LogRecord]]()
    follower = KernelLogBuffer(queue.put_nowait, unexpected, unexpected, period=0.05)
    existing = await follower.follow()
    log_program("a program wrote this")
    names = make_name(), make_name()
    for name in names:
        crash(name)
    received: list[LogRecord] = []
    while not any(names[1] in record.text for record in received):
        received += await asyncio.wait_for(queue.get(), 10)
    again = await follower.read_existing()
    follower.close()
    assert [name for record in received for name in names if f"{name}[" in record.text] == list(names)
    assert not [record for record in received if "a program wrote" in record.text]
    assert {record.number for record in received}.isdisjoint(record.number for record in existing)
    assert received[-1] in again


SCRIPT = """
import asyncio, json
from genplug.health.kernel_log_buffer import KernelLogBuffer
log = KernelLogBuffer(print, print, print)
print(json.dumps([len(asyncio.run(log.read_existing())), log.error]))
"""


@pytest.mark.root
@pytest.mark.parametrize("is_user_namespace", [False, True])
def test_capability_syslog_is_sufficient_and_necessary(is_user_namespace: bool) -> None:  # noqa: FBT001
    command = ["unshare", "--user", "--map-root-user"] if is_user_namespace else []
    found = {}
    for kept in ("", ",+syslog"):
        run = subprocess.run(
            [*command, "setpriv", "--inh-caps=-all", f"--bounding-set=-all{kept}", sys.executable, "-c", SCRIPT],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        found[kept] = json.loads(run.stdout)
    is_restricted = Path("/proc/sys/kernel/dmesg_restrict").read_text() == "1\n"
    # The capability counts in the user namespace of the host only.
    has_records = {"": not is_restricted, ",+syslog": not is_restricted or not is_user_namespace}
    assert {kept: count > 0 for kept, (count, _) in found.items()} == has_records
    for kept, (_, error) in found.items():
        assert ("needs the capability SYSLOG" in error) is not has_records[kept]


@pytest.mark.root
def test_only_the_device_of_the_kernel_log_is_read_by_syslog(tmp_path: Path) -> None:
    assert is_kernel_log(KMSG)
    assert not is_kernel_log(Path("/dev/null"))
    (tmp_path / "kmsg").touch()
    assert not is_kernel_log(tmp_path / "kmsg")
    assert not is_kernel_log(tmp_path / "missing")


def test_missing_device_is_not_denied(tmp_path: Path) -> None:
    assert not is_open_denied(tmp_path / "kmsg")


@pytest.mark.root
def test_read_does_not_consume_records() -> None:
    first, second = read_buffer(MAX_KERNEL_LOG_BYTES), read_buffer(MAX_KERNEL_LOG_BYTES)
    assert cut_anchor(first) in second
    assert len(read_buffer(4096)) <= 4096
