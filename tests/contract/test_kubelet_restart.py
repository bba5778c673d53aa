"""Restarts, wiped directories and closed streams of the kubelet (points 19 to 25 and 27)."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from genplug.kubelet import endpoint_state
from genplug.kubelet.latest_value import LatestValue
from genplug.kubelet.registration import Registrar
from genplug.kubelet.servicer import DevicePluginServicer, ResourceBackend
from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn, ListMessage, RegisterAttempt, Registration
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.events import drain_events
from tests.support.one_device import OneDevice
from tests.support.processes import count_descriptors, count_threads, read_resident_kib, wait_until_at_most
from tests.support.resources import X_CONFIG, XY_CONFIG, X, Y, build_config, plug_devices
from tests.support.sockets import list_plugin_sockets


class StreamCountingKubelet(KubeletStandIn):
    """Records how many streams of a resource are open at each call of Register."""

    def __init__(self, kubelet_dir: Path, **behavior: Any) -> None:
        super().__init__(kubelet_dir, **behavior)
        self.streams_at_register: list[int] = []

    def record(self, record: RegisterAttempt | Registration | ListMessage) -> None:
        if isinstance(record, RegisterAttempt):
            self.streams_at_register.append(self.stream_count(record.resource))
        super().record(record)


@asynccontextmanager
async def replace_socket(path: Path) -> AsyncIterator[None]:
    """Replace a socket by another with the same server behind it, like a server that listens again."""
    original = path.with_name(".moved.sock")
    path.rename(original)  # noqa: ASYNC240 - a rename does not wait

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(original)
        await asyncio.gather(forward(reader, inner_writer), forward(inner_reader, writer))

    async with await asyncio.start_unix_server(connect, path):
        yield


async def test_19_resource_is_not_registered_while_its_old_stream_is_open(xy_node: FakeNode) -> None:
    xy_node.kubelet = kubelet = StreamCountingKubelet(xy_node.kubelet_dir, disconnect_bug=True)
    faults: list[Callable[[], None]] = [lambda: kubelet.cancel_stream(X), kubelet.wipe]
    async with xy_node.run_agent(X_CONFIG):
        for registrations, cause_fault in enumerate(faults, 2):
            await kubelet.wait_for_list(X, healthy={"x0"})
            cause_fault()
            await kubelet.wait_registered(X, registrations)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.restart()
        await kubelet.wait_for_list(X, healthy={"x0"})
    assert kubelet.streams_at_register == [0] * 4


async def test_19_registration_waits_for_kubelet_that_closes_a_stream_late(xy_node: FakeNode) -> None:
    # With the disconnect bug (kubelet-contract.md §2.3), a late end of the old stream would end the new stream too.
    xy_node.kubelet = kubelet = StreamCountingKubelet(xy_node.kubelet_dir, disconnect_bug=True)
    async with xy_node.run_agent(X_CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        gate = kubelet.faults.stop_reading(X)
        xy_node.plug("/dev/x1")
        await gate.wait_reached()
        kubelet.wipe()
        await asyncio.sleep(0.5)
        assert kubelet.stream_count(X) == 1
        kubelet.faults.clear()
        await kubelet.wait_registered(X, 2)
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await kubelet.admit(X, 2)
    assert kubelet.streams_at_register == [0, 0]


async def test_20_restarted_kubelet_gets_each_resource_once(node: FakeNode) -> None:
    names = [f"example.com/r{letter}" for letter in "abcdefghij"]
    for name in names:
        node.plug(f"/dev/{name.rpartition('/')[2]}0")
    kubelet = node.kubelet
    async with node.run_agent(build_config(names), poll_seconds=0.1):
        await kubelet.wait_for(lambda: all(map(kubelet.devices, names)))
        await kubelet.restart()
        await kubelet.wait_for(lambda: all(map(kubelet.devices, names)))
        # Time for several more polls, which must not register anything.
        await asyncio.sleep(0.5)
        assert sorted(attempt.resource for attempt in kubelet.attempts[10:]) == names
        assert {registration.start for registration in kubelet.registrations[10:]} == {2}
        assert [kubelet.stream_count(name) for name in names] == [1] * 10


async def test_20_returned_kubelet_gets_each_resource_once(
    xy_node: FakeNode,
) -> None:
    kubelet = xy_node.kubelet
    async with xy_node.run_agent(XY_CONFIG) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        await kubelet.crash()
        kubelet.socket.unlink()
        for _ in range(2):
            await next_event(entries, Event.ENDPOINT_PHASE_CHANGED, "waits until kubelet.sock exists")
        await kubelet.start()
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        assert sorted(attempt.resource for attempt in kubelet.attempts) == [X, X, Y, Y]


async def test_21_socket_created_before_the_wipe_is_created_again(xy_node: FakeNode) -> None:
    kubelet = xy_node.kubelet
    async with xy_node.run_agent(X_CONFIG) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.crash()
        # For the stale kubelet.sock the agent has created a new socket; its Register is refused.
        await next_event(entries, Event.REGISTRATION_FAILED)
        [early] = list_plugin_sockets(kubelet)
        assert early != kubelet.registrations[0].endpoint
        await kubelet.start()
        assert early not in list_plugin_sockets(kubelet)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert len(kubelet.attempts) == 2
        assert list(list_plugin_sockets(kubelet)) == [kubelet.registrations[-1].endpoint]


async def test_21_socket_wiped_during_registration_is_created_again(xy_node: FakeNode) -> None:
    # The short dial timeout makes this kubelet refuse the registration while the agent creates the next socket.
    xy_node.kubelet = kubelet = KubeletStandIn(xy_node.kubelet_dir, dial_timeout=0.3)
    await kubelet.start()
    with kubelet.faults.hang_register(X) as gate:
        async with xy_node.run_agent(X_CONFIG):
            await gate.wait_reached()
            [wiped] = list_plugin_sockets(kubelet)
            kubelet.wipe()
            gate.open()
            await kubelet.wait_for_list(X, healthy={"x0"})
            assert kubelet.attempts[0].endpoint == wiped
            assert list(list_plugin_sockets(kubelet)) == [kubelet.registrations[-1].endpoint]
            assert kubelet.stream_count(X) == 1


async def test_22_wiped_sockets_are_created_and_registered_again(xy_node: FakeNode) -> None:
    kubelet = xy_node.kubelet
    async with xy_node.run_agent(XY_CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        kubelet.wipe()
        await kubelet.wait_for(lambda: len(kubelet.registrations) == 4)
        # The kubelet has the disconnect bug: a resource that is registered too early would be unhealthy by now.
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        assert len(kubelet.attempts) == len({attempt.endpoint for attempt in kubelet.attempts}) == 4
        endpoints = {registration.endpoint for registration in kubelet.registrations[-2:]}
        assert list_plugin_sockets(kubelet).keys() == endpoints
        await kubelet.admit(X)


async def test_22_socket_replaced_by_another_process_is_registered_again(xy_node: FakeNode) -> None:
    kubelet = xy_node.kubelet
    async with xy_node.run_agent(X_CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        [first] = list_plugin_sockets(kubelet)
        with socket.socket(socket.AF_UNIX) as other:
            (kubelet.plugins_dir / first).unlink()
            other.bind(str(kubelet.plugins_dir / first))
        await kubelet.wait_registered(X, 2)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert kubelet.registrations[-1].endpoint != first


async def test_23_new_kubelet_sock_with_open_streams_gets_a_delayed_registration(
    xy_node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 3 <= endpoint_state.OLD_STREAM_SECONDS <= 5
    monkeypatch.setattr(endpoint_state, "OLD_STREAM_SECONDS", 0.5)
    xy_node.kubelet = kubelet = StreamCountingKubelet(xy_node.kubelet_dir)
    async with xy_node.run_agent(X_CONFIG, poll_seconds=0.1) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        replaced = time.monotonic()
        async with replace_socket(kubelet.socket):
            await next_event(entries, Event.KUBELET_RESTARTED)
            xy_node.plug("/dev/x1")
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})
            assert len(kubelet.attempts) == 1
            await kubelet.wait_registered(X, 2)
            assert kubelet.attempts[-1].time - replaced > 0.5
            xy_node.plug("/dev/x2")
            await kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"})
            # Time for several more polls, which must not register again.
            await asyncio.sleep(0.7)
            assert kubelet.streams_at_register == [0, 0]
            assert kubelet.stream_count(X) == agent.status.resources[0].streams == 1


async def test_23_new_kubelet_sock_with_a_new_stream_gets_no_registration(
    xy_node: FakeNode, kubelet: KubeletStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_state, "OLD_STREAM_SECONDS", 0.5)
    async with xy_node.run_agent(X_CONFIG) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        async with replace_socket(kubelet.socket), kubelet.connect(X) as client:
            await next_event(entries, Event.KUBELET_RESTARTED)
            stream = client.watch()
            assert (await anext(stream)).devices.healthy == {"x0"}
            await asyncio.sleep(0.7)
            xy_node.plug("/dev/x1")
            assert (await anext(stream)).devices.healthy == {"x0", "x1"}
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})
            assert len(kubelet.attempts) == 1
            await stream.aclose()


@pytest.mark.parametrize("is_kubelet_running", [True, False])
async def test_24_agent_serves_and_idles_without_kubelet_sock(xy_node: FakeNode, *, is_kubelet_running: bool) -> None:
    kubelet = xy_node.kubelet
    async with xy_node.run_agent(XY_CONFIG, poll_seconds=0.02) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        # The second read of the configuration, after its directory is watched, belongs to the start.
        await next_event(entries, Event.CONFIG_UNCHANGED)
        if not is_kubelet_running:
            await kubelet.crash()
        kubelet.socket.unlink()
        await next_event(entries, Event.KUBELET_SOCKET_MISSING)
        # Time for the events that follow immediately.
        await asyncio.sleep(0.2)
        drain_events(entries)

        tasks, memory, used = len(asyncio.all_tasks()), read_resident_kib(), time.process_time()
        await asyncio.sleep(1.5)
        # The agent polls the directory 75 times; a busy loop would use all of that time.
        assert time.process_time() - used < 0.5
        assert read_resident_kib() - memory < 1024
        assert len(asyncio.all_tasks()) <= tasks
        assert agent.status.unready[0].startswith(f"kubelet: {kubelet.socket} does not exist")
        if is_kubelet_running:
            assert entries.empty()
            xy_node.plug("/dev/x1")
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})
            await kubelet.admit(X, ids={"x1"})
        else:
            # The next kubelet would wipe any socket.
            assert list_plugin_sockets(kubelet) == {}
        previous = len(kubelet.attempts)
        await kubelet.restart()
        await kubelet.wait_for_list(X, lambda devices: "x0" in devices.healthy)
        await kubelet.wait_for_list(Y, healthy={"y0"})
        assert sorted(attempt.resource for attempt in kubelet.attempts[previous:]) == [X, Y]


async def test_25_fifty_kubelet_restarts_leak_no_descriptors_or_threads(node: FakeNode) -> None:
    names = [f"example.com/{letter}" for letter in "xyz"]
    plug_devices(node, "x0", "y0", "z0")
    kubelet = node.kubelet

    async def wait_for_lists() -> None:
        for name in names:
            await kubelet.wait_for_list(name, healthy={f"{name[-1]}0"})

    async with node.run_agent(build_config(names)) as agent:
        await wait_for_lists()
        for _ in range(2):
            await kubelet.restart()
            await wait_for_lists()
        tasks, descriptors, threads = len(asyncio.all_tasks()), count_descriptors(), count_threads()
        started = time.monotonic()
        for number in range(1, 51):
            await kubelet.restart()
            await asyncio.sleep(max(started + number * 0.2 - time.monotonic(), 0))
        await wait_for_lists()

        assert [kubelet.stream_count(name) for name in names] == [1, 1, 1]
        assert [resource.streams for resource in agent.status.resources] == [1, 1, 1]
        endpoints = {registration.endpoint for registration in kubelet.registrations[-3:]}
        assert list_plugin_sockets(kubelet).keys() == endpoints
        assert len(kubelet.registrations) <= 53 * 3
        await wait_until_at_most(lambda: len(asyncio.all_tasks()), tasks)
        await wait_until_at_most(count_descriptors, descriptors)
        # The number of threads of gRPC's C core varies with its load.
        await wait_until_at_most(count_threads, threads + 2)


async def test_27_cancelled_stream_is_registered_again_after_a_delay(xy_node: FakeNode) -> None:
    kubelet = xy_node.kubelet
    async with xy_node.run_agent(XY_CONFIG) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        cancelled = time.monotonic()
        kubelet.cancel_stream(X)
        await kubelet.wait_for_list(X, healthy=(), unhealthy={"x0"})
        await kubelet.wait_registered(X, 2)
        # The kubelet processes the disconnect first (§2.3).
        assert kubelet.attempts[-1].time - cancelled > endpoint_state.DISCONNECT_SECONDS
        await kubelet.wait_for_list(X, healthy={"x0"})
        disconnected = await next_event(entries, Event.DISCONNECTED)
        assert disconnected.facts["resource"] == X
        assert "the kubelet closed its stream" in disconnected.text
        assert sorted(attempt.resource for attempt in kubelet.attempts) == [X, X, Y]
        await kubelet.admit(X)


async def test_27_stream_closed_by_the_end_of_a_stray_copy_is_registered_again(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    backend: LatestValue[ResourceBackend] = LatestValue(OneDevice("stray"))
    stray = grpc.aio.server(handlers=[DevicePluginServicer(X, backend, lambda _: None, lambda _: None)])
    stray.add_insecure_port(f"unix:{kubelet.plugins_dir}/stray.sock")
    await stray.start()
    await Registrar(kubelet.plugins_dir).register(X, "stray.sock")
    await kubelet.wait_for_list(X, healthy={"stray"})
    async with xy_node.run_agent(X_CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        # The kubelet has the new connection under the old name, and closes it (kubelet-contract.md §2.3).
        await stray.stop(None)
        await kubelet.wait_for_list(X, healthy=(), unhealthy={"x0"})
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert kubelet.stream_count(X) == 1
        assert len(kubelet.attempts) == 3
