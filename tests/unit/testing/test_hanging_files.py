"""Files whose reads hang: the results of reads in this process and in other processes, and the end of the mount."""

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from genplug.testing.node.hanging_files import HangingFiles

pytestmark = pytest.mark.fuse


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def files(directory: Path) -> Iterator[HangingFiles]:
    with HangingFiles(directory, {"state": "ok\n", "other": "fine\n"}) as files:
        yield files


def start_reader(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=10)
    return process.returncode, out


def list_names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def is_mounted(directory: Path) -> bool:
    return f" {directory} fuse " in Path("/proc/self/mounts").read_text()


@pytest.mark.usefixtures("files")
def test_reads_return_the_content(directory: Path) -> None:
    assert read_outcome(start_reader(directory / "state")) == (0, "ok\n")
    assert (directory / "other").read_text() == "fine\n"
    assert is_mounted(directory)


@pytest.mark.usefixtures("files")
def test_directory_lists_names_and_sizes(directory: Path) -> None:
    assert list_names(directory) == {"other", "state"}
    assert [path.name for path in directory.glob("st*") if path.is_file()] == ["state"]
    assert [entry.stat().st_size for entry in sorted(os.scandir(directory), key=lambda entry: entry.name)] == [5, 3]
    assert not (directory / "missing").exists()


def test_directory_lists_more_names_than_fit_into_one_response(directory: Path) -> None:
    names = {f"{number:03}-{'x' * 200}" for number in range(600)}
    with HangingFiles(directory, dict.fromkeys(names, "")):
        assert list_names(directory) == names


def test_long_content_is_read_completely(directory: Path) -> None:
    text = "".join(f"{number}\n" for number in range(100_000))
    with HangingFiles(directory, {"long": text}):
        assert read_outcome(start_reader(directory / "long")) == (0, text)


@pytest.mark.usefixtures("files")
def test_write_through_the_mount_fails(directory: Path) -> None:
    with pytest.raises(OSError, match="Read-only"):
        (directory / "state").write_text("bad\n")


def test_open_file_returns_changed_content_at_the_next_read(files: HangingFiles, directory: Path) -> None:
    with (directory / "state").open() as opened:
        assert opened.read() == "ok\n"
        before = (directory / "state").stat()

        files.write("state", "very bad\n")

        opened.seek(0)
        assert opened.read() == "very bad\n"
    after = (directory / "state").stat()
    assert after.st_size == len("very bad\n")
    assert after.st_mtime_ns > before.st_mtime_ns


def test_hang_blocks_reads_of_the_file_only(files: HangingFiles, directory: Path) -> None:
    files.hang("state")
    hanging = start_reader(directory / "state")
    files.wait_for_reader("state")

    assert read_outcome(start_reader(directory / "other")) == (0, "fine\n")
    assert (directory / "state").stat().st_size == 3
    assert hanging.poll() is None

    files.release("state")
    assert read_outcome(hanging) == (0, "ok\n")
    assert read_outcome(start_reader(directory / "state")) == (0, "ok\n")


def test_released_read_returns_the_present_content(files: HangingFiles, directory: Path) -> None:
    files.hang("state")
    hanging = [start_reader(directory / "state") for _ in range(3)]
    files.wait_for_reader("state")

    files.write("state", "bad\n")
    files.release("state")

    assert [read_outcome(process) for process in hanging] == [(0, "bad\n")] * 3


def test_wait_for_reader_raises_without_a_reader(files: HangingFiles) -> None:
    files.hang("state")
    with pytest.raises(TimeoutError, match=r"after 0\.01 s: no read of state hangs"):
        files.wait_for_reader("state", timeout=0.01)


async def test_wait_for_reader_in_a_thread_sees_a_read_of_the_same_process(
    files: HangingFiles, directory: Path
) -> None:
    files.hang("state")
    reading = asyncio.create_task(asyncio.to_thread((directory / "state").read_text))
    await asyncio.to_thread(files.wait_for_reader, "state")
    files.release("state")
    assert await reading == "ok\n"


