"""The device scanner: where inventories are built, and what happens meanwhile."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from genplug.agent import device_scanner
from genplug.agent.device_scanner import MAX_BUILDS_IN_THREAD, DeviceScanner
from genplug.agent.settings import Settings
from genplug.agent.snapshot import NodeScan
from genplug.hardware.discovery import build_inventory
from genplug.hardware.hung_paths import HungPaths
from genplug.hardware.inotify import DirectoryWatcher
from genplug.hardware.inventory import Inventory, ResourceScan
from genplug.hardware.ledger import NO_USAGE, Ledger
from genplug.observe.events import EventLog
from genplug.spec.model import Config
from tests.support.hardware import NodeTree, build_config, build_resource, build_source, open_tree

X = "example.com/x"
CONFIG = build_config(build_resource(X, build_source("/dev/x*")))
OTHER = build_config(build_resource(X, build_source("/dev/x*", "/dev/y*")))


@pytest.fixture
def tree() -> Iterator[NodeTree]:
    with open_tree(NodeTree) as tree:
        tree.plug("/dev/x0")
        yield tree


class Builds:
    """The builds of inventories: whether each ran in the event loop, and the allocations and uses that it considered.

    A device of ``during`` is allocated during each build in a thread, and a use of ``report_during`` reported.
    """

    def __init__(self) -> None:
        self.allocations: list[list[str]] = []
        self.in_loop: list[bool] = []
        self.reported: list[list[str]] = []
        self.during: list[str] = []
        self.report_during: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self.scanner: DeviceScanner | None = None

    def __call__(
        self, config: Config, scans: dict[str, ResourceScan], previous: Inventory | None, ledger: Ledger, now: float
    ) -> tuple[Inventory, Ledger]:
        is_in_loop = threading.get_ident() == self._loop_thread
        self.in_loop.append(is_in_loop)
        usage = ledger.usage or NO_USAGE
        self.allocations.append(sorted(id_ for _, id_ in usage.allocations))
        self.reported.append(sorted(usage.ids.get(X, ())))
        if not is_in_loop and self.during:
            # The event loop continues during a build in a thread.
            asyncio.run_coroutine_threadsafe(self._allocate(self.during.pop(0)), self._loop).result(10)
        if not is_in_loop and self.report_during:
            asyncio.run_coroutine_threadsafe(self._report(self.report_during.pop(0)), self._loop).result(10)
        return build_inventory(config, scans, previous, ledger, now)

    async def _allocate(self, device: str) -> None:
        assert self.scanner is not None
        self.scanner.record_allocation(X, [device])

    async def _report(self, device: str) -> None:
        assert self.scanner is not None
        self.scanner.on_usage({X: [device]}, 1.0)


async def _wait_usage() -> None:
    raise AssertionError("the first report has arrived")


class Running:
    """A scanner that runs; ``published`` are its scans."""

    def __init__(self, tree: NodeTree, watcher: DirectoryWatcher) -> None:
        self.published: asyncio.Queue[NodeScan] = asyncio.Queue()
        self.rejected: list[str] = []
        self.scanner = DeviceScanner(
            Settings(config=(Path("/"),), root=tree.root),
            tree.host,
            HungPaths(),
            watcher,
            EventLog(),
            publish=self.published.put_nowait,
            accept=lambda _: None,
            reject=lambda _, reason: self.rejected.append(reason),
            ask_usage=lambda _: None,
            wait_usage=_wait_usage,
        )
        self.scanner.on_usage({}, 0.0)

    async def reload(self, config: Config) -> Inventory:
        self.scanner.submit(config)
        return (await asyncio.wait_for(self.published.get(), 10)).inventory


@asynccontextmanager
async def running(tree: NodeTree, builds: Builds) -> AsyncIterator[Running]:
    with closing(DirectoryWatcher()) as watcher:
        made = Running(tree, watcher)
        builds.scanner = made.scanner
        task = asyncio.create_task(made.scanner.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
async def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    made = Builds()
    monkeypatch.setattr(device_scanner, "build_inventory", made)
    monkeypatch.setattr(device_scanner, "MIN_DEVICES_IN_THREAD", 1)
    return made


async def test_inventory_of_a_reload_is_built_in_a_thread(tree: NodeTree, builds: Builds) -> None:
    async with running(tree, builds) as agent:
        await agent.reload(CONFIG)
        tree.plug("/dev/y0")
        inventory = await agent.reload(OTHER)
    assert [device.id for device in inventory.devices[X]] == ["x0", "y0"]
    assert builds.in_loop[0] is True
    assert builds.in_loop[1] is False


async def test_inventory_of_few_devices_is_built_in_the_event_loop(
    tree: NodeTree, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_scanner, "MIN_DEVICES_IN_THREAD", 2)
    async with running(tree, builds) as agent:
        await agent.reload(CONFIG)
        await agent.reload(OTHER)
    assert set(builds.in_loop) == {True}


async def test_allocation_during_a_build_that_keeps_its_device_is_added_to_the_ledger(
    tree: NodeTree, builds: Builds
) -> None:
    async with running(tree, builds) as agent:
        await agent.reload(CONFIG)
        before = len(builds.allocations)
        builds.during.append("x0")
        await agent.reload(OTHER)
        await agent.reload(CONFIG)
        assert builds.allocations[before:][:2] == [[], ["x0"]]
        assert builds.in_loop[before:][:2] == [False, False]


@pytest.mark.parametrize("device", ["x1", "token-0"])
async def test_inventory_is_built_again_after_an_allocation_of_another_device(
    tree: NodeTree, builds: Builds, device: str
) -> None:
    tree.plug("/dev/x1")
    async with running(tree, builds) as agent:
        await agent.reload(CONFIG)
        tree.unplug("/dev/x1")
        before = len(builds.allocations)
        builds.during.append(device)
        inventory = await agent.reload(OTHER)
        assert [device.id for device in inventory.devices[X]] == ["x0"]
        assert builds.allocations[before:][:2] == [[], [device]]
        assert builds.in_loop[before:][:2] == [False, False]


async def test_inventory_is_built_again_after_a_report_during_its_build(tree: NodeTree, builds: Builds) -> None:
    async with running(tree, builds) as agent:
        await agent.reload(CONFIG)
        before = len(builds.reported)
        builds.report_during.append("x0")
        await agent.reload(OTHER)
        assert builds.reported[before:][:2] == [[], ["x0"]]
        assert builds.reported[-1] == ["x0"]


async def test_inventory_is_built_in_the_event_loop_after_many_allocations(tree: NodeTree, builds: Builds) -> None:
    async with running(tree, builds) as agent:
        await agent.reload(CONFIG)
        before = len(builds.allocations)
        builds.during += [f"y{number}" for number in range(9)]
        await agent.reload(OTHER)
        last = before + MAX_BUILDS_IN_THREAD
        assert builds.in_loop[before : last + 1] == [False] * MAX_BUILDS_IN_THREAD + [True]
        assert builds.allocations[last] == [f"y{number}" for number in range(MAX_BUILDS_IN_THREAD)]
    assert agent.rejected == []
