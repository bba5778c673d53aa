"""How resources come to the kubelet, whatever it says to that (contract 10: 1 to 8, 10 to 15, 18)."""

import asyncio
import itertools
import os
import socket
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from genplug.agent import Agent
from genplug.kubelet import endpoint_state as generation
from genplug.kubelet import registration
from genplug.kubelet.api.services import DEVICE_PLUGIN, REGISTRATION, method_path
from genplug.observe.events import Event, LogEvent
from genplug.testing.kubelet.plugin_client import PluginClient
from genplug.testing.kubelet.stand_in import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\n"
X, Y = "example.com/x", "example.com/y"
CONFIG = HEAD + "resources: {example.com/x: {devices: [{glob: /dev/x*}]}}"
BOTH = HEAD + "resources: {example.com/x: {devices: [{glob: /dev/x*}]}, example.com/y: {devices: [{glob: /dev/y*}]}}"
WRONG_VERSION = 'requested API version "v1beta1" is not supported by kubelet. Supported version is ["v1"]'
WRONG_NAME = f'the ResourceName "{X}" is invalid'

Timed = tuple[float, LogEvent]


def heard(agent: Agent) -> "asyncio.Queue[Timed]":
    """What the agent writes into its event_log from now on, and when."""
    entries: asyncio.Queue[Timed] = asyncio.Queue()
    agent.event_log.listen(lambda entry: entries.put_nowait((time.monotonic(), entry)))
    return entries


async def told(entries: "asyncio.Queue[Timed]", event: Event, words: str = "") -> Timed:
    async with asyncio.timeout(10):
        while True:
            when, entry = await entries.get()
            if entry.event is event and words in entry.text:
                return when, entry


def times(entries: "asyncio.Queue[Timed]", event: Event) -> int:
    """How often this was told since the last look."""
    return sum(entries.get_nowait()[1].event is event for _ in range(entries.qsize()))


def own_sockets(kubelet: KubeletStandIn) -> set[Path]:
    return {one for one in kubelet.plugins_dir.iterdir() if one.is_socket() and one != kubelet.socket}


def resources(names: Iterable[str]) -> str:
    """A configuration in which every resource has the one device ``/dev/<last part of its name>``."""
    lines = (f"  ? {name}\n  : {{devices: [{{glob: /dev/{name.rpartition('/')[2]}}}]}}\n" for name in names)
    return f"{HEAD}resources:\n{''.join(lines)}"


