"""Registration of resources and its failures (points 1 to 8, 10 to 15 and 18)."""

import asyncio
import itertools
import os
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from genplug.kubelet import endpoint_state, registration
from genplug.kubelet.api.services import DEVICE_PLUGIN, POD_RESOURCES, REGISTRATION, method_path
from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn, PluginClient
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.events import drain_events, record_times
from tests.support.metrics import read_metrics
from tests.support.processes import count_threads
from tests.support.resources import X_CONFIG, XY_CONFIG, X, Y, build_config, build_x_config, plug_devices, write_policy
from tests.support.sockets import list_plugin_sockets

WRONG_VERSION = 'requested API version "v1beta1" is not supported by kubelet. Supported version is ["v1"]'
WRONG_NAME = f'the ResourceName "{X}" is invalid'


@pytest.fixture
def server_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Give a list that gets the method and time of each call to a gRPC server in this process, kubelet and plugins."""
    calls: list[tuple[str, float]] = []

    class CallRecorder(grpc.aio.ServerInterceptor):
        async def intercept_service(
            self,
            continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
            handler_call_details: grpc.HandlerCallDetails,
        ) -> Any:
            calls.append((handler_call_details.method, time.monotonic()))
            return await continuation(handler_call_details)

    server = grpc.aio.server
    monkeypatch.setattr(grpc.aio, "server", lambda **options: server(**options, interceptors=[CallRecorder()]))
    return calls


@pytest.fixture
def umask_000() -> Iterator[None]:
    """Set the umask to 000."""
    previous = os.umask(0o000)
    yield
    os.umask(previous)


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """Give a directory with a short path, which leaves space in the 107 bytes of a socket's path."""
    with tempfile.TemporaryDirectory(prefix="gp", dir="/tmp") as directory:
        yield Path(directory)


async def test_01_agent_waits_for_kubelet_sock_and_registers_when_it_appears(xy_node: FakeNode) -> None:
    late = KubeletStandIn(xy_node.directory / "l")
    late.plugins_dir.mkdir(parents=True)
    async with xy_node.run_agent(X_CONFIG, kubelet_dir=xy_node.directory / "l") as agent:
        entries = record_events(agent)
        event = await next_event(entries, Event.KUBELET_SOCKET_MISSING)
        assert str(late.socket) in event.text
        await next_event(entries, Event.ENDPOINT_PHASE_CHANGED, "waiting for kubelet.sock")
        assert [reason.split(":")[0] for reason in agent.status.unready] == ["kubelet", X]
        async with late:
            await late.wait_for_list(X, healthy={"x0"})
            await next_event(entries, Event.REGISTERED)
            assert agent.status.is_ready