def test_hanging_reader_can_be_killed(files: HangingFiles, directory: Path) -> None:
    files.hang("state")
    hanging = start_reader(directory / "state")
    files.wait_for_reader("state")

    hanging.kill()

    assert read_outcome(hanging) == (-signal.SIGKILL, "")
    with pytest.raises(TimeoutError):
        files.wait_for_reader("state", timeout=0.01)


def test_end_of_the_context_leaves_no_reader_and_no_mount(directory: Path) -> None:
    with HangingFiles(directory, {"state": "ok\n"}) as files:
        files.hang("state")
        hanging = [start_reader(directory / "state") for _ in range(3)]
        files.wait_for_reader("state")

    assert [read_outcome(process) for process in hanging] == [(1, "")] * 3
    assert not is_mounted(directory)
    assert list_names(directory) == set()


def test_end_of_the_context_does_not_wait_for_an_open_file(directory: Path) -> None:
    with HangingFiles(directory, {"state": "ok\n"}):
        opened = os.open(directory / "state", os.O_RDONLY)

    assert not is_mounted(directory)
    with pytest.raises(OSError, match="not connected"):
        os.read(opened, 10)
    os.close(opened)


def test_exception_in_the_context_leaves_no_reader_and_no_mount(directory: Path) -> None:
    def fail() -> None:
        with HangingFiles(directory, {"state": "ok\n"}) as files:
            files.hang("state")
            hanging.append(start_reader(directory / "state"))
            files.wait_for_reader("state")
            raise RuntimeError("in the context")

    hanging: list[subprocess.Popen[str]] = []
    with pytest.raises(RuntimeError, match="in the context"):
        fail()

    assert read_outcome(hanging[0]) == (1, "")
    assert not is_mounted(directory)


def test_directory_can_be_mounted_repeatedly(directory: Path) -> None:
    descriptors = len(list_names(Path("/proc/self/fd")))
    for number in range(3):
        with HangingFiles(directory, {"state": str(number)}):
            assert (directory / "state").read_text() == str(number)
    assert len(list_names(Path("/proc/self/fd"))) == descriptors


def test_lookups_hang_until_they_are_released(files: HangingFiles, directory: Path) -> None:
    files.hang_lookups()
    hanging = start_reader(directory / "state")
    files.wait_for_lookup()
    assert hanging.poll() is None
    files.release_lookups()
    assert read_outcome(hanging) == (0, "ok\n")
    assert (directory / "other").read_text() == "fine\n"


def test_process_in_a_hanging_lookup_can_be_killed(files: HangingFiles, directory: Path) -> None:
    files.hang_lookups()
    hanging = start_reader(directory / "state")
    files.wait_for_lookup()
    hanging.kill()
    assert read_outcome(hanging) == (-signal.SIGKILL, "")


def test_end_of_the_context_leaves_no_hanging_lookup(directory: Path) -> None:
    with HangingFiles(directory, {"state": "ok\n"}) as files:
        files.hang_lookups()
        hanging = start_reader(directory / "state")
        files.wait_for_lookup()
    assert read_outcome(hanging) == (1, "")
    assert not is_mounted(directory)


def test_requests_fail_after_the_time_limit(directory: Path) -> None:
    with HangingFiles(directory, {"state": "ok\n"}, max_hang_seconds=0.2) as files:
        files.hang("state")
        assert read_outcome(start_reader(directory / "state")) == (1, "")


def test_reads_of_a_failing_file_have_the_error_until_it_ends(files: HangingFiles, directory: Path) -> None:
    files.fail("state")
    with pytest.raises(OSError, match="Input/output error") as caught:
        (directory / "state").read_text()
    assert caught.value.errno == errno.EIO
    assert (directory / "other").read_text() == "fine\n"
    files.fail("state", 0)
    assert (directory / "state").read_text() == "ok\n"
