"""The writer of the audit log: files, rotation, recovery, and file systems that refuse or hang."""

import json
import os
import queue
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genplug.audit import writer as writer_module
from genplug.audit.limits import DEFAULT_LIMITS, Limits, Sync
from genplug.audit.records import Assignment, Container, Origin, RecordType, encode_record
from genplug.audit.steady_clock import seconds_since_boot
from genplug.audit.writer import AuditWriter, Recovery
from genplug.spec.limits import MAX_AUDIT_QUEUE_BYTES
from tests.support.audit import read_documents
from tests.support.mounts import bind_mount, mount_tmpfs, remount

ORIGIN = Origin("node-1", "1.0", None)


def encode(number: int, text: str = "") -> bytes:
    return encode_record(ORIGIN, float(number), RecordType.HEARTBEAT, {"number": number, "text": text})


@contextmanager
def run_writer(
    directory: Path, limits: Limits = DEFAULT_LIMITS, *, seconds: float = 10
) -> Iterator[tuple[AuditWriter, "queue.Queue[Recovery]"]]:
    """Run a writer; at the end of the context, wait until it has written everything."""
    opened: queue.Queue[Recovery] = queue.Queue()
    writer = AuditWriter(directory, limits, opened.put)
    writer.start()
    try:
        yield writer, opened
    finally:
        writer.close(seconds)


def wait_until_written(writer: AuditWriter) -> None:
    deadline = time.monotonic() + 10
    while not writer.is_idle:
        assert time.monotonic() < deadline, writer
        time.sleep(0.01)


def wait_for_error(writer: AuditWriter, words: str) -> str:
    deadline = time.monotonic() + 10
    while words not in writer.error:
        assert time.monotonic() < deadline, writer
        time.sleep(0.01)
    return writer.error


