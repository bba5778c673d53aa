"""Change notices from the kernel's own inotify events: prompt, bounded, and with each limit reported."""

import asyncio
import ctypes
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, WatchDescriptor

from genplug.hardware.inotify import GONE, MAX_NAMES, NOT_RESPONDING, DirectoryWatcher, Inbox
from tests.support.processes import count_descriptors

libc = ctypes.PyDLL(None)
"""Calls of this object keep the interpreter lock, unlike those of ``os``."""


RENAME_SECONDS = 0.4
"""Less than the time for which watchdog's emitter waits for the second part of a rename (0.5 s)."""


class Notices:
    """Collects notices; ``until`` waits for the first that contains enough."""

    def __init__(self) -> None:
        self.all: list[tuple[Path, frozenset[str]]] = []
        self._news = asyncio.Event()

    def __call__(self, directory: Path, names: frozenset[str]) -> None:
        self.all.append((directory, names))
        self._news.set()

    @property
    def names(self) -> set[str]:
        return {name for _, names in self.all for name in names}

    async def until(self, directory: Path, *names: str) -> None:
        """Wait until these names were reported; no names: until anything may have changed in the directory."""
        async with asyncio.timeout(30):
            while not self._has(directory, set(names)):
                self._news.clear()
                await self._news.wait()

    def _has(self, directory: Path, names: set[str]) -> bool:
        reported = [notice for where, notice in self.all if where == directory]
        return names <= set().union(*reported) if names else frozenset() in reported


async def wait_for_all_events(watch: DirectoryWatcher, directory: Path) -> None:
    """Wait until everything that happened so far is reported, by an event after it."""
    marker = Notices()
    watch.set("settled", [directory], marker)
    (directory / "marker").touch()
    await marker.until(directory, "marker")
    await asyncio.sleep(0)
    watch.set("settled", [], marker)
    (directory / "marker").unlink()


