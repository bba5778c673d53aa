"""The writer of the log: its order, its bounds, and descriptors that cannot be written."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from genplug.observe import log_writer
from genplug.observe.log_writer import MAX_QUEUED_BYTES, MAX_WRITE_BYTES, LogWriter


def make_record(text: str) -> logging.LogRecord:
    return logging.LogRecord("genplug", logging.INFO, "", 0, text, None, None)


def run_writer(descriptor: int) -> tuple[LogWriter, Callable[[], int]]:
    """Return a writer, and a function that waits for its report of dropped lines."""
    reports: list[int] = []
    is_reported = threading.Event()

    def report(lines: int) -> None:
        reports.append(lines)
        is_reported.set()

    def wait() -> int:
        assert is_reported.wait(10)
        return sum(reports)

    return LogWriter(descriptor, report), wait


def test_lines_are_written_in_their_order() -> None:
    reader, writer = os.pipe()
    log, _ = run_writer(writer)
    for number in range(100):
        log.emit(make_record(f"{number} é \udc80"))
    log.flush()
    lines = os.read(reader, 1 << 16).decode().splitlines()
    assert lines == [f"{number} é \\udc80" for number in range(100)]
    assert log.dropped == 0


def test_lines_that_wait_are_written_together_up_to_the_size_that_pipes_keep_together() -> None:
    # A socket of this type keeps the boundaries of writes.
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.set_blocking(writer.fileno(), False)
    fillers = 0
    with suppress(BlockingIOError):
        while writer.send(b"full"):
            fillers += 1
    os.set_blocking(writer.fileno(), True)
    log, _ = run_writer(writer.fileno())
    for number in range(100):
        log.emit(make_record(f"{number:0199}"))
    assert [reader.recv(10_000) for _ in range(fillers)] == [b"full"] * fillers
    log.flush()
    os.set_blocking(reader.fileno(), False)
    writes = []
    with suppress(BlockingIOError):
        while True:
            writes.append(reader.recv(10_000))
    assert b"".join(writes).split() == [f"{number:0199}".encode() for number in range(100)]
    assert {len(write) for write in writes[1:-1]} == {MAX_WRITE_BYTES // 200 * 200}


def test_lines_beyond_the_queue_are_dropped_and_reported_when_the_log_is_read_again() -> None:
    reader, writer = os.pipe()
    log, wait_for_report = run_writer(writer)
    text = "x" * 1000
    number = 2 * MAX_QUEUED_BYTES // len(text)
    for _ in range(number):
        log.emit(make_record(text))
    assert 0 < log.dropped < number
    received = 0
    while received < (number - log.dropped) * (len(text) + 1):
        received += len(os.read(reader, 1 << 16))
    assert wait_for_report() == log.dropped
    assert received == (number - log.dropped) * (len(text) + 1)


def test_flush_does_not_wait_for_a_reader_for_long() -> None:
    reader, writer = os.pipe()
    log, _ = run_writer(writer)
    for _ in range(100):
        log.emit(make_record("x" * 1000))
    flushing = threading.Thread(target=log.flush)
    flushing.start()
    flushing.join(10 * log_writer.FLUSH_SECONDS)
    assert not flushing.is_alive()
    os.close(reader)


def test_lines_for_a_closed_reader_are_dropped() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log, _ = run_writer(writer)
    log.emit(make_record("a"))
    log.flush()
    assert log.dropped == 1


def test_non_blocking_descriptor_is_written_completely() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    log, _ = run_writer(writer)
    text = "x" * 200_000
    log.emit(make_record(text))
    received = 0
    while received < len(text) + 1:
        received += len(os.read(reader, 1 << 16))
    log.flush()
    assert log.dropped == 0


def test_thread_is_started_when_the_system_can_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    log, _ = run_writer(writer)
    monkeypatch.setattr(log_writer, "_RETRY_SECONDS", 0.0)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        log.emit(make_record("a"))
    log.emit(make_record("b"))
    log.flush()
    assert os.read(reader, 100) == b"a\nb\n"