def list_names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def list_numbers(directory: Path) -> list[int]:
    return [document["number"] for document in read_documents(directory)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.mark.parametrize("sync", Sync)
def test_records_are_lines_with_consecutive_sequence_numbers(log: Path, sync: Sync) -> None:
    with run_writer(log, Limits(sync=sync)) as (writer, _):
        for number in range(5):
            assert writer.put(encode(number, "é\u2028\udc80"))
    documents = read_documents(log)
    assert [document["sequence"] for document in documents] == [1, 2, 3, 4, 5]
    assert list_names(log) == ["audit-0000000000000001.jsonl"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o700
    assert stat.S_IMODE((log / "audit-0000000000000001.jsonl").stat().st_mode) == 0o600


def test_next_writer_continues_the_sequence_and_returns_open_assignments(log: Path) -> None:
    assignment = Assignment("a-1", "example.com/x", ("x0",), Container("default", "web-0", "main"), 1.0, 2.0, 2.0)
    with run_writer(log) as (writer, opened):
        assert opened.get(timeout=10) == Recovery()
        fields = {"assignment": assignment.as_json()}
        writer.put(encode_record(ORIGIN, 2.0, RecordType.ASSIGNED, fields))
    with run_writer(log) as (writer, opened):
        recovery = opened.get(timeout=10)
        assert recovery.assignments == (assignment,)
        assert (recovery.sequence, recovery.is_complete, recovery.began_at) == (1, False, 2.0)
        writer.put(encode_record(ORIGIN, 3.0, RecordType.STOPPED, {}))
    with run_writer(log) as (_, opened):
        assert opened.get(timeout=10).is_complete
    assert [document["sequence"] for document in read_documents(log)] == [1, 2]


def test_record_after_a_torn_line_is_a_line_of_its_own(log: Path) -> None:
    with run_writer(log) as (writer, _):
        writer.put(encode(1))
        writer.put(encode(2))
    [file] = log.iterdir()
    os.truncate(file, file.stat().st_size - 9)
    with run_writer(log) as (writer, _):
        writer.put(encode(3))
    assert list_numbers(log) == [1, 3]
    assert [document["sequence"] for document in read_documents(log)] == [1, 2]


def test_new_file_has_the_number_of_its_first_record_and_old_files_are_deleted(log: Path) -> None:
    with run_writer(log, Limits(keep=2)) as (writer, _):
        for number in range(6):
            writer.put(encode(number), begins_file=number % 2 == 0)
    assert list_names(log) == ["audit-0000000000000003.jsonl", "audit-0000000000000005.jsonl"]
    assert list_numbers(log) == [2, 3, 4, 5]


DAY = 86400.0


def encode_at(time_: float, number: int) -> bytes:
    return encode_record(ORIGIN, time_, RecordType.HEARTBEAT, {"number": number})


def write_days(log: Path, last: float) -> None:
    """Write three files, each with the records of a day; the last record has the time ``last``."""
    with run_writer(log) as (writer, _):
        for number in range(12):
            writer.put(encode_at(last - (11 - number) * DAY / 4, number), begins_file=number in {4, 8})
    for name, age in zip(list_names(log), (2, 1, 0), strict=True):
        os.utime(log / name, (last - age * DAY,) * 2)


def test_file_is_deleted_when_its_last_record_is_too_old(log: Path) -> None:
    write_days(log, time.time())
    os.utime(log / list_names(log)[0], (0, 0))
    with run_writer(log):
        pass
    assert list_numbers(log) == list(range(4, 12))


def test_no_file_is_deleted_at_a_start_with_a_time_that_jumped(log: Path) -> None:
    write_days(log, time.time() - 10 * DAY)
    limits = Limits(max_age=5 * DAY)
    for _ in range(2):
        with run_writer(log, limits) as (writer, _):
            writer.put(encode_at(time.time(), 12), begins_file=True)
    assert [number for number in list_numbers(log) if number < 12] == list(range(12))


def test_no_file_is_deleted_when_the_time_jumps_while_the_log_is_written(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_days(log, time.time())
    with run_writer(log, Limits(max_age=5 * DAY)) as (writer, _):
        writer.put(encode_at(time.time(), 12), begins_file=True)
        wait_until_written(writer)
        with monkeypatch.context() as patch:
            jumped = time.time() + 100 * DAY
            patch.setattr(time, "time", lambda: jumped)
            writer.put(encode_at(jumped, 13), begins_file=True)
            wait_until_written(writer)
            assert list_numbers(log) == list(range(14))
            # The jump is a day ago.
            boot = seconds_since_boot() + 1.1 * DAY
            patch.setattr("genplug.audit.writer.seconds_since_boot", lambda: boot)
            jumped += 1.1 * DAY
            writer.put(encode_at(jumped, 14), begins_file=True)
            wait_until_written(writer)
            assert list_numbers(log) == [14]


def test_other_files_in_the_directory_are_kept(log: Path) -> None:
    log.mkdir(mode=0o700)
    (log / "notes.txt").write_text("x")
    with run_writer(log, Limits(keep=2)) as (writer, _):
        for number in range(5):
            writer.put(encode(number), begins_file=True)
    assert "notes.txt" in list_names(log)


def test_writable_directory_of_others_is_refused_until_it_is_not(log: Path) -> None:
    log.mkdir()
    log.chmod(0o777)
    with run_writer(log) as (writer, _):
        writer.put(encode(1))
        assert wait_for_error(writer, "chmod go-w").startswith("expected that only the owner can write to")
        assert list_names(log) == []
        log.chmod(0o700)
        wait_until_written(writer)
        assert not writer.error
    assert list_numbers(log) == [1]


@pytest.mark.parametrize("kind", ["link to a directory", "link to a file", "pipe"])
def test_link_or_pipe_is_refused(log: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "link to a directory":
        target.mkdir(mode=0o700)
        log.symlink_to(target)
    else:
        log.mkdir(mode=0o700)
        file = log / "audit-0000000000000001.jsonl"
        if kind == "pipe":
            os.mkfifo(file, 0o600)
        else:
            target.write_text("")
            file.symlink_to(target)
    with run_writer(log, seconds=0.1) as (writer, _):
        writer.put(encode(1))
        wait_for_error(writer, " ")
        assert writer.written == 0
    assert target.is_dir() or kind == "pipe" or target.read_text() == ""


def test_second_writer_waits_for_the_first(log: Path) -> None:
    with run_writer(log) as (first, _):
        first.put(encode(1))
        wait_until_written(first)
        with run_writer(log) as (second, _):
            second.put(encode(2))
            wait_for_error(second, "another process writes the audit log")
            first.close(10)
            wait_until_written(second)
    assert list_numbers(log) == [1, 2]


def test_deleted_file_and_directory_are_created_again(log: Path) -> None:
    with run_writer(log) as (writer, _):
        writer.put(encode(1))
        wait_until_written(writer)
        (log / list_names(log)[0]).unlink()
        writer.put(encode(2))
        wait_until_written(writer)
        assert list_numbers(log) == [2]
        (log / list_names(log)[0]).unlink()
        log.rmdir()
        writer.put(encode(3))
        wait_until_written(writer)
    assert list_numbers(log) == [3]
    assert [document["sequence"] for document in read_documents(log)] == [3]


def test_records_beyond_the_queue_are_refused_unless_they_are_forced(tmp_path: Path) -> None:
    with run_writer(tmp_path / "missing" / "audit", seconds=0.1) as (writer, _):
        record = encode(1, "x" * 100_000)
        accepted = sum(writer.put(record) for _ in range(2 * MAX_AUDIT_QUEUE_BYTES // len(record)))
        assert accepted == MAX_AUDIT_QUEUE_BYTES // len(record)
        assert writer.put(record, is_forced=True)
        wait_for_error(writer, "No such file or directory")


@pytest.mark.root
def test_full_disk_delays_records_without_a_partial_line(log: Path) -> None:
    log.mkdir(mode=0o700)
    with mount_tmpfs(log, "size=64k,mode=0700"):
        filler = log / "filler"
        filler.write_bytes(bytes(48 * 1024))
        with run_writer(log) as (writer, _):
            for number in range(3):
                writer.put(encode(number, "x" * 10_000))
            wait_for_error(writer, "No space left on device")
            [file] = log.glob("audit-*")
            assert file.read_bytes().endswith(b"\n") or not file.stat().st_size
            filler.unlink()
            wait_until_written(writer)
            assert not writer.error
        assert list_numbers(log) == [0, 1, 2]
        assert len(file.read_text().splitlines()) == 3


@pytest.mark.root
def test_read_only_file_system_delays_records(log: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(mode=0o700)
    with bind_mount(source, log, "ro"), run_writer(log) as (writer, _):
        writer.put(encode(1))
        wait_for_error(writer, "Read-only file system")
        remount(log, "rw")
        wait_until_written(writer)
    assert list_numbers(source) == [1]


def test_hanging_operation_is_reported_and_blocks_no_caller(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "HANG_SECONDS", 0.05)
    log.mkdir(mode=0o700)
    is_released = threading.Event()
    write = os.write

    def hang(descriptor: int, content: bytes) -> int:
        is_released.wait(10)
        return write(descriptor, content)

    with run_writer(log) as (writer, opened):
        opened.get(timeout=10)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", hang)
            writer.put(encode(1))
            wait_for_error(writer, "has not returned within")
            assert writer.put(encode(2))
            is_released.set()
            wait_until_written(writer)
        assert not writer.error
    assert list_numbers(log) == [1, 2]


def test_thread_is_started_when_the_system_can_start_it(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_RETRY_SECONDS", 0.0)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    writer = AuditWriter(log, DEFAULT_LIMITS, lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        writer.put(encode(1))
        assert "no thread can be started" in writer.error
    writer.put(encode(2))
    writer.close(10)
    assert list_numbers(log) == [1, 2]


def test_line_is_ascii_json(log: Path) -> None:
    with run_writer(log) as (writer, _):
        writer.put(encode(1, "\x1b[31m\u202e\n"))
    [file] = log.iterdir()
    [line] = file.read_bytes().splitlines()
    assert line.isascii()
    assert json.loads(line)["text"] == "\x1b[31m\u202e\n"