@contextmanager
def hold_interpreter_lock() -> Iterator[None]:
    """Keep the interpreter lock, so that the kernel's queue fills. The body makes system calls by ``libc`` only."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@pytest.fixture
async def watch() -> AsyncIterator[DirectoryWatcher]:
    with closing(DirectoryWatcher()) as made:
        yield made


async def test_added_removed_and_renamed_entries_are_reported_by_name(watch: DirectoryWatcher, tmp_path: Path) -> None:
    notices = Notices()
    assert watch.set("devices", [tmp_path], notices)
    (tmp_path / "created").touch()
    await notices.until(tmp_path, "created")
    (tmp_path / "created").rename(tmp_path / "renamed")
    await notices.until(tmp_path, "created", "renamed")
    notices.all.clear()
    (tmp_path / "renamed").unlink()
    (tmp_path / "link").symlink_to("nowhere")
    await notices.until(tmp_path, "renamed", "link")


async def test_notice_of_a_new_file_arrives_before_a_pause_for_renames(watch: DirectoryWatcher, tmp_path: Path) -> None:
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    seconds = []
    for number in range(20):
        started = time.perf_counter()
        (tmp_path / f"x{number}").touch()
        await notices.until(tmp_path, f"x{number}")
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < RENAME_SECONDS


async def test_unmatched_rename_is_reported_before_a_pause_for_renames(watch: DirectoryWatcher, tmp_path: Path) -> None:
    (tmp_path / "watched").mkdir()
    notices = Notices()
    watch.set("devices", [tmp_path / "watched"], notices)
    seconds = []
    for number in range(20):
        (tmp_path / f"x{number}").touch()
        started = time.perf_counter()
        (tmp_path / f"x{number}").rename(tmp_path / "watched" / f"x{number}")
        await notices.until(tmp_path / "watched", f"x{number}")
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < RENAME_SECONDS


async def test_burst_of_events_is_reported_in_few_notices(watch: DirectoryWatcher, tmp_path: Path) -> None:
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    for number in range(200):
        (tmp_path / f"x{number}").touch()
    await notices.until(tmp_path, *(f"x{number}" for number in range(200)))
    assert len(notices.all) <= 2


async def test_more_names_than_the_maximum_are_reported_as_anything(watch: DirectoryWatcher, tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    few.mkdir()
    many.mkdir()
    notices = Notices()
    watch.set("devices", [few, many], notices)
    # The thread reads while this creates the entries; the loop does not run meanwhile.
    for number in range(3 * MAX_NAMES):
        (many / f"x{number}").touch()
        if number < MAX_NAMES:
            (few / f"x{number}").touch()
    await notices.until(many)
    await notices.until(few, *(f"x{number}" for number in range(MAX_NAMES)))
    assert (few, frozenset()) not in notices.all


def test_inbox_wakes_the_loop_once_and_stays_small() -> None:
    wakes: list[None] = []
    inbox = Inbox(lambda: wakes.append(None))
    for turn in range(3):
        for number in range(3 * MAX_NAMES):
            name = b"x%d" % number
            inbox.on_event(InotifyEvent(WatchDescriptor(1), InotifyConstants.IN_CREATE, 0, name))
            inbox.on_event(InotifyEvent(WatchDescriptor(1), InotifyConstants.IN_CLOSE_WRITE, 0, name))
        inbox.on_watch_deleted(WatchDescriptor(2))
        inbox.on_queue_overflow()
        assert len(wakes) == turn + 1
        changes, has_overflowed = inbox.take()
        assert has_overflowed
        assert changes.keys() == {1, 2}
        assert changes[WatchDescriptor(2)].is_gone
        assert len(changes[WatchDescriptor(1)].entries) == MAX_NAMES + 1
        assert len(changes[WatchDescriptor(1)].contents) == MAX_NAMES + 1
        assert inbox.take() == ({}, False)


async def test_written_file_is_reported_only_to_subscriptions_with_contents(
    watch: DirectoryWatcher, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    names, contents = Notices(), Notices()
    watch.set("names", [tmp_path], names)
    watch.set("contents", [tmp_path], contents, contents=True)
    (tmp_path / "file").write_text("changed")
    await contents.until(tmp_path, "file")
    await wait_for_all_events(watch, tmp_path)
    assert "file" not in names.names


async def test_opening_a_file_is_not_reported(watch: DirectoryWatcher, tmp_path: Path) -> None:
    (tmp_path / "null").touch()
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    with (tmp_path / "null").open("a"):
        pass
    await wait_for_all_events(watch, tmp_path)
    assert notices.names <= {"marker"}


async def test_two_subscriptions_share_a_directory_and_end_separately(watch: DirectoryWatcher, tmp_path: Path) -> None:
    first, second = Notices(), Notices()
    assert watch.set("first", [tmp_path], first)
    assert not watch.set("second", [tmp_path], second)
    (tmp_path / "a").touch()
    await asyncio.gather(first.until(tmp_path, "a"), second.until(tmp_path, "a"))
    watch.set("first", [], first)
    (tmp_path / "b").touch()
    await second.until(tmp_path, "b")
    assert "b" not in first.names


async def test_directory_with_two_names_is_reported_under_both(watch: DirectoryWatcher, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    notices = Notices()
    watch.set("devices", [tmp_path / "real", tmp_path / "alias"], notices)
    (tmp_path / "real" / "x").touch()
    await notices.until(tmp_path / "real", "x")
    await notices.until(tmp_path / "alias", "x")
    watch.set("devices", [tmp_path / "alias"], notices)
    (tmp_path / "real" / "y").touch()
    await notices.until(tmp_path / "alias", "y")


async def test_replaced_subscription_ends_the_notices_of_its_previous_directories(
    watch: DirectoryWatcher, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    notices = Notices()
    assert watch.set("devices", [tmp_path / "old"], notices)
    assert not watch.set("devices", [tmp_path / "old"], notices)
    assert watch.set("devices", [tmp_path / "new"], notices)
    (tmp_path / "old" / "x").touch()
    (tmp_path / "new" / "y").touch()
    await notices.until(tmp_path / "new", "y")
    assert {directory for directory, _ in notices.all} == {tmp_path / "new"}


@pytest.mark.filterwarnings("error")
async def test_unchanged_subscription_keeps_its_watch(watch: DirectoryWatcher, tmp_path: Path) -> None:
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    for _ in range(3):
        assert not watch.set("devices", [tmp_path], notices)
    (tmp_path / "x").touch()
    await notices.until(tmp_path, "x")
    await wait_for_all_events(watch, tmp_path)
    assert sum("x" in names for _, names in notices.all) == 1


async def test_unresponsive_directory_keeps_its_watch_without_a_system_call(
    watch: DirectoryWatcher, tmp_path: Path
) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    notices = Notices()
    watch.set("test", [directory], notices)
    # A system call would report now that the directory does not exist.
    directory.rename(tmp_path / "moved")
    assert not watch.set("test", [directory], notices, unresponsive=[directory])
    assert watch.unwatched == {}
    await notices.until(directory)


async def test_unresponsive_directory_without_a_watch_is_unwatched(watch: DirectoryWatcher, tmp_path: Path) -> None:
    assert not watch.set("test", [tmp_path], Notices(), unresponsive=[tmp_path])
    assert watch.unwatched == {tmp_path: NOT_RESPONDING}
    assert watch.set("test", [tmp_path], Notices())
    assert watch.unwatched == {}


@pytest.mark.parametrize("how", ["removed", "moved away", "replaced"])
async def test_returned_directory_is_watched_again(watch: DirectoryWatcher, tmp_path: Path, how: str) -> None:
    directory = tmp_path / "dri"
    directory.mkdir()
    notices = Notices()
    watch.set("devices", [directory], notices)
    if how == "removed":
        directory.rmdir()
    else:
        directory.rename(tmp_path / "away")
    if how == "replaced":
        directory.mkdir()
    await notices.until(directory)
    assert watch.unwatched == {directory: GONE}
    directory.mkdir(exist_ok=True)
    assert watch.set("devices", [directory], notices)
    assert watch.unwatched == {}
    (directory / "card0").touch()
    await notices.until(directory, "card0")
    assert watch.take_warnings() == ()


def count_kernel_watches() -> int:
    """Return how many inotify watches this process has."""
    return sum(info.read_text().count("inotify wd:") for info in Path("/proc/self/fdinfo").glob("*") if info.exists())


async def test_ended_subscription_leaves_no_watch_in_the_kernel(watch: DirectoryWatcher, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path)
    watches = count_kernel_watches()
    for _ in range(3):
        watch.set("devices", [tmp_path, tmp_path / "alias"], Notices())
        watch.set("others", [tmp_path], Notices(), contents=True)
    assert count_kernel_watches() == watches + 1
    watch.set("devices", [], Notices())
    assert count_kernel_watches() == watches + 1
    watch.set("others", [], Notices())
    assert count_kernel_watches() == watches


async def test_replaced_directory_is_watched_by_a_set_before_its_notice(
    watch: DirectoryWatcher, tmp_path: Path
) -> None:
    directory = tmp_path / "dri"
    directory.mkdir()
    notices = Notices()
    watch.set("devices", [directory], notices)
    directory.rename(tmp_path / "away")
    directory.mkdir()
    assert watch.set("devices", [directory], notices)
    await wait_for_all_events(watch, directory)
    assert watch.unwatched == {}
    (directory / "card0").touch()
    await notices.until(directory, "card0")


async def test_missing_directory_requests_a_single_scan(watch: DirectoryWatcher, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert watch.set("devices", [missing], Notices())
    assert watch.unwatched == {missing: GONE}
    assert not watch.set("devices", [missing], Notices())
    watch.set("devices", [], Notices())
    assert watch.unwatched == {}


def read_queue_limit() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


async def test_queue_overflow_is_reported_as_anything_in_every_directory(
    watch: DirectoryWatcher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    busy, quiet = tmp_path / "busy", tmp_path / "quiet"
    busy.mkdir()
    quiet.mkdir()
    notices = Notices()
    watch.set("devices", [busy, quiet], notices)
    (busy / "x").touch()
    names = bytes(busy / "x"), bytes(busy / "y")
    with hold_interpreter_lock():
        for number in range(read_queue_limit() // 2 + 100):
            libc.rename(names[number % 2], names[(number + 1) % 2])
    await notices.until(busy)
    await notices.until(quiet)
    (quiet / "after").touch()
    await notices.until(quiet, "after")
    assert caplog.records == []


AT_THE_LIMIT = """
import asyncio, sys
from contextlib import closing
from pathlib import Path
from genplug.hardware.inotify import DirectoryWatcher

