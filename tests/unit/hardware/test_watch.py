"""Change notices: prompt, complete where they can be, and honest where they cannot. Every event is the kernel's own."""

import asyncio
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from genplug.hardware.inotify import GONE, DirectoryWatcher


class Notices:
    """Collects notices; ``until`` waits for the first that says enough."""

    def __init__(self) -> None:
        self.all: list[tuple[Path, frozenset[str]]] = []
        self._news = asyncio.Event()

    def __call__(self, directory: Path, names: frozenset[str]) -> None:
        self.all.append((directory, names))
        self._news.set()

    async def until(self, directory: Path, *names: str) -> None:
        """Wait until these names were reported; no names: until anything may have changed in the directory."""
        async with asyncio.timeout(5):
            while not self._has(directory, set(names)):
                self._news.clear()
                await self._news.wait()

    def _has(self, directory: Path, names: set[str]) -> bool:
        said = [one for where, one in self.all if where == directory]
        return names <= {name for one in said for name in one} if names else frozenset() in said


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def settled(watch: DirectoryWatcher, directory: Path) -> None:
    """Wait until everything that happened so far has been told, by an event after it."""
    marker = Notices()
    watch.set("settled", [directory], marker)
    (directory / "marker").touch()
    await marker.until(directory, "marker")
    await asyncio.sleep(0)
    watch.unset("settled")
    (directory / "marker").unlink()


@pytest.fixture
async def watch() -> AsyncIterator[DirectoryWatcher]:
    with DirectoryWatcher() as made:
        yield made


async def test_what_comes_goes_and_is_renamed_is_told_by_name(watch: DirectoryWatcher, tmp_path: Path) -> None:
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


async def test_a_notice_comes_within_milliseconds(watch: DirectoryWatcher, tmp_path: Path) -> None:
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    took = []
    for number in range(20):
        started = time.perf_counter()
        (tmp_path / f"x{number}").touch()
        await notices.until(tmp_path, f"x{number}")
        took.append(time.perf_counter() - started)
    assert sorted(took)[10] < 0.005


async def test_a_burst_is_told_in_few_notices(watch: DirectoryWatcher, tmp_path: Path) -> None:
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    for number in range(500):
        (tmp_path / f"x{number}").touch()
    await notices.until(tmp_path, *(f"x{number}" for number in range(500)))
    assert len(notices.all) <= 2


async def test_writing_into_a_file_counts_only_where_contents_are_wanted(
    watch: DirectoryWatcher, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    names, contents = Notices(), Notices()
    watch.set("names", [tmp_path], names)
    watch.set("contents", [tmp_path], contents, contents=True)
    (tmp_path / "file").write_text("changed")
    await contents.until(tmp_path, "file")
    await settled(watch, tmp_path)
    assert "file" not in {name for _, said in names.all for name in said}


async def test_opening_a_device_directories_file_wakes_nobody(watch: DirectoryWatcher, tmp_path: Path) -> None:
    (tmp_path / "null").touch()
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    with (tmp_path / "null").open("a"):
        pass
    await settled(watch, tmp_path)
    assert {name for _, said in notices.all for name in said} <= {"marker"}


async def test_two_subscriptions_hear_of_one_directory_and_end_on_their_own(
    watch: DirectoryWatcher, tmp_path: Path
) -> None:
    one, other = Notices(), Notices()
    assert watch.set("one", [tmp_path], one)
    assert not watch.set("other", [tmp_path], other)
    (tmp_path / "a").touch()
    await asyncio.gather(one.until(tmp_path, "a"), other.until(tmp_path, "a"))
    watch.unset("one")
    watch.unset("never there")
    (tmp_path / "b").touch()
    await other.until(tmp_path, "b")
    assert "b" not in {name for _, said in one.all for name in said}


async def test_one_directory_under_two_names_is_told_under_both(watch: DirectoryWatcher, tmp_path: Path) -> None:
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


async def test_a_changed_set_stops_the_old_directories_notices(watch: DirectoryWatcher, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("how", ["removed", "moved away", "replaced"])
async def test_a_directory_that_vanished_and_returned_is_watched_again(
    watch: DirectoryWatcher, tmp_path: Path, how: str
) -> None:
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


async def test_a_directory_that_vanished_before_it_was_watched_is_news_once(
    watch: DirectoryWatcher, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    assert watch.set("devices", [missing], Notices())
    assert watch.unwatched == {missing: GONE}
    assert not watch.set("devices", [missing], Notices())
    watch.set("devices", [], Notices())
    assert watch.unwatched == {}


def longest_queue() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


async def test_an_overflowing_queue_means_that_anything_may_have_changed(
    watch: DirectoryWatcher, tmp_path: Path
) -> None:
    other = tmp_path / "quiet"
    other.mkdir()
    busy = tmp_path / "busy"
    busy.mkdir()
    notices = Notices()
    watch.set("devices", [busy, other], notices)
    names = busy / "x", busy / "y"
    names[0].touch()
    for number in range(longest_queue() // 2 + 100):
        names[number % 2].rename(names[(number + 1) % 2])
    await notices.until(busy)
    await notices.until(other)


AT_THE_LIMIT = """
import asyncio, sys
from pathlib import Path
from genplug.hardware.inotify import DirectoryWatcher

limit, base = Path("/proc/sys/user/max_inotify_watches"), Path(sys.argv[1])
directories = [base / name for name in "abc"]

async def main():
    for directory in directories:
        directory.mkdir()
    told = asyncio.Event()
    notice = lambda directory, names: told.set()
    with DirectoryWatcher() as watch:
        watch.set("devices", directories[:1], notice)
        limit.write_text("1")
        assert not watch.set("devices", directories, notice)
        assert set(watch.unwatched) == set(directories[1:]), watch.unwatched
        [warning] = watch.take_warnings()
        assert not watch.set("devices", directories, notice)
        assert watch.take_warnings() == ()
        (directories[0] / "x").touch()
        await asyncio.wait_for(told.wait(), 5)
        limit.write_text("100")
        assert watch.set("devices", directories, notice)
        assert watch.unwatched == {}
        print(warning)

asyncio.run(main())
"""


@pytest.mark.root
def test_32_at_the_watch_limit_it_says_so_once_and_names_the_unwatched(tmp_path: Path) -> None:
    # In a user namespace the limit is our own: the machine's stays as it is.
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", AT_THE_LIMIT, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/" in done.stdout
    assert "fs.inotify.max_user_watches" in done.stdout


async def test_32_without_a_descriptor_every_directory_is_unwatched_and_nothing_fails(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    DirectoryWatcher().close()  # imports what needs files
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() - 1, hard))
    try:
        watch = DirectoryWatcher()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not watch.set("devices", [tmp_path], Notices())
    assert set(watch.unwatched) == {tmp_path}
    assert len(watch.take_warnings()) == 1
    watch.close()


async def test_after_closing_nothing_is_told_and_nothing_is_open(tmp_path: Path) -> None:
    open_before = open_descriptors()
    watch = DirectoryWatcher()
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    (tmp_path / "x").touch()
    watch.close()
    watch.close()
    with DirectoryWatcher() as another:
        await settled(another, tmp_path)
    assert notices.all == []
    assert open_descriptors() == open_before


async def test_a_callback_may_change_the_subscriptions(watch: DirectoryWatcher, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    notices = Notices()

    def follow(directory: Path, names: frozenset[str]) -> None:
        notices(directory, names)
        watch.set("devices", [second], notices)

    watch.set("devices", [first], follow)
    (first / "x").touch()
    await notices.until(first, "x")
    shutil.rmtree(first)
    (second / "y").touch()
    await notices.until(second, "y")
