"""The reconciler: what is published when, and what a failure leaves behind."""

import asyncio
from collections.abc import Iterator

import pytest

from genplug.agent.reconciler import Reconciler
from genplug.agent.snapshot import NodeScan, Snapshot
from genplug.agent.supervision import Supervised
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.health.monitor import ProbeMonitor
from genplug.health.workers import pool
from genplug.health.workers.process import WorkerProcess
from genplug.observe.events import EventLog
from genplug.spec.model import Config
from tests.support.configs import load_resource
from tests.support.hardware import NodeTree, build_config, build_resource, build_source, open_tree

X = "example.com/x"
CONFIG = build_config(build_resource(X, build_source("/dev/x*")))


@pytest.fixture
def tree() -> Iterator[NodeTree]:
    with open_tree(NodeTree) as tree:
        tree.plug("/dev/x0")
        yield tree


class Publications:
    """Records what a reconciler publishes, each snapshot with the previous one."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[Snapshot, Snapshot | None]] = asyncio.Queue()
        self.failures: list[str] = []

    def __call__(self, snapshot: Snapshot, previous: Snapshot | None) -> None:
        if self.failures:
            raise ValueError(self.failures.pop())
        self.queue.put_nowait((snapshot, previous))

    async def next(self) -> tuple[Snapshot, Snapshot | None]:
        return await asyncio.wait_for(self.queue.get(), 10)


def scan(tree: NodeTree, config: Config = CONFIG) -> NodeScan:
    return NodeScan(config, discover(config, tree.host))


async def test_each_snapshot_is_published_with_the_previous_one(tree: NodeTree) -> None:
    published = Publications()
    reconciler = Reconciler(tree.host, EventLog(), published, lambda: "")
    running = asyncio.create_task(reconciler.run())
    reconciler.submit(scan(tree))
    first, none = await published.next()
    assert none is None
    assert repr(first) == f"<Snapshot of {first.scan!r} [{X}: 1 healthy, 0 unhealthy]>"
    tree.unplug("/dev/x0")
    reconciler.submit(scan(tree))
    second, previous = await published.next()
    assert previous is first
    assert [one.verdict.healthy for one in second.health.devices[X]] == [False]
    running.cancel()


async def test_snapshot_that_cannot_be_published_is_published_by_the_next_attempt(
    tree: NodeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genplug.agent.supervision.RESTART_SECONDS", 0.01)
    published = Publications()
    published.failures.append("a bug")
    reconciler = Reconciler(tree.host, EventLog(), published, lambda: "")
    task = Supervised("reconciler", reconciler.run, EventLog())
    running = asyncio.create_task(task.run())
    reconciler.submit(scan(tree))
    _, previous = await published.next()
    assert previous is None
    assert "ValueError('a bug')" in task.failure
    running.cancel()


async def test_grace_period_that_ends_is_published_without_a_scan(tree: NodeTree) -> None:
    config = build_config(load_resource("devices: [{glob: /dev/x*}]\nhealth: {removalGracePeriodSeconds: 0.2}"))
    published = Publications()
    reconciler = Reconciler(tree.host, EventLog(), published, lambda: "")
    running = asyncio.create_task(reconciler.run())
    reconciler.submit(scan(tree, config))
    await published.next()
    tree.unplug("/dev/x0")
    reconciler.submit(scan(tree, config))
    gone, _ = await published.next()
    assert len(gone.health.devices[X]) == 1
    removed, _ = await published.next()
    assert len(removed.health.devices[X]) == 0
    running.cancel()


@pytest.mark.parametrize(
    ("probe", "workers"), [("file: {path: '/sys/x/${name}'}", 1), ("exec: {command: [/opt/x]}", 0)]
)
async def test_worker_for_reads_starts_before_the_devices_are_known(
    tree: NodeTree, probe: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[WorkerProcess] = []

    class RecordedWorker(WorkerProcess):
        def __init__(self, host: Host, threads: int) -> None:
            super().__init__(host, threads)
            started.append(self)

    monkeypatch.setattr(pool, "WorkerProcess", RecordedWorker)
    tree.write("/sys/x/x0", "ok")
    config = build_config(load_resource(f"devices: [{{glob: /dev/x*}}]\nhealth: {{probes: [{{{probe}}}]}}"))
    published = Publications()
    reconciler = Reconciler(tree.host, EventLog(), published, lambda: "")
    reconciler.prepare(CONFIG)
    assert started == []
    reconciler.prepare(config)
    assert len(started) == workers
    running = [asyncio.create_task(reconciler.run()), asyncio.create_task(reconciler.run_monitor())]
    reconciler.submit(scan(tree, config))
    await published.next()
    # The worker that was started runs the first probes.
    assert len(started) == 1
    for task in running:
        task.cancel()
    await asyncio.wait(running)


async def test_probes_that_fail_are_replaced_and_keep_their_results_until_then(
    tree: NodeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genplug.agent.supervision.RESTART_SECONDS", 0.01)
    run, is_broken = ProbeMonitor.run, asyncio.Event()

    async def fail(monitor: ProbeMonitor) -> None:
        running = asyncio.create_task(run(monitor))
        try:
            await is_broken.wait()
            is_broken.clear()
            raise ValueError("a bug")
        finally:
            running.cancel()

    monkeypatch.setattr(ProbeMonitor, "run", fail)
    tree.write("/sys/x/x0", "bad")
    probe = "probes: [{file: {path: '/sys/x/${name}', equals: ok}}]"
    config = build_config(load_resource(f"devices: [{{glob: /dev/x*}}]\nhealth: {{periodSeconds: 0.1, {probe}}}"))
    published = Publications()
    reconciler = Reconciler(tree.host, EventLog(), published, lambda: "")
    probes = Supervised("probe monitor", reconciler.run_monitor, EventLog())
    running = [asyncio.create_task(reconciler.run()), asyncio.create_task(probes.run())]
    reconciler.submit(scan(tree, config))
    first, _ = await published.next()
    assert [one.verdict.healthy for one in first.health.devices[X]] == [False]
    is_broken.set()
    again, _ = await published.next()
    assert probes.restarts == 1
    assert [one.verdict.healthy for one in again.health.devices[X]] == [False]
    for task in running:
        task.cancel()
    await asyncio.wait(running)