@pytest.fixture
def plugged(node: FakeNode) -> FakeNode:
    for name in ("x0", "y0"):
        node.plug(f"/dev/{name}")
    return node


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Every call that a server in this process gets, the kubelet's and the plugins', with its time."""
    calls: list[tuple[str, float]] = []

    class Noted(grpc.aio.ServerInterceptor):
        async def intercept_service(
            self,
            continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
            handler_call_details: grpc.HandlerCallDetails,
        ) -> Any:
            calls.append((handler_call_details.method, time.monotonic()))
            return await continuation(handler_call_details)

    server = grpc.aio.server
    monkeypatch.setattr(grpc.aio, "server", lambda **options: server(**options, interceptors=[Noted()]))
    return calls


@pytest.fixture
def without_umask() -> Iterator[None]:
    before = os.umask(0o000)
    yield
    os.umask(before)


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gp", dir="/tmp") as directory:
        yield Path(directory)


async def test_01_agent_waits_for_kubelet_sock_and_registers_when_it_appears(plugged: FakeNode) -> None:
    late = KubeletStandIn(plugged.directory / "l")
    late.plugins_dir.mkdir(parents=True)
    async with plugged.run_agent(CONFIG, kubelet_dir=plugged.directory / "l") as agent:
        entries = heard(agent)
        _, said = await told(entries, Event.KUBELET_SOCKET_MISSING)
        assert str(late.socket) in said.text
        await told(entries, Event.ENDPOINT_PHASE_CHANGED, "waiting for kubelet.sock")
        assert [reason.split(":")[0] for reason in agent.status.unready] == ["kubelet", X]
        started = time.monotonic()
        async with late:
            await late.wait_for_list(X, healthy={"x0"})
            assert late.registrations[0].time - started < 2
            await told(entries, Event.REGISTERED)
            assert agent.status.is_ready


async def test_01_kubelet_sock_that_appears_without_a_wipe_gets_registrations(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    hidden = kubelet.socket.rename(kubelet.socket.with_name(".hidden"))
    async with plugged.run_agent(CONFIG) as agent:
        await told(heard(agent), Event.ENDPOINT_PHASE_CHANGED, "waiting for kubelet.sock")
        sockets = own_sockets(kubelet)
        appeared = time.monotonic()
        hidden.rename(kubelet.socket)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert kubelet.registrations[0].time - appeared < 2
        assert own_sockets(kubelet) == sockets - {hidden}


async def test_02_stale_kubelet_sock_is_retried_with_back_off(plugged: FakeNode) -> None:
    late = KubeletStandIn(plugged.directory / "l")
    await late.start()
    await late.crash()
    assert late.socket.is_socket()
    async with plugged.run_agent(CONFIG, kubelet_dir=plugged.directory / "l") as agent:
        entries = heard(agent)
        failures = [await told(entries, Event.REGISTRATION_FAILED) for _ in range(3)]
        assert all("connection refused" in entry.text for _, entry in failures)
        first, second, third = (when for when, _ in failures)
        assert 0.1 <= second - first < 1 <= third - second
        # Left alone, it would be tried again in two seconds.
        started = time.monotonic()
        async with late:
            await late.wait_for_list(X, healthy={"x0"})
            assert late.registrations[0].time - started < 1
            assert len(late.attempts) == 1


async def test_03_plugin_server_answers_before_register_is_sent(
    served: list[tuple[str, float]], plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    with kubelet.faults.hang_register() as gate:
        async with plugged.run_agent(BOTH):
            await gate.wait_reached(2)
            methods = [method for method, _ in served]
            answers, requests = (
                method_path(DEVICE_PLUGIN, "GetDevicePluginOptions"),
                method_path(REGISTRATION, "Register"),
            )
            assert sorted(methods) == [answers, answers, requests, requests]
            # The two resources do not wait for each other.
            assert methods[0] == answers
            assert methods[-1] == requests
            # And it does so at that moment, to everything.
            for attempt in kubelet.attempts:
                client = PluginClient(attempt.resource, str(kubelet.plugins_dir / attempt.endpoint))
                await client.dial(1)
                await client.call_method("Allocate", timeout=1)
                assert (await anext(client.watch())).devices.healthy == {f"{attempt.resource[-1]}0"}
                await client.close()


async def test_04_kubelet_that_dials_back_inside_register_is_answered(
    served: list[tuple[str, float]], plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    assert kubelet.version >= (1, 25)
    async with plugged.run_agent(CONFIG):
        registered = await kubelet.wait_registered(X)
        await kubelet.wait_for_list(X, healthy={"x0"})
    [attempt] = kubelet.attempts
    inside = [method for method, when in served if attempt.time < when < registered.time]
    assert inside == [method_path(DEVICE_PLUGIN, "GetDevicePluginOptions")]
    assert registered.time - attempt.time < 1


async def test_04_kubelet_that_dials_back_after_register_gets_a_single_register(
    served: list[tuple[str, float]],
) -> None:
    async with FakeNode(version=(1, 24)) as node:
        node.plug("/dev/x0")
        async with node.run_agent(CONFIG):
            registered = await node.kubelet.wait_registered(X)
            await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert len(node.kubelet.attempts) == 1
    assert [method for method, when in served if when > registered.time] == [method_path(DEVICE_PLUGIN, "ListAndWatch")]


@pytest.mark.parametrize("version", [(1, 24), (1, 32)])
async def test_05_registration_without_a_stream_is_repeated_on_the_same_socket(
    version: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generation.FIRST_STREAM_SECONDS == 15
    monkeypatch.setattr(generation, "FIRST_STREAM_SECONDS", 0.3)
    async with FakeNode(version=version) as node:
        node.plug("/dev/x0")
        node.kubelet.faults.ignore_register(X)
        async with node.run_agent(CONFIG) as agent:
            entries = heard(agent)
            _, said = await told(entries, Event.REGISTRATION_FAILED)
            assert "never opened ListAndWatch" in said.text
            assert not agent.status.is_ready
            await node.kubelet.wait_registered(X, 2)
            first, second = node.kubelet.registrations
            assert 0.3 < second.time - first.time < 1
            assert first.endpoint == second.endpoint

            node.kubelet.faults.clear()
            await node.kubelet.wait_for_list(X, healthy={"x0"})
            assert node.kubelet.stream_count(X) == 1
            assert agent.status.is_ready


async def test_06_slow_register_is_awaited_and_delays_no_other_resource(
    plugged: FakeNode, kubelet: KubeletStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tenth of the real times: the kubelet takes 15 s, and is given at least 20 s.
    monkeypatch.setattr(registration, "DEADLINE_SECONDS", registration.DEADLINE_SECONDS / 10)
    assert registration.DEADLINE_SECONDS >= 2
    kubelet.faults.delay_register(1.5, X)
    async with plugged.run_agent(BOTH) as agent:
        entries = heard(agent)
        await kubelet.wait_for_list(Y, healthy={"y0"}, timeout=1)
        await kubelet.admit(Y)
        assert kubelet.registrations[0].resource == Y
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert times(entries, Event.REGISTRATION_FAILED) == 0
        assert sorted(one.resource for one in kubelet.attempts) == [X, Y]


async def test_06_hung_register_is_abandoned_and_retried(
    plugged: FakeNode, kubelet: KubeletStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "DEADLINE_SECONDS", 0.3)
    gate = kubelet.faults.hang_register(X)
    async with plugged.run_agent(CONFIG) as agent:
        _, said = await told(heard(agent), Event.REGISTRATION_FAILED)
        assert f"no response from {kubelet.socket}" in said.text
        await gate.wait_reached(2)
        kubelet.faults.clear()
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert kubelet.stream_count(X) == 1


async def test_07_unsupported_api_version_is_logged_per_attempt_and_retried_slowly(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    kubelet.faults.refuse_register(WRONG_VERSION)
    async with plugged.run_agent(CONFIG, listen=("127.0.0.1", 0)) as agent:
        entries = heard(agent)
        failures = [await told(entries, Event.REGISTRATION_FAILED) for _ in range(3)]
        assert all(WRONG_VERSION in entry.text for _, entry in failures)
        assert len(kubelet.attempts) == 3
        gaps = [later.time - earlier.time for earlier, later in itertools.pairwise(kubelet.attempts)]
        assert 0.1 <= gaps[0] < 1 <= gaps[1]

        url = f"http://127.0.0.1:{agent.listens_on}/metrics"
        page = (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode().splitlines()
        assert f'genplug_resource_registered{{resource="{X}"}} 0.0' in page
        assert f'genplug_registrations_total{{resource="{X}",result="failure"}} 3.0' in page


async def test_08_rejected_resource_name_is_reported_and_others_continue(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    kubelet.faults.refuse_register(WRONG_NAME, X)
    async with plugged.run_agent(BOTH) as agent:
        entries = heard(agent)
        await told(entries, Event.REGISTRATION_FAILED)
        await kubelet.wait_for_list(Y, healthy={"y0"})
        await kubelet.admit(Y)
        [reason] = agent.status.unready
        assert reason.startswith(f"{X}: not registered")
        assert WRONG_NAME in reason

        # Another kubelet may think otherwise, and is asked at once.
        kubelet.faults.clear()
        await kubelet.restart()
        await kubelet.wait_for_list(X, healthy={"x0"}, timeout=2)


@pytest.mark.parametrize("version", [(1, 24), (1, 32)])
async def test_10_options_are_equal_in_the_request_and_in_every_response(version: tuple[int, int]) -> None:
    async with FakeNode(version=version) as node:
        node.plug("/dev/x0")
        async with node.run_agent(CONFIG):
            await node.kubelet.wait_for_list(X, healthy={"x0"})
            # Until 1.24 the kubelet goes by the request, since 1.25 by the first answer.
            [registered] = node.kubelet.registrations
            for _ in range(3):
                options = await node.kubelet.plugin(X).get_options()
                assert options.pre_start_required is registered.pre_start_required
                assert options.get_preferred_allocation_available is registered.get_preferred_allocation_available


async def test_11_each_resource_has_a_socket_and_registers_independently(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    gate = kubelet.faults.hang_register(X)
    async with plugged.run_agent(BOTH):
        await gate.wait_reached()
        await kubelet.wait_for_list(Y, healthy={"y0"}, timeout=2)
        kubelet.faults.clear()
        kubelet.faults.refuse_register(WRONG_NAME, X)
        await kubelet.restart()
        await kubelet.wait_for_list(Y, healthy={"y0"}, timeout=2)
        kubelet.faults.clear()
        await kubelet.wait_for_list(X, healthy={"x0"})
        endpoints = {one.endpoint for one in kubelet.registrations[-2:]}
        assert {one.name for one in own_sockets(kubelet)} == endpoints
        assert len(endpoints) == 2


async def test_12_300_resources_register_with_bounded_concurrency_and_threads(
    node: FakeNode, kubelet: KubeletStandIn
) -> None:
    names = [f"example.com/r{number}" for number in range(300)]
    for number in range(300):
        node.plug(f"/dev/r{number}")

    def threads() -> int:
        # Those of gRPC's core are none of Python's.
        return len(list(Path("/proc/self/task").iterdir()))

    async with node.run_agent(resources(names[:10])):
        await kubelet.wait_for(lambda: all(map(kubelet.devices, names[:10])))
        for_ten = threads()
        with kubelet.faults.hang_register() as gate:
            node.write_config(resources(names))
            await gate.wait_reached(registration.MAX_CONCURRENT)
            # All others have their server by then, and could knock as well.
            async with asyncio.timeout(10):
                while len(own_sockets(kubelet)) < 300:  # noqa: ASYNC110 - nothing tells of the last socket
                    await asyncio.sleep(0.01)
            await kubelet.admit(names[0])
            assert gate.arrived == registration.MAX_CONCURRENT <= 32
        await kubelet.wait_for(lambda: all(map(kubelet.devices, names)), 30)
        assert threads() <= for_ten + 4
        assert len(kubelet.attempts) == 300
        assert len({one.endpoint for one in kubelet.registrations}) == 300


@pytest.mark.parametrize("deepest", [False, True])
async def test_13_longest_names_and_deepest_directory_fit_a_socket_path(short: Path, *, deepest: bool) -> None:
    domain = ".".join(("d" * 60, "o" * 60, "m" * 60, "a" * 61))
    names = [f"{domain}/{'n' * 62}{last}" for last in "xy"]
    assert len(names[0]) == 244 + 1 + 63
    # 107 bytes are a path's limit, 30 the shortest name that is still our own: 76 are left for the directory.
    directory = short / ("f" * (76 - len(f"{short}//k/device-plugins")) if deepest else "f")
    async with FakeNode(directory) as node:
        for name in names:
            node.plug(f"/dev/{name.rpartition('/')[2]}")
        async with node.run_agent(resources(names)):
            for name in names:
                await node.kubelet.wait_for_list(name, lambda devices: len(devices.healthy) == 1)
        paths = {os.fsencode(node.kubelet.plugins_dir / one.endpoint) for one in node.kubelet.registrations}
    assert len(paths) == 2
    longest = max(map(len, paths))
    assert longest == 107 if deepest else longest < 107


@pytest.mark.usefixtures("without_umask")
async def test_14_sockets_are_private_to_the_owner_for_any_umask(plugged: FakeNode, kubelet: KubeletStandIn) -> None:
    async with plugged.run_agent(BOTH):
        for name in "xy":
            await kubelet.wait_for_list(f"example.com/{name}", healthy={f"{name}0"})
        sockets = own_sockets(kubelet)
        assert len(sockets) == 2
        assert [one.stat().st_mode & 0o077 for one in sockets] == [0, 0]


async def test_15_stale_socket_is_removed_and_other_file_types_are_kept(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    stale = kubelet.plugins_dir / "genplug-example-com-x-00000000-00000000.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(stale))
    file, directory = kubelet.plugins_dir / "genplug-file.sock", kubelet.plugins_dir / "genplug-directory.sock"
    file.write_text("")
    directory.mkdir()
    async with plugged.run_agent(CONFIG) as agent:
        entries = heard(agent)
        _, held = await told(entries, Event.PLUGIN_DIR_ACQUIRED)
        assert held.facts["leftovers"] == (stale.name,)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert not stale.exists()
        assert file.exists()
        assert directory.exists()
        assert len(kubelet.attempts) == 1


async def test_18_foreign_files_in_the_plugin_directory_are_ignored(plugged: FakeNode, kubelet: KubeletStandIn) -> None:
    def others() -> set[str]:
        return {one.name for one in kubelet.plugins_dir.iterdir()} & {"DEPRECATION", ".tmp123", ".tmp124", "other.sock"}

    (kubelet.plugins_dir / "DEPRECATION").touch()
    (kubelet.plugins_dir / ".tmp123").write_text("half a checkpoint")
    async with plugged.run_agent(CONFIG) as agent:
        entries = heard(agent)
        await told(entries, Event.REGISTERED)
        await kubelet.wait_for_list(X, healthy={"x0"})
        (kubelet.plugins_dir / ".tmp124").touch()
        (kubelet.plugins_dir / "DEPRECATION").unlink()
        (kubelet.plugins_dir / "DEPRECATION").touch()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(kubelet.plugins_dir / "other.sock"))
        plugged.plug("/dev/x1")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert times(entries, Event.ENDPOINT_PHASE_CHANGED) == 0
        assert len(kubelet.attempts) == 1
    assert others() == {"DEPRECATION", ".tmp123", ".tmp124", "other.sock"}
