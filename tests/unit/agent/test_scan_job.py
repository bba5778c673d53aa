"""The scan of one resource: what becomes of file operations that hang, and of scans that are not wanted any more."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from genplug.agent import scan_job
from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.scan_job import ScanJob, keep_last_known
from genplug.hardware import discovery
from genplug.hardware.dependencies import Changes
from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError, HungPaths
from genplug.hardware.inventory import ResourceScan
from genplug.spec.model import Resource
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.policy import Policy
from tests.support.hardware import NodeTree, build_resource, build_source, open_tree

SPEC = build_resource("example.com/x", build_source("/dev/x*"))


@pytest.fixture
def tree() -> Iterator[NodeTree]:
    with open_tree(NodeTree) as tree:
        tree.plug("/dev/x0")
        yield tree


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Ends what hangs; set at the end of the test."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genplug.agent.scan_job.STALL_SECONDS", 0.1)


def hang_first(monkeypatch: pytest.MonkeyPatch, paths: HungPaths, gate: threading.Event) -> list[Changes | None]:
    """Make each scan begin with a read that hangs, and return the limits of the scans."""
    limits: list[Changes | None] = []

    def scan(
        spec: Resource, host: Host, previous: ResourceScan | None, changes: Changes | None, *, budget: object
    ) -> ResourceScan:
        assert budget is None
        limits.append(changes)
        try:
            paths.record(Access.READ, "/sys/x0/state")
            gate.wait()
        except HangError:
            pass
        return discovery.scan_resource(spec, host, previous, changes)

    monkeypatch.setattr("genplug.agent.scan_job.scan_resource", scan)
    return limits


async def test_scan_returns_its_devices(tree: NodeTree) -> None:
    scan = await ScanJob(SPEC, None, tree.host.cached(), BlockingCalls(HungPaths())).task
    assert [device.id for device in scan.devices] == ["x0"]


async def test_hanging_scan_is_started_again_in_full_without_its_operation(
    tree: NodeTree, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = HungPaths()
    calls = BlockingCalls(paths)
    limits = hang_first(monkeypatch, paths, gate)
    job = ScanJob(SPEC, None, tree.host.cached(), calls, {"/dev": frozenset({"x0"})})
    scan = await asyncio.wait_for(job.task, 10)
    assert [device.id for device in scan.devices] == ["x0"]
    assert limits == [{"/dev": frozenset({"x0"})}, None]
    assert calls.hung == 1


async def test_long_computation_after_a_list_does_not_count_as_a_hang(
    tree: NodeTree, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sort_slowly(text: str) -> tuple[str, str]:
        gate.wait()
        return natural_sort_key(text)

    monkeypatch.setattr("genplug.hardware.file_tree.natural_sort_key", sort_slowly)
    calls = BlockingCalls(paths := HungPaths())
    job = ScanJob(SPEC, None, Host.at(tree.root, recorder=paths.record).cached(), calls)
    assert not await job.wait(3 * scan_job.STALL_SECONDS)
    assert calls.hung == 0
    gate.set()
    assert [device.id for device in (await job.task).devices] == ["x0"]


async def test_scan_that_cannot_be_started_keeps_the_previous_devices(tree: NodeTree) -> None:
    paths = HungPaths()
    previous = discovery.scan_resource(SPEC, tree.host.cached())
    scan = await ScanJob(SPEC, previous, tree.host.cached(), BlockingCalls(paths, max_hung=0)).task
    assert scan.devices == previous.devices
    assert [stall.reason for stall in scan.stalls] == ["0 file operations hang, and no further thread is started"]
    assert [stall.is_known for stall in scan.stalls] == [True]


async def test_first_scan_that_cannot_be_started_keeps_nothing(tree: NodeTree) -> None:
    calls = BlockingCalls(HungPaths(), max_hung=0)
    first = await ScanJob(SPEC, None, tree.host.cached(), calls).task
    second = await ScanJob(SPEC, first, tree.host.cached(), calls).task
    assert [stall.is_known for scan in (first, second) for stall in scan.stalls] == [False, False]


@pytest.mark.parametrize("changes", [None, {}, {"/dev": frozenset({"x0"})}])
async def test_scan_after_a_first_scan_that_could_not_be_started_finds_the_devices(
    tree: NodeTree, changes: Changes | None
) -> None:
    first = await ScanJob(SPEC, None, tree.host.cached(), BlockingCalls(HungPaths(), max_hung=0)).task
    second = await ScanJob(SPEC, first, tree.host.cached(), BlockingCalls(HungPaths()), changes).task
    assert [device.id for device in second.devices] == ["x0"]
    assert second.stalls == ()


async def test_cancelled_scan_that_hangs_counts_as_hung(
    tree: NodeTree, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = HungPaths()
    calls = BlockingCalls(paths)
    hang_first(monkeypatch, paths, gate)
    monkeypatch.setattr("genplug.agent.scan_job.STALL_SECONDS", 0.3)
    job = ScanJob(SPEC, None, tree.host.cached(), calls)
    await job.wait(0.05)
    job.cancel()
    async with asyncio.timeout(10):
        # The deadline of an abandoned call has no event.
        while not calls.hung:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_devices_of_another_policy_are_not_kept(tree: NodeTree) -> None:
    previous = discovery.scan_resource(SPEC, tree.host.cached())
    assert keep_last_known(SPEC, previous, "a reason").devices == previous.devices
    assert keep_last_known(replace(SPEC, policy=Policy()), previous, "a reason").devices == ()
    assert keep_last_known(SPEC, None, "a reason").devices == ()