limit, base = Path("/proc/sys/user/max_inotify_watches"), Path(sys.argv[1])
directories = [base / name for name in "abc"]

async def main():
    for directory in directories:
        directory.mkdir()
    reported = asyncio.Event()
    notice = lambda directory, names: reported.set()
    with closing(DirectoryWatcher()) as watch:
        watch.set("devices", directories[:1], notice)
        limit.write_text("1")
        assert not watch.set("devices", directories, notice)
        assert set(watch.unwatched) == set(directories[1:]), watch.unwatched
        [warning] = watch.take_warnings()
        assert not watch.set("devices", directories, notice)
        assert watch.take_warnings() == ()
        (directories[0] / "x").touch()
        await asyncio.wait_for(reported.wait(), 30)
        limit.write_text("100")
        assert watch.set("devices", directories, notice)
        assert watch.unwatched == {}
        print(warning)

asyncio.run(main())
"""


@pytest.mark.root
def test_32_watch_limit_is_reported_once_with_the_unwatched_directories(tmp_path: Path) -> None:
    # The limit is that of a user namespace made for this test; the limit of the machine is not changed.
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", AT_THE_LIMIT, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/" in done.stdout
    assert "fs.inotify.max_user_watches" in done.stdout


async def test_32_missing_descriptor_leaves_every_directory_unwatched(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count_descriptors() - 1, hard))
    try:
        watch = DirectoryWatcher()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not watch.set("devices", [tmp_path], Notices())
    assert set(watch.unwatched) == {tmp_path}
    [warning] = watch.take_warnings()
    assert "fs.inotify.max_user_instances" in warning
    watch.close()


async def test_missing_thread_leaves_every_directory_unwatched(tmp_path: Path) -> None:
    size = threading.stack_size(1 << 48)
    try:
        watch = DirectoryWatcher()
    finally:
        threading.stack_size(size)
    assert not watch.set("devices", [tmp_path], Notices())
    assert set(watch.unwatched) == {tmp_path}
    [warning] = watch.take_warnings()
    assert "thread" in warning
    watch.close()


UNREADABLE = """
import asyncio, gc, os, sys
from contextlib import closing
from pathlib import Path
from watchdog.observers.inotify_c import Watch
from genplug.hardware.inotify import DirectoryWatcher

