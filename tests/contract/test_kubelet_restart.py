"""A kubelet that comes back, wipes, hangs up or stays away (contract 10: 19 to 25, 27)."""

import asyncio
import gc
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from genplug.kubelet import endpoint_state as generation
from genplug.kubelet.latest_value import LatestValue
from genplug.kubelet.registration import Registrar
from genplug.kubelet.servicer import DevicePluginServicer, ResourceBackend
from genplug.observe.events import Event
from genplug.testing.kubelet.records import ListMessage, RegisterAttempt, Registration
from genplug.testing.kubelet.stand_in import KubeletStandIn
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.one_device import OneDevice

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\n"
X, Y = "example.com/x", "example.com/y"
CONFIG = HEAD + "resources: {example.com/x: {devices: [{glob: /dev/x*}]}}"
BOTH = HEAD + "resources: {example.com/x: {devices: [{glob: /dev/x*}]}, example.com/y: {devices: [{glob: /dev/y*}]}}"


class Watchful(KubeletStandIn):
    """Writes down how many lists of a resource are open when it is registered again."""

    def __init__(self, kubelet_dir: Path, **behavior: Any) -> None:
        super().__init__(kubelet_dir, **behavior)
        self.open_at_attempts: list[int] = []

    def record(self, record: RegisterAttempt | Registration | ListMessage) -> None:
        if isinstance(record, RegisterAttempt):
            self.open_at_attempts.append(self.stream_count(record.resource))
        super().record(record)


def own_sockets(kubelet: KubeletStandIn) -> set[Path]:
    return {one for one in kubelet.plugins_dir.iterdir() if one.is_socket() and one != kubelet.socket}


def offering(names: Sequence[str]) -> str:
    """A configuration in which every resource has the devices of the last part of its name."""
    lines = (f"  {name}: {{devices: [{{glob: '/dev/{name.rpartition('/')[2]}*'}}]}}\n" for name in names)
    return f"{HEAD}resources:\n{''.join(lines)}"


async def settled(number: Callable[[], int], most: int) -> int:
    """A number that falls to this or below it in time, however late gRPC's core lets go of things."""
    try:
        async with asyncio.timeout(5):
            while number() > most:
                gc.collect()
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    return number()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def threads() -> int:
    """All of this process; those of gRPC's core are none of Python's."""
    return len(list(Path("/proc/self/task").iterdir()))


