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

from genplug.hardware.inotify import GONE, FolderWatch


class Notices:
    """Collects notices; ``until`` waits for the first that says enough."""

    def __init__(self) -> None:
        self.all: list[tuple[Path, frozenset[str]]] = []
        self._news = asyncio.Event()

    def __call__(self, folder: Path, names: frozenset[str]) -> None:
        self.all.append((folder, names))
        self._news.set()

    async def until(self, folder: Path, *names: str) -> None:
        """Wait until these names were reported; no names: until anything may have changed in the folder."""
        async with asyncio.timeout(5):
            while not self._has(folder, set(names)):
                self._news.clear()
                await self._news.wait()

    def _has(self, folder: Path, names: set[str]) -> bool:
        said = [one for where, one in self.all if where == folder]
        return names <= {name for one in said for name in one} if names else frozenset() in said


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def settled(watch: FolderWatch, folder: Path) -> None:
    """Wait until everything that happened so far has been told, by an event after it."""
    marker = Notices()
    watch.set("settled", [folder], marker)
    (folder / "marker").touch()
    await marker.until(folder, "marker")
    await asyncio.sleep(0)
    watch.unset("settled")
    (folder / "marker").unlink()


@pytest.fixture
async def watch() -> AsyncIterator[FolderWatch]:
    with FolderWatch() as made:
        yield made


async def test_what_comes_goes_and_is_renamed_is_told_by_name(watch: FolderWatch, tmp_path: Path) -> None:
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


async def test_a_notice_comes_within_milliseconds(watch: FolderWatch, tmp_path: Path) -> None:
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    took = []
    for number in range(20):
        started = time.perf_counter()
        (tmp_path / f"x{number}").touch()
        await notices.until(tmp_path, f"x{number}")
        took.append(time.perf_counter() - started)
    assert sorted(took)[10] < 0.005


async def test_a_burst_is_told_in_few_notices(watch: FolderWatch, tmp_path: Path) -> None:
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    for number in range(500):
        (tmp_path / f"x{number}").touch()
    await notices.until(tmp_path, *(f"x{number}" for number in range(500)))
    assert len(notices.all) <= 2


async def test_writing_into_a_file_counts_only_where_contents_are_wanted(watch: FolderWatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    names, contents = Notices(), Notices()
    watch.set("names", [tmp_path], names)
    watch.set("contents", [tmp_path], contents, contents=True)
    (tmp_path / "file").write_text("changed")
    await contents.until(tmp_path, "file")
    await settled(watch, tmp_path)
    assert "file" not in {name for _, said in names.all for name in said}


async def test_opening_a_device_folders_file_wakes_nobody(watch: FolderWatch, tmp_path: Path) -> None:
    (tmp_path / "null").touch()
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    with (tmp_path / "null").open("a"):
        pass
    await settled(watch, tmp_path)
    assert {name for _, said in notices.all for name in said} <= {"marker"}


async def test_two_subscriptions_hear_of_one_folder_and_end_on_their_own(watch: FolderWatch, tmp_path: Path) -> None:
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


async def test_one_folder_under_two_names_is_told_under_both(watch: FolderWatch, tmp_path: Path) -> None:
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


async def test_a_changed_set_stops_the_old_folders_notices(watch: FolderWatch, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    notices = Notices()
    assert watch.set("devices", [tmp_path / "old"], notices)
    assert not watch.set("devices", [tmp_path / "old"], notices)
    assert watch.set("devices", [tmp_path / "new"], notices)
    (tmp_path / "old" / "x").touch()
    (tmp_path / "new" / "y").touch()
    await notices.until(tmp_path / "new", "y")
    assert {folder for folder, _ in notices.all} == {tmp_path / "new"}


@pytest.mark.parametrize("how", ["removed", "moved away", "replaced"])
async def test_a_folder_that_vanished_and_returned_is_watched_again(
    watch: FolderWatch, tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "dri"
    folder.mkdir()
    notices = Notices()
    watch.set("devices", [folder], notices)
    if how == "removed":
        folder.rmdir()
    else:
        folder.rename(tmp_path / "away")
    if how == "replaced":
        folder.mkdir()
    await notices.until(folder)
    assert watch.unwatched == {folder: GONE}
    folder.mkdir(exist_ok=True)
    assert watch.set("devices", [folder], notices)
    assert watch.unwatched == {}
    (folder / "card0").touch()
    await notices.until(folder, "card0")
    assert watch.take_warnings() == ()


async def test_a_folder_that_vanished_before_it_was_watched_is_news_once(watch: FolderWatch, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert watch.set("devices", [missing], Notices())
    assert watch.unwatched == {missing: GONE}
    assert not watch.set("devices", [missing], Notices())
    watch.set("devices", [], Notices())
    assert watch.unwatched == {}


def longest_queue() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


async def test_an_overflowing_queue_means_that_anything_may_have_changed(watch: FolderWatch, tmp_path: Path) -> None:
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
from genplug.hardware.inotify import FolderWatch

limit, base = Path("/proc/sys/user/max_inotify_watches"), Path(sys.argv[1])
folders = [base / name for name in "abc"]

async def main():
    for folder in folders:
        folder.mkdir()
    told = asyncio.Event()
    notice = lambda folder, names: told.set()
    with FolderWatch() as watch:
        watch.set("devices", folders[:1], notice)
        limit.write_text("1")
        assert not watch.set("devices", folders, notice)
        assert set(watch.unwatched) == set(folders[1:]), watch.unwatched
        [warning] = watch.take_warnings()
        assert not watch.set("devices", folders, notice)
        assert watch.take_warnings() == ()
        (folders[0] / "x").touch()
        await asyncio.wait_for(told.wait(), 5)
        limit.write_text("100")
        assert watch.set("devices", folders, notice)
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


async def test_32_without_a_descriptor_every_folder_is_unwatched_and_nothing_fails(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    FolderWatch().close()  # imports what needs files
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() - 1, hard))
    try:
        watch = FolderWatch()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not watch.set("devices", [tmp_path], Notices())
    assert set(watch.unwatched) == {tmp_path}
    assert len(watch.take_warnings()) == 1
    watch.close()


async def test_after_closing_nothing_is_told_and_nothing_is_open(tmp_path: Path) -> None:
    open_before = open_descriptors()
    watch = FolderWatch()
    notices = Notices()
    watch.set("devices", [tmp_path], notices)
    (tmp_path / "x").touch()
    watch.close()
    watch.close()
    with FolderWatch() as another:
        await settled(another, tmp_path)
    assert notices.all == []
    assert open_descriptors() == open_before


async def test_a_callback_may_change_the_subscriptions(watch: FolderWatch, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    notices = Notices()

    def follow(folder: Path, names: frozenset[str]) -> None:
        notices(folder, names)
        watch.set("devices", [second], notices)

    watch.set("devices", [first], follow)
    (first / "x").touch()
    await notices.until(first, "x")
    shutil.rmtree(first)
    (second / "y").touch()
    await notices.until(second, "y")
