"""Files that hang: what their readers see, in this process and in others, and what is left of them."""

import asyncio
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


def reader(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=10)
    return process.returncode, out


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def is_mounted(directory: Path) -> bool:
    return f" {directory} fuse " in Path("/proc/self/mounts").read_text()


@pytest.mark.usefixtures("files")
def test_files_are_read_as_any_others(directory: Path) -> None:
    assert outcome(reader(directory / "state")) == (0, "ok\n")
    assert (directory / "other").read_text() == "fine\n"
    assert is_mounted(directory)


@pytest.mark.usefixtures("files")
def test_names_are_listed_and_globbed(directory: Path) -> None:
    assert names_in(directory) == {"other", "state"}
    assert [path.name for path in directory.glob("st*") if path.is_file()] == ["state"]
    assert [entry.stat().st_size for entry in sorted(os.scandir(directory), key=lambda entry: entry.name)] == [5, 3]
    assert not (directory / "missing").exists()


def test_more_names_than_fit_into_one_answer(directory: Path) -> None:
    names = {f"{number:03}-{'x' * 200}" for number in range(600)}
    with HangingFiles(directory, dict.fromkeys(names, "")):
        assert names_in(directory) == names


def test_a_long_text_comes_whole(directory: Path) -> None:
    text = "".join(f"{number}\n" for number in range(100_000))
    with HangingFiles(directory, {"long": text}):
        assert outcome(reader(directory / "long")) == (0, text)


@pytest.mark.usefixtures("files")
def test_nobody_writes_through_the_mount(directory: Path) -> None:
    with pytest.raises(OSError, match="Read-only"):
        (directory / "state").write_text("bad\n")


def test_another_text_counts_at_once(files: HangingFiles, directory: Path) -> None:
    with (directory / "state").open() as opened:
        assert opened.read() == "ok\n"
        before = (directory / "state").stat()

        files.write("state", "very bad\n")

        opened.seek(0)
        assert opened.read() == "very bad\n"
    after = (directory / "state").stat()
    assert after.st_size == len("very bad\n")
    assert after.st_mtime_ns > before.st_mtime_ns


def test_only_reads_of_the_file_hang(files: HangingFiles, directory: Path) -> None:
    files.hang("state")
    hanging = reader(directory / "state")
    files.wait_for_reader("state")

    assert outcome(reader(directory / "other")) == (0, "fine\n")
    assert (directory / "state").stat().st_size == 3
    assert hanging.poll() is None

    files.release("state")
    assert outcome(hanging) == (0, "ok\n")
    assert outcome(reader(directory / "state")) == (0, "ok\n")


def test_a_released_reader_gets_the_text_of_now(files: HangingFiles, directory: Path) -> None:
    files.hang("state")
    hanging = [reader(directory / "state") for _ in range(3)]
    files.wait_for_reader("state")

    files.write("state", "bad\n")
    files.release("state")

    assert [outcome(one) for one in hanging] == [(0, "bad\n")] * 3


def test_a_reader_that_does_not_come_is_told(files: HangingFiles) -> None:
    files.hang("state")
    with pytest.raises(TimeoutError, match="nobody reads state"):
        files.wait_for_reader("state", timeout=0.01)


async def test_a_coroutine_can_wait_for_a_reader_of_its_own_process(files: HangingFiles, directory: Path) -> None:
    files.hang("state")
    reading = asyncio.create_task(asyncio.to_thread((directory / "state").read_text))
    await asyncio.to_thread(files.wait_for_reader, "state")
    files.release("state")
    assert await reading == "ok\n"


def test_a_hanging_reader_can_be_killed(files: HangingFiles, directory: Path) -> None:
    files.hang("state")
    hanging = reader(directory / "state")
    files.wait_for_reader("state")

    hanging.kill()

    assert outcome(hanging) == (-signal.SIGKILL, "")
    with pytest.raises(TimeoutError):
        files.wait_for_reader("state", timeout=0.01)


def test_the_end_leaves_no_reader_and_no_mount(directory: Path) -> None:
    with HangingFiles(directory, {"state": "ok\n"}) as files:
        files.hang("state")
        hanging = [reader(directory / "state") for _ in range(3)]
        files.wait_for_reader("state")

    assert [outcome(one) for one in hanging] == [(1, "")] * 3
    assert not is_mounted(directory)
    assert names_in(directory) == set()


def test_the_end_does_not_wait_for_whoever_has_a_file_open(directory: Path) -> None:
    with HangingFiles(directory, {"state": "ok\n"}):
        opened = os.open(directory / "state", os.O_RDONLY)

    assert not is_mounted(directory)
    with pytest.raises(OSError, match="not connected"):
        os.read(opened, 10)
    os.close(opened)


def test_a_failing_test_leaves_no_reader_and_no_mount(directory: Path) -> None:
    def fail() -> None:
        with HangingFiles(directory, {"state": "ok\n"}) as files:
            files.hang("state")
            hanging.append(reader(directory / "state"))
            files.wait_for_reader("state")
            raise RuntimeError("of the test")

    hanging: list[subprocess.Popen[str]] = []
    with pytest.raises(RuntimeError, match="of the test"):
        fail()

    assert outcome(hanging[0]) == (1, "")
    assert not is_mounted(directory)


def test_a_directory_serves_again_and_again(directory: Path) -> None:
    descriptors = len(names_in(Path("/proc/self/fd")))
    for number in range(3):
        with HangingFiles(directory, {"state": str(number)}):
            assert (directory / "state").read_text() == str(number)
    assert len(names_in(Path("/proc/self/fd"))) == descriptors


def test_lookups_hang_until_they_are_released(files: HangingFiles, directory: Path) -> None:
    files.hang_lookups()
    hanging = reader(directory / "state")
    files.wait_for_lookup()
    assert hanging.poll() is None
    files.release_lookups()
    assert outcome(hanging) == (0, "ok\n")
    assert (directory / "other").read_text() == "fine\n"


def test_a_process_in_a_lookup_that_hangs_can_be_killed(files: HangingFiles, directory: Path) -> None:
    files.hang_lookups()
    hanging = reader(directory / "state")
    files.wait_for_lookup()
    hanging.kill()
    assert outcome(hanging) == (-signal.SIGKILL, "")


def test_the_end_leaves_no_lookup_that_hangs(directory: Path) -> None:
    with HangingFiles(directory, {"state": "ok\n"}) as files:
        files.hang_lookups()
        hanging = reader(directory / "state")
        files.wait_for_lookup()
    assert outcome(hanging) == (1, "")
    assert not is_mounted(directory)
