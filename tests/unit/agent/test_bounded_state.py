"""Allocations with a deadline: what is checked at once, what in a thread, and what fails."""

import threading
from collections.abc import Iterator

import pytest

from genplug.agent import bounded_state
from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.bounded_state import BoundedState
from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.allocation.offer import build_offer
from genplug.allocation.resource_state import ResourceState
from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from tests.support.allocation import DeviceTree, build_mount_spec, build_resource
from tests.support.hardware import open_tree


@pytest.fixture
def tree() -> Iterator[DeviceTree]:
    with open_tree(DeviceTree) as tree:
        yield tree


def record_threads(tree: DeviceTree) -> tuple[Host, set[int]]:
    """Return a host of a tree, and the threads that use it."""
    threads: set[int] = set()
    return Host.at(tree.root, recorder=lambda _access, _path: threads.add(threading.get_ident())), threads


async def test_device_nodes_in_dev_are_checked_without_a_thread(tree: DeviceTree) -> None:
    offer = build_offer(build_resource(), tree.make_healthy("x0"))
    host, threads = record_threads(tree)
    state = BoundedState(ResourceState(offer, host), BlockingCalls(HungPaths()))
    edits = await state.allocate(["x0"])
    assert [node.host_path for node in edits.nodes] == ["/dev/x0"]
    assert threads == {threading.get_ident()}


async def test_mount_sources_are_checked_in_a_thread(tree: DeviceTree) -> None:
    tree.write("/opt/lib")
    offer = build_offer(build_resource(mounts=(build_mount_spec("/opt/lib", "/x"),)), tree.make_healthy("x0"))
    host, threads = record_threads(tree)
    state = BoundedState(ResourceState(offer, host), BlockingCalls(HungPaths()))
    edits = await state.allocate(["x0"])
    assert [mount.host_path for mount in edits.mounts] == ["/opt/lib"]
    assert threading.get_ident() not in threads


async def test_allocation_that_hangs_fails_with_the_operation(
    tree: DeviceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_state, "ALLOCATE_SECONDS", 0.1)
    gate, paths = threading.Event(), HungPaths()

    def hang(access: Access, path: str) -> None:
        paths.record(access, path)
        if path == "/opt/lib":
            gate.wait()

    tree.write("/opt/lib")
    offer = build_offer(build_resource(mounts=(build_mount_spec("/opt/lib", "/x"),)), tree.make_healthy("x0"))
    state = BoundedState(ResourceState(offer, Host.at(tree.root, recorder=hang)), BlockingCalls(paths))
    try:
        with pytest.raises(AllocationError, match="device x0 cannot be allocated: stat of /opt/lib does not") as error:
            await state.allocate(["x0"])
    finally:
        gate.set()
    assert error.value.code is AllocationErrorCode.UNAVAILABLE
