"""Allocations with a deadline: what is checked at once, what in a thread, and what fails."""

import threading
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from genplug.agent import bounded_state
from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.bounded_state import BoundedState
from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.allocation.offer import build_offer
from genplug.allocation.resource_state import ResourceState
from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from genplug.kubelet.wire import DeviceList, encode_list
from genplug.spec.globs import Glob
from genplug.spec.model import PreStartSpec
from genplug.spec.policy import Policy
from genplug.spec.template import Template
from tests.support.allocation import DeviceTree, build_mount_spec, build_resource
from tests.support.hardware import LOCATION, NAME, open_tree


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
    state = BoundedState(ResourceState(offer, host), BlockingCalls(HungPaths()), DeviceList())
    edits = await state.allocate(["x0"])
    assert [node.host_path for node in edits.nodes] == ["/dev/x0"]
    assert threads == {threading.get_ident()}


async def test_mount_sources_are_checked_in_a_thread(tree: DeviceTree) -> None:
    tree.write("/opt/lib")
    offer = build_offer(build_resource(mounts=(build_mount_spec("/opt/lib", "/x"),)), tree.make_healthy("x0"))
    host, threads = record_threads(tree)
    state = BoundedState(ResourceState(offer, host), BlockingCalls(HungPaths()), DeviceList())
    edits = await state.allocate(["x0"])
    assert [mount.host_path for mount in edits.mounts] == ["/opt/lib"]
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(
    ("is_recorded", "reason"),
    [(True, "stat of /opt/lib does not return"), (False, f"allocation of {NAME} has not returned within 0.1 s")],
)
async def test_allocation_that_hangs_fails_with_the_operation(
    tree: DeviceTree, monkeypatch: pytest.MonkeyPatch, reason: str, *, is_recorded: bool
) -> None:
    monkeypatch.setattr(bounded_state, "ALLOCATE_SECONDS", 0.1)
    gate, paths = threading.Event(), HungPaths()

    def hang(access: Access, path: str) -> None:
        if is_recorded:
            paths.record(access, path)
        if path == "/opt/lib":
            gate.wait()

    tree.write("/opt/lib")
    offer = build_offer(build_resource(mounts=(build_mount_spec("/opt/lib", "/x"),)), tree.make_healthy("x0", "x1"))
    state = BoundedState(ResourceState(offer, Host.at(tree.root, recorder=hang)), BlockingCalls(paths), DeviceList())
    try:
        with pytest.raises(AllocationError) as error:
            await state.allocate(["x0", "x1"])
    finally:
        gate.set()
    hint = "is the file system mounted and its server reachable?"
    assert str(error.value).startswith(f"{NAME} device x0, x1 cannot be allocated: {reason}")
    assert str(error.value).endswith(f"; {hint}")
    assert error.value.code is AllocationErrorCode.UNAVAILABLE


async def test_answers_that_need_no_file_are_those_of_the_resource_state(tree: DeviceTree) -> None:
    program = PreStartSpec(LOCATION, (Template.parse("/bin/reset"), Template.parse("${name}")), 5)
    spec = replace(build_resource(), pre_start=program, policy=Policy(programs=(Glob.parse("/bin/*"),)))
    state = ResourceState(build_offer(spec, tree.make_healthy("x0", "x1", "x2", "x3")), tree.host)
    bounded = BoundedState(state, BlockingCalls(HungPaths()), encode_list(state.listed))
    assert bounded.options == state.options
    assert [run.arguments for run in bounded.pre_start_programs(["x1"])] == [("/bin/reset", "x1")]
    assert bounded.choose_preferred(["x1", "x2", "x3"], ["x3"], 2) == ("x1", "x3")