directories = [Path(sys.argv[1]) / name for name in "ab"]

async def main():
    os.setresuid(65534, 65534, 65534)
    reported = asyncio.Event()
    with closing(DirectoryWatcher()) as watch:
        for _ in range(2):
            assert not watch.set("devices", directories, lambda *_: None)
            assert set(watch.unwatched) == set(directories), watch.unwatched
        print(*watch.take_warnings(), sep="\\n")
        assert not [watch for watch in gc.get_objects() if isinstance(watch, Watch) and watch.callbacks]

asyncio.run(main())
"""


@pytest.mark.root
def test_unreadable_directory_is_unwatched(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir(mode=0o700)
    command = [sys.executable, "-W", "error", "-c", UNREADABLE, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    [warning] = done.stdout.splitlines()
    assert warning.endswith("Permission denied")


async def test_closed_watch_reports_nothing_and_holds_no_descriptor_and_no_thread(tmp_path: Path) -> None:
    descriptors, threads = count_descriptors(), threading.active_count()
    notices = Notices()
    for _ in range(3):
        watch = DirectoryWatcher()
        watch.set("devices", [tmp_path], notices)
        await wait_for_all_events(watch, tmp_path)
        assert threading.active_count() == threads + 1
        notices.all.clear()
        (tmp_path / "x").touch()
        watch.close()
        watch.close()
        (tmp_path / "x").unlink()
    with closing(DirectoryWatcher()) as another:
        await wait_for_all_events(another, tmp_path)
    assert notices.all == []
    assert watch.unwatched == {}
    assert count_descriptors() == descriptors
    assert threading.active_count() == threads


def test_watch_outlives_its_loop(tmp_path: Path) -> None:
    async def watching() -> DirectoryWatcher:
        watch = DirectoryWatcher()
        watch.set("devices", [tmp_path], Notices())
        return watch

    threads = threading.active_count()
    watch = asyncio.run(watching())
    (tmp_path / "x").touch()
    watch.close()
    assert threading.active_count() == threads


async def test_close_returns_while_events_arrive(tmp_path: Path) -> None:
    flood = "import os\nwhile True: os.close(os.open('x', os.O_CREAT)); os.unlink('x')"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", flood, cwd=tmp_path)
    threads = set(threading.enumerate())
    try:
        watch, notices = DirectoryWatcher(), Notices()
        watch.set("devices", [tmp_path], notices)
        await notices.until(tmp_path, "x")
        # It does not wait until no event arrives.
        watch.close()
        assert set(threading.enumerate()) == threads
    finally:
        process.kill()
        await process.wait()


async def test_callback_changes_the_subscriptions(watch: DirectoryWatcher, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    notices, last = Notices(), Notices()

    def follow(directory: Path, names: frozenset[str]) -> None:
        notices(directory, names)
        watch.set("others", [second], notices)

    watch.set("devices", [first], follow)
    watch.set("last", [first], last)
    (first / "x").touch()
    await notices.until(first, "x")
    await last.until(first, "x")
    shutil.rmtree(first)
    (second / "y").touch()
    await notices.until(second, "y")


async def test_failing_callback_keeps_the_notices_of_others(watch: DirectoryWatcher, tmp_path: Path) -> None:
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(repr(context["exception"])))
    notices = Notices()

    def fail(_directory: Path, _names: frozenset[str]) -> None:
        raise ValueError("broken")

    watch.set("failing", [tmp_path], fail)
    watch.set("devices", [tmp_path], notices)
    (tmp_path / "x").touch()
    await notices.until(tmp_path, "x")
    assert set(failures) == {"ValueError('broken')"}