async def test_01_kubelet_sock_that_appears_without_a_wipe_gets_registrations(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    hidden = kubelet.socket.rename(kubelet.socket.with_name(".hidden"))
    async with xy_node.run_agent(X_CONFIG) as agent:
        await next_event(record_events(agent), Event.ENDPOINT_PHASE_CHANGED, "waiting for kubelet.sock")
        sockets = {name: inode for name, inode in list_plugin_sockets(kubelet).items() if name != hidden.name}
        assert len(sockets) == 1
        hidden.rename(kubelet.socket)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert list_plugin_sockets(kubelet) == sockets


async def test_02_stale_kubelet_sock_is_retried_with_back_off(
    xy_node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a new kubelet.sock, the attempt after the third would follow in an hour.
    monkeypatch.setattr(endpoint_state, "_RETRY_SECONDS", (0.1, 1.0, 3600.0))
    late = KubeletStandIn(xy_node.directory / "l")
    await late.start()
    await late.crash()
    assert late.socket.is_socket()
    async with xy_node.run_agent(X_CONFIG, kubelet_dir=xy_node.directory / "l") as agent:
        entries, times = record_events(agent), record_times(agent, Event.REGISTRATION_FAILED)
        for _ in range(3):
            assert "connection refused" in (await next_event(entries, Event.REGISTRATION_FAILED)).text
        first, second = (later - earlier for earlier, later in itertools.pairwise(times))
        assert first >= 0.1
        assert second >= 1
        async with late:
            await late.wait_for_list(X, healthy={"x0"})
            assert len(late.attempts) == 1


async def test_03_plugin_server_answers_before_register_is_sent(
    server_calls: list[tuple[str, float]], xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    with kubelet.faults.hang_register() as gate:
        async with xy_node.run_agent(XY_CONFIG):
            await gate.wait_reached(2)
            # The agent also asks which devices pods use.
            methods = [method for method, _ in server_calls if not method.startswith(f"/{POD_RESOURCES}/")]
            # The check of a server is a connection without a call.
            assert methods == [method_path(REGISTRATION, "Register")] * 2
            # While Register is open, the server answers every method.
            assert len(kubelet.attempts) == 2
            for attempt in kubelet.attempts:
                client = PluginClient(attempt.resource, str(kubelet.plugins_dir / attempt.endpoint))
                await client.dial()
                await client.call_method("Allocate")
                assert (await anext(client.watch())).devices.healthy == {f"{attempt.resource[-1]}0"}
                await client.close()


async def test_04_kubelet_that_dials_back_inside_register_is_answered(
    server_calls: list[tuple[str, float]], xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    assert kubelet.version >= (1, 25)
    async with xy_node.run_agent(X_CONFIG):
        registered = await kubelet.wait_registered(X)
        await kubelet.wait_for_list(X, healthy={"x0"})
    [attempt] = kubelet.attempts
    inside = [method for method, when in server_calls if attempt.time < when < registered.time]
    assert inside == [method_path(DEVICE_PLUGIN, "GetDevicePluginOptions")]


async def test_04_kubelet_that_dials_back_after_register_gets_a_single_register(
    server_calls: list[tuple[str, float]],
) -> None:
    async with FakeNode(version=(1, 24)) as node:
        node.plug("/dev/x0")
        async with node.run_agent(X_CONFIG):
            registered = await node.kubelet.wait_registered(X)
            await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert len(node.kubelet.attempts) == 1
    assert [method for method, when in server_calls if when > registered.time] == [
        method_path(DEVICE_PLUGIN, "ListAndWatch")
    ]


@pytest.mark.parametrize("version", [(1, 24), (1, 32)])
async def test_05_registration_without_a_stream_is_repeated_on_the_same_socket(
    version: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert endpoint_state.FIRST_STREAM_SECONDS == 15
    monkeypatch.setattr(endpoint_state, "FIRST_STREAM_SECONDS", 0.3)
    async with FakeNode(version=version) as node:
        node.plug("/dev/x0")
        node.kubelet.faults.ignore_register(X)
        async with node.run_agent(X_CONFIG) as agent:
            entries = record_events(agent)
            event = await next_event(entries, Event.REGISTRATION_FAILED)
            assert "never opened ListAndWatch" in event.text
            assert not agent.status.is_ready
            await node.kubelet.wait_registered(X, 2)
            first, second = node.kubelet.registrations
            assert second.time - first.time > 0.3
            assert first.endpoint == second.endpoint

            node.kubelet.faults.clear()
            await node.kubelet.wait_for_list(X, healthy={"x0"})
            assert node.kubelet.stream_count(X) == 1
            assert agent.status.is_ready


async def test_06_slow_register_is_awaited_and_delays_no_other_resource(
    xy_node: FakeNode, kubelet: KubeletStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tenth of the real times: Register takes 15 s and must not be abandoned before 20 s.
    monkeypatch.setattr(registration, "DEADLINE_SECONDS", registration.DEADLINE_SECONDS / 10)
    assert registration.DEADLINE_SECONDS >= 2
    kubelet.faults.delay_register(1.5, X)
    async with xy_node.run_agent(XY_CONFIG) as agent:
        entries, failures = record_events(agent), record_events(agent)
        await kubelet.wait_for_list(Y, healthy={"y0"})
        await kubelet.admit(Y)
        assert kubelet.registrations[0].resource == Y
        await kubelet.wait_for_list(X, healthy={"x0"})
        await next_event(entries, Event.REGISTERED, X)
        assert Event.REGISTRATION_FAILED not in drain_events(failures)
        assert sorted(attempt.resource for attempt in kubelet.attempts) == [X, Y]


async def test_06_hung_register_is_abandoned_and_retried(
    xy_node: FakeNode, kubelet: KubeletStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "DEADLINE_SECONDS", 0.3)
    gate = kubelet.faults.hang_register(X)
    async with xy_node.run_agent(X_CONFIG) as agent:
        event = await next_event(record_events(agent), Event.REGISTRATION_FAILED)
        assert f"no response from {kubelet.socket}" in event.text
        await gate.wait_reached(2)
        kubelet.faults.clear()
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert kubelet.stream_count(X) == 1


async def test_07_unsupported_api_version_is_logged_per_attempt_and_retried_slowly(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    kubelet.faults.refuse_register(WRONG_VERSION)
    async with xy_node.run_agent(X_CONFIG, listen=("127.0.0.1", 0)) as agent:
        entries = record_events(agent)
        failures = [await next_event(entries, Event.REGISTRATION_FAILED) for _ in range(3)]
        assert all(WRONG_VERSION in failure.text for failure in failures)
        assert len(kubelet.attempts) == 3
        gaps = [later.time - earlier.time for earlier, later in itertools.pairwise(kubelet.attempts)]
        assert gaps[0] >= 0.1
        assert gaps[1] >= 1

        metrics = await read_metrics(agent)
        assert metrics[f'genplug_resource_registered{{resource="{X}"}}'] == 0
        assert metrics[f'genplug_registrations_total{{resource="{X}",result="failure"}}'] == 3


async def test_08_rejected_resource_name_is_reported_and_others_continue(
    xy_node: FakeNode, kubelet: KubeletStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_state, "_RETRY_SECONDS", (3600.0,))
    kubelet.faults.refuse_register(WRONG_NAME, X)
    async with xy_node.run_agent(XY_CONFIG) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTRATION_FAILED)
        await kubelet.wait_for_list(Y, healthy={"y0"})
        await kubelet.admit(Y)
        [reason] = agent.status.unready
        assert reason.startswith(f"{X}: not registered")
        assert WRONG_NAME in reason

        # A restarted kubelet may accept the name and gets it without a delay.
        kubelet.faults.clear()
        await kubelet.restart()
        await kubelet.wait_for_list(X, healthy={"x0"})


@pytest.mark.parametrize("version", [(1, 24), (1, 32)])
async def test_10_options_are_equal_in_the_request_and_in_every_response(version: tuple[int, int]) -> None:
    options = "preferredAllocation: {policy: packed}, preStart: {exec: {command: [/bin/true]}}"
    async with FakeNode(version=version) as node:
        node.plug("/dev/x0")
        policy = write_policy(node, "exec: {allow: [/bin/true]}\n")
        async with node.run_agent(build_x_config(options), policy=policy):
            await node.kubelet.wait_for_list(X, healthy={"x0"})
            # Kubelets up to 1.24 use the options of the request, kubelets since 1.25 those of the first response.
            (registered,) = node.kubelet.registrations
            assert registered.pre_start_required
            assert registered.get_preferred_allocation_available
            for _ in range(3):
                response = await node.kubelet.plugin(X).get_options()
                assert response.pre_start_required
                assert response.get_preferred_allocation_available


async def test_11_each_resource_has_a_socket_and_registers_independently(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    gate = kubelet.faults.hang_register(X)
    async with xy_node.run_agent(XY_CONFIG):
        await gate.wait_reached()
        await kubelet.wait_for_list(Y, healthy={"y0"})
        kubelet.faults.clear()
        kubelet.faults.refuse_register(WRONG_NAME, X)
        await kubelet.restart()
        await kubelet.wait_for_list(Y, healthy={"y0"})
        kubelet.faults.clear()
        await kubelet.wait_for_list(X, healthy={"x0"})
        endpoints = {registration.endpoint for registration in kubelet.registrations[-2:]}
        assert list_plugin_sockets(kubelet).keys() == endpoints
        assert len(endpoints) == 2


async def test_12_300_resources_register_with_bounded_concurrency_and_threads(
    node: FakeNode, kubelet: KubeletStandIn
) -> None:
    names = [f"example.com/r{number:03}" for number in range(300)]
    plug_devices(node, *(f"r{number:03}" for number in range(300)))
    async with node.run_agent(build_config(names[:10])):
        await kubelet.wait_for(lambda: all(map(kubelet.devices, names[:10])))
        threads_of_ten = count_threads()
        with kubelet.faults.hang_register() as gate:
            node.write_config(build_config(names))
            await gate.wait_reached(registration.MAX_CONCURRENT)
            # The others have a server by then and wait for their turn.
            async with asyncio.timeout(10):
                while len(list_plugin_sockets(kubelet)) < 300:  # noqa: ASYNC110 - the last socket has no event
                    await asyncio.sleep(0.01)
            await kubelet.admit(names[0])
            assert gate.arrived == registration.MAX_CONCURRENT <= 32
        await kubelet.wait_for(lambda: all(map(kubelet.devices, names)), 30)
        assert count_threads() <= threads_of_ten + 4
        assert len(kubelet.attempts) == 300
        assert len({registered.endpoint for registered in kubelet.registrations}) == 300


@pytest.mark.parametrize("deepest", [False, True])
async def test_13_longest_names_and_deepest_directory_fit_a_socket_path(
    short_directory: Path, *, deepest: bool
) -> None:
    domain = ".".join(("d" * 60, "o" * 60, "m" * 60, "a" * 61))
    names = [f"{domain}/{'n' * 62}{last}" for last in "xy"]
    assert len(names[0]) == 244 + 1 + 63
    # A socket's path has at most 107 bytes, genplug's shortest name 30 and a slash: 76 remain for the directory.
    directory = short_directory / ("f" * (76 - len(f"{short_directory}//k/device-plugins")) if deepest else "f")
    async with FakeNode(directory) as node:
        plug_devices(node, *(name.rpartition("/")[2] for name in names))
        async with node.run_agent(build_config(names)):
            for name in names:
                await node.kubelet.wait_for_list(name, lambda devices: len(devices.healthy) == 1)
        paths = {
            os.fsencode(node.kubelet.plugins_dir / registered.endpoint) for registered in node.kubelet.registrations
        }
    assert len(paths) == 2
    longest = max(map(len, paths))
    assert longest == 107 if deepest else longest < 107


@pytest.mark.usefixtures("umask_000")
async def test_14_sockets_are_private_to_the_owner_for_any_umask(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    async with xy_node.run_agent(XY_CONFIG):
        for name in "xy":
            await kubelet.wait_for_list(f"example.com/{name}", healthy={f"{name}0"})
        sockets = list_plugin_sockets(kubelet)
        assert len(sockets) == 2
        assert [(kubelet.plugins_dir / name).stat().st_mode & 0o077 for name in sockets] == [0, 0]


async def test_15_stale_socket_is_removed_and_other_file_types_are_kept(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    stale = kubelet.plugins_dir / "genplug-example-com-x-00000000-00000000.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(stale))
    file, directory = kubelet.plugins_dir / "genplug-file.sock", kubelet.plugins_dir / "genplug-directory.sock"
    file.write_text("")
    directory.mkdir()
    async with xy_node.run_agent(X_CONFIG) as agent:
        entries = record_events(agent)
        acquired = await next_event(entries, Event.PLUGIN_DIR_ACQUIRED)
        assert acquired.facts["leftovers"] == (stale.name,)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert not stale.exists()
        assert file.exists()
        assert directory.exists()
        assert len(kubelet.attempts) == 1


async def test_18_foreign_files_in_the_plugin_directory_are_ignored(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    foreign = {"DEPRECATION", ".tmp123", ".tmp124", "other.sock"}
    (kubelet.plugins_dir / "DEPRECATION").touch()
    (kubelet.plugins_dir / ".tmp123").write_text("half a checkpoint")
    async with xy_node.run_agent(X_CONFIG) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED)
        await kubelet.wait_for_list(X, healthy={"x0"})
        (kubelet.plugins_dir / ".tmp124").touch()
        (kubelet.plugins_dir / "DEPRECATION").unlink()
        (kubelet.plugins_dir / "DEPRECATION").touch()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(kubelet.plugins_dir / "other.sock"))
        xy_node.plug("/dev/x1")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert Event.ENDPOINT_PHASE_CHANGED not in drain_events(entries)
        assert len(kubelet.attempts) == 1
    assert foreign <= {path.name for path in kubelet.plugins_dir.iterdir()}
