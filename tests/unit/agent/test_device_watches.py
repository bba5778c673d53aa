"""Watches of the directories of devices: what is reported, and what becomes of directories that do not respond."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing

import pytest

from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.device_watches import DeviceWatches
from genplug.hardware.discovery import discover
from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths, Operation
from genplug.hardware.inotify import DirectoryWatcher
from genplug.hardware.inventory import Inventory
from genplug.observe.events import EventLog
from tests.support.hardware import NodeTree, build_config, build_resource, build_source, open_tree

CONFIG = build_config(build_resource("example.com/x", build_source("/dev/x*")))
BOTH = build_config(build_resource("example.com/x", build_source("/dev/x*", "/mnt/y*")))


@pytest.fixture
def tree() -> Iterator[NodeTree]:
    with open_tree(NodeTree) as tree:
        tree.plug("/dev/x0")
        yield tree


class Running:
    """Watches that run; ``changes`` and ``gaps`` are what they reported."""

    def __init__(self, host: Host, paths: HungPaths, watcher: DirectoryWatcher) -> None:
        self.changes: asyncio.Queue[tuple[str, frozenset[str]]] = asyncio.Queue()
        self.gaps: asyncio.Queue[None] = asyncio.Queue()
        self.calls = BlockingCalls(paths)
        self.watches = DeviceWatches(
            host,
            watcher,
            self.calls,
            EventLog(),
            lambda directory, names: self.changes.put_nowait((directory, names)),
            lambda: self.gaps.put_nowait(None),
        )


@asynccontextmanager
async def running(host: Host, paths: HungPaths) -> AsyncIterator[Running]:
    with closing(DirectoryWatcher()) as watcher:
        made = Running(host, paths, watcher)
        task = asyncio.create_task(made.watches.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_change_is_reported_with_the_directory_of_the_host(tree: NodeTree) -> None:
    async with running(tree.host, HungPaths()) as made:
        made.watches.follow(discover(CONFIG, tree.host))
        await asyncio.wait_for(made.gaps.get(), 10)
        tree.plug("/dev/x1")
        directory, names = await asyncio.wait_for(made.changes.get(), 10)
        assert directory == "/dev"
        assert names == {"x1"}


async def test_directory_that_hangs_keeps_its_watch(tree: NodeTree) -> None:
    paths = HungPaths()
    host = Host.at(tree.root, recorder=paths.record)
    tree.make_directory("/mnt")
    both = discover(BOTH, host)
    async with running(host, paths) as made:
        made.watches.follow(discover(CONFIG, host))
        await asyncio.wait_for(made.gaps.get(), 10)
        paths.add(Operation(Access.STAT, "/dev", time.monotonic()))
        made.watches.follow(both)
        # The other directory is watched now, so the update is over.
        await asyncio.wait_for(made.gaps.get(), 10)
        tree.plug("/dev/x1")
        assert (await asyncio.wait_for(made.changes.get(), 10))[0] == "/dev"


async def test_directory_that_begins_to_hang_is_left_out_of_the_next_attempt(
    tree: NodeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genplug.agent.device_watches.WATCH_SECONDS", 0.1)
    tree.make_directory("/mnt")
    inventory = discover(BOTH, tree.host)
    gate, paths = threading.Event(), HungPaths()

    def hang(access: Access, path: str) -> None:
        paths.record(access, path)
        if path == "/mnt":
            gate.wait()

    try:
        async with running(Host.at(tree.root, recorder=hang), paths) as made:
            made.watches.follow(inventory)
            await asyncio.wait_for(made.gaps.get(), 10)
            assert made.calls.hung == 1
            tree.plug("/dev/x1")
            assert (await asyncio.wait_for(made.changes.get(), 10))[0] == "/dev"
    finally:
        gate.set()


async def test_directory_that_is_watched_before_its_scan_needs_no_second_scan(tree: NodeTree) -> None:
    with closing(DirectoryWatcher()) as watcher:
        made = Running(tree.host, HungPaths(), watcher)
        await made.watches.prepare({"/dev", "/missing"})
        tree.plug("/dev/x1")
        assert (await asyncio.wait_for(made.changes.get(), 10))[0] == "/dev"
        nothing = Inventory({}, (), (), frozenset())
        # A part of the inventory is published before the scan of the resource has finished.
        for inventory, is_complete in ((nothing, False), (discover(CONFIG, tree.host), True)):
            made.watches.follow(inventory, is_complete=is_complete)
            await made.watches._update(inventory)  # noqa: SLF001 - one turn of its task
            assert made.gaps.empty()
        # A directory that no resource needs is not watched, and has a gap when it is needed again.
        for inventory in (nothing, discover(CONFIG, tree.host)):
            made.watches.follow(inventory)
            await made.watches._update(inventory)  # noqa: SLF001
        assert made.gaps.qsize() == 1


async def test_directory_that_does_not_respond_is_watched_after_the_scan(tree: NodeTree) -> None:
    inventory, paths, gate = discover(CONFIG, tree.host), HungPaths(), threading.Event()

    def hang(access: Access, path: str) -> None:
        paths.record(access, path)
        gate.wait()

    async with running(Host.at(tree.root, recorder=hang), paths) as made:
        try:
            await made.watches.prepare({"/dev"})
        finally:
            gate.set()
        made.watches.follow(inventory)
        await asyncio.wait_for(made.gaps.get(), 10)