def resident() -> int:
    """This process's memory in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@asynccontextmanager
async def moved(path: Path) -> AsyncIterator[None]:
    """Replace a socket by another one with the same server behind it, as a server does that listens again."""
    real = path.with_name(".moved.sock")
    path.rename(real)  # noqa: ASYNC240 - a rename does not wait

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(1 << 16):
            writer.write(some)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(real)
        await asyncio.gather(forward(reader, inner_writer), forward(inner_reader, writer))

    async with await asyncio.start_unix_server(connected, path):
        yield


@pytest.fixture
def plugged(node: FakeNode) -> FakeNode:
    for name in ("x0", "y0"):
        node.plug(f"/dev/{name}")
    return node


async def test_19_resource_is_not_registered_while_its_old_stream_is_open(plugged: FakeNode) -> None:
    plugged.kubelet = kubelet = Watchful(plugged.kubelet_dir, disconnect_bug=True)
    troubles: list[Callable[[], None]] = [lambda: kubelet.cancel_stream(X), kubelet.wipe]
    async with plugged.run_agent(CONFIG):
        for number, trouble in enumerate(troubles, 2):
            await kubelet.wait_for_list(X, healthy={"x0"})
            trouble()
            await kubelet.wait_registered(X, number)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.restart()
        await kubelet.wait_for_list(X, healthy={"x0"})
    assert kubelet.open_at_attempts == [0] * 4


async def test_19_registration_waits_for_kubelet_that_closes_a_stream_late(plugged: FakeNode) -> None:
    # It has the disconnect bug: what it noticed too late would take the new list along (contract 2.3).
    plugged.kubelet = kubelet = Watchful(plugged.kubelet_dir, disconnect_bug=True)
    async with plugged.run_agent(CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        gate = kubelet.faults.stop_reading(X)
        plugged.plug("/dev/x1")
        await gate.wait_reached()
        kubelet.wipe()
        await asyncio.sleep(0.5)
        assert kubelet.stream_count(X) == 1
        kubelet.faults.clear()
        await kubelet.wait_registered(X, 2)
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await kubelet.admit(X, 2)
    assert kubelet.open_at_attempts == [0, 0]


async def test_20_restarted_kubelet_gets_each_resource_once_within_two_seconds(node: FakeNode) -> None:
    names = [f"example.com/r{letter}" for letter in "abcdefghij"]
    for name in names:
        node.plug(f"/dev/{name.rpartition('/')[2]}0")
    kubelet = node.kubelet
    async with node.run_agent(offering(names), poll=0.1):
        await kubelet.wait_for(lambda: all(map(kubelet.devices, names)))
        restarted = time.monotonic()
        await kubelet.restart()
        await kubelet.wait_for(lambda: all(map(kubelet.devices, names)))
        assert kubelet.registrations[-1].time - restarted < 2
        # Several more looks at everything: nothing else comes of them.
        await asyncio.sleep(0.5)
        assert sorted(one.resource for one in kubelet.attempts[10:]) == names
        assert {one.start for one in kubelet.registrations[10:]} == {2}
        assert [kubelet.stream_count(name) for name in names] == [1] * 10


async def test_20_returned_kubelet_gets_each_resource_once_within_two_seconds(
    plugged: FakeNode,
) -> None:
    kubelet = plugged.kubelet
    async with plugged.run_agent(BOTH) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        await kubelet.crash()
        kubelet.socket.unlink()
        for _ in range(2):
            await next_event(entries, Event.ENDPOINT_PHASE_CHANGED, "holds until kubelet.sock appears")
        started = time.monotonic()
        await kubelet.start()
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        assert kubelet.registrations[-1].time - started < 2
        assert sorted(one.resource for one in kubelet.attempts) == [X, X, Y, Y]


async def test_21_socket_created_before_the_wipe_is_created_again(plugged: FakeNode) -> None:
    kubelet = plugged.kubelet
    async with plugged.run_agent(CONFIG) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.crash()
        # The stale kubelet.sock is there: a new socket was made for it, and nobody listened.
        await next_event(entries, Event.REGISTRATION_FAILED)
        [early] = own_sockets(kubelet)
        assert early.name != kubelet.registrations[0].endpoint
        started = time.monotonic()
        await kubelet.start()
        assert not early.exists()
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert kubelet.registrations[-1].time - started < 2
        assert len(kubelet.attempts) == 2
        assert own_sockets(kubelet) == {kubelet.plugins_dir / kubelet.registrations[-1].endpoint}


async def test_21_socket_wiped_during_registration_is_created_again(plugged: FakeNode) -> None:
    # This kubelet gives up dialing soon, so that its refusal comes into the midst of it.
    plugged.kubelet = kubelet = KubeletStandIn(plugged.kubelet_dir, dial_timeout=0.3)
    await kubelet.start()
    with kubelet.faults.hang_register(X) as gate:
        async with plugged.run_agent(CONFIG):
            await gate.wait_reached()
            [wiped] = own_sockets(kubelet)
            kubelet.wipe()
            gate.open()
            await kubelet.wait_for_list(X, healthy={"x0"})
            assert kubelet.attempts[0].endpoint == wiped.name
            assert own_sockets(kubelet) == {kubelet.plugins_dir / kubelet.registrations[-1].endpoint}
            assert kubelet.stream_count(X) == 1


async def test_22_wiped_sockets_are_created_and_registered_again(plugged: FakeNode) -> None:
    kubelet = plugged.kubelet
    async with plugged.run_agent(BOTH):
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        kubelet.wipe()
        await kubelet.wait_for(lambda: len(kubelet.registrations) == 4)
        # The kubelet has the disconnect bug: what came too early would be Unhealthy by now.
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        assert len(kubelet.attempts) == len({one.endpoint for one in kubelet.attempts}) == 4
        assert {one.name for one in own_sockets(kubelet)} == {one.endpoint for one in kubelet.registrations[-2:]}
        await kubelet.admit(X)


async def test_22_socket_replaced_by_another_process_is_registered_again(plugged: FakeNode) -> None:
    kubelet = plugged.kubelet
    async with plugged.run_agent(CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        [first] = own_sockets(kubelet)
        with socket.socket(socket.AF_UNIX) as stranger:
            first.unlink()
            stranger.bind(str(first))
        await kubelet.wait_registered(X, 2)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert kubelet.registrations[-1].endpoint != first.name


async def test_23_new_kubelet_sock_with_open_streams_gets_a_delayed_registration(
    plugged: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 3 <= generation.OLD_STREAM_SECONDS <= 5
    monkeypatch.setattr(generation, "OLD_STREAM_SECONDS", 0.5)
    plugged.kubelet = kubelet = Watchful(plugged.kubelet_dir)
    async with plugged.run_agent(CONFIG, poll=0.1) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        async with moved(kubelet.socket):
            await next_event(entries, Event.KUBELET_RESTARTED)
            replaced = time.monotonic()
            plugged.plug("/dev/x1")
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})
            assert len(kubelet.attempts) == 1
            await kubelet.wait_registered(X, 2)
            assert kubelet.attempts[1].time - replaced > 0.45
            plugged.plug("/dev/x2")
            await kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"})
            # Nothing more comes of it, however often it is looked at.
            await asyncio.sleep(0.7)
            assert kubelet.open_at_attempts == [0, 0]
            assert kubelet.stream_count(X) == agent.status.resources[0].streams == 1


async def test_23_new_kubelet_sock_with_a_new_stream_gets_no_registration(
    plugged: FakeNode, kubelet: KubeletStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "OLD_STREAM_SECONDS", 0.5)
    async with plugged.run_agent(CONFIG) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        async with moved(kubelet.socket), kubelet.connect(X) as dialled:
            await next_event(entries, Event.KUBELET_RESTARTED)
            lists = dialled.watch()
            assert (await anext(lists)).devices.healthy == {"x0"}
            await asyncio.sleep(0.7)
            plugged.plug("/dev/x1")
            assert (await anext(lists)).devices.healthy == {"x0", "x1"}
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})
            assert len(kubelet.attempts) == 1
            await lists.aclose()


@pytest.mark.parametrize("is_kubelet_there", [True, False])
async def test_24_agent_serves_and_idles_without_kubelet_sock(plugged: FakeNode, *, is_kubelet_there: bool) -> None:
    kubelet = plugged.kubelet
    async with plugged.run_agent(BOTH, poll=0.02) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        # The second look at new directories of the configuration belongs to the start.
        await next_event(entries, Event.CONFIG_UNCHANGED)
        if not is_kubelet_there:
            await kubelet.crash()
        kubelet.socket.unlink()
        await next_event(entries, Event.KUBELET_SOCKET_MISSING)
        # Whatever comes at once has come by then.
        await asyncio.sleep(0.2)
        while not entries.empty():
            entries.get_nowait()

        tasks, memory, used = len(asyncio.all_tasks()), resident(), time.process_time()
        await asyncio.sleep(1.5)
        # 75 looks at the directory; a loop without a pause would have taken all of that time.
        assert time.process_time() - used < 0.15
        assert resident() - memory < 1024
        assert len(asyncio.all_tasks()) <= tasks
        assert agent.status.unready[0].startswith(f"kubelet: {kubelet.socket} is not there")
        if is_kubelet_there:
            assert entries.empty()
            plugged.plug("/dev/x1")
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})
            await kubelet.admit(X, ids={"x1"})
        else:
            # What is bound now, the next kubelet would wipe.
            assert own_sockets(kubelet) == set()
        known = len(kubelet.attempts)
        await kubelet.restart()
        await kubelet.wait_for_list(X, lambda devices: "x0" in devices.healthy)
        await kubelet.wait_for_list(Y, healthy={"y0"})
        assert sorted(one.resource for one in kubelet.attempts[known:]) == [X, Y]


async def test_25_fifty_kubelet_restarts_leak_no_descriptors_or_threads(node: FakeNode) -> None:
    names = [f"example.com/{letter}" for letter in "xyz"]
    for letter in "xyz":
        node.plug(f"/dev/{letter}0")
    kubelet = node.kubelet

    async def listed() -> None:
        for name in names:
            await kubelet.wait_for_list(name, healthy={f"{name[-1]}0"})

    async with node.run_agent(offering(names)) as agent:
        await listed()
        for _ in range(2):
            await kubelet.restart()
            await listed()
        before = {"tasks": len(asyncio.all_tasks()), "descriptors": descriptors(), "threads": threads()}
        began = time.monotonic()
        for number in range(1, 51):
            await kubelet.restart()
            await asyncio.sleep(max(began + number * 0.2 - time.monotonic(), 0))
        await listed()

        assert [kubelet.stream_count(name) for name in names] == [1, 1, 1]
        assert [one.streams for one in agent.status.resources] == [1, 1, 1]
        assert {one.name for one in own_sockets(kubelet)} == {one.endpoint for one in kubelet.registrations[-3:]}
        assert len(kubelet.registrations) <= 53 * 3
        assert await settled(lambda: len(asyncio.all_tasks()), before["tasks"]) <= before["tasks"]
        assert await settled(descriptors, before["descriptors"]) <= before["descriptors"]
        # gRPC's core keeps a few more or fewer, as the load was.
        assert await settled(threads, before["threads"]) <= before["threads"] + 2


async def test_27_cancelled_stream_is_registered_again_after_a_delay(plugged: FakeNode) -> None:
    kubelet = plugged.kubelet
    async with plugged.run_agent(BOTH) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        kubelet.cancel_stream(X)
        cancelled = time.monotonic()
        await kubelet.wait_for_list(X, healthy=(), unhealthy={"x0"})
        await kubelet.wait_registered(X, 2)
        assert 1 < kubelet.attempts[-1].time - cancelled < 3
        await kubelet.wait_for_list(X, healthy={"x0"})
        said = await next_event(entries, Event.DISCONNECTED)
        assert said.facts["resource"] == X
        assert "the kubelet closed its stream" in said.text
        assert sorted(one.resource for one in kubelet.attempts) == [X, X, Y]
        await kubelet.admit(X)


async def test_27_stream_closed_by_the_end_of_a_stray_copy_is_registered_again(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    answers: LatestValue[ResourceBackend] = LatestValue(OneDevice("stray"))
    stray = grpc.aio.server(handlers=[DevicePluginServicer(X, answers, lambda _: None, lambda _: None)])
    stray.add_insecure_port(f"unix:{kubelet.plugins_dir}/stray.sock")
    await stray.start()
    await Registrar(kubelet.plugins_dir).register(X, "stray.sock")
    await kubelet.wait_for_list(X, healthy={"stray"})
    async with plugged.run_agent(CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        # The kubelet finds the new connection under the old one's name, and closes that (contract 2.3).
        await stray.stop(None)
        await kubelet.wait_for_list(X, healthy=(), unhealthy={"x0"})
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert kubelet.stream_count(X) == 1
        assert len(kubelet.attempts) == 3
