"""The endpoint of one resource at a kubelet stand-in: its starts, its failures, and what it leaves behind."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from genplug.allocation.results import PluginOptions, ProgramRun
from genplug.kubelet import endpoint
from genplug.kubelet.endpoint import Endpoint
from genplug.kubelet.endpoint_events import Event, KubeletSeen
from genplug.kubelet.endpoint_state import EndpointState, Step, next_step
from genplug.kubelet.latest_value import LatestValue
from genplug.kubelet.plugin_dir import KUBELET_SOCKET, PluginDir
from genplug.kubelet.registration import Registrar
from genplug.kubelet.reports import InternalErrorCaught, Phase, PhaseChanged, Report
from genplug.testing.kubelet import KubeletStandIn, PluginClient
from tests.support.endpoints import EndpointRun
from tests.support.one_device import OneDevice
from tests.support.silent_server import SilentServer

X = "example.com/x"


async def test_endpoint_that_stops_at_any_step_of_its_start_leaves_no_socket(kubelet: KubeletStandIn) -> None:
    # If the server is stopped between the two steps of its own start, C-core dereferences a null pointer: a failure of
    # this test ends the interpreter.
    directory = PluginDir(kubelet.plugins_dir)
    bound = 0
    for turns in range(200):
        stopped = Endpoint(X, LatestValue(OneDevice("x0")), Registrar(kubelet.plugins_dir), lambda _: None)
        running = asyncio.create_task(stopped.run(directory.list_sockets()))
        for _ in range(turns):
            await asyncio.sleep(0)
        bound += bool(directory.list_sockets().own)
        stopped.stop()
        await asyncio.wait_for(running, 10)
        assert not directory.list_sockets().own
    directory.close()
    assert 0 < bound < 200


async def test_repr_of_endpoint_shows_its_state(kubelet: KubeletStandIn) -> None:
    async with EndpointRun(kubelet.plugins_dir, X, OneDevice("x0")) as run:
        await run.wait_for(lambda: run.endpoint.status.is_registered)
        assert repr(run.endpoint) == f"<Endpoint {X}: generation 1, live, 1 stream, registered>"
        await kubelet.crash()
        await run.wait_for(lambda: not run.endpoint.status.is_registered)
        assert repr(run.endpoint) == f"<Endpoint {X}: generation 1, live, 0 streams: the kubelet closed its stream>"


async def test_listing_without_a_change_does_not_wake_the_endpoint(
    kubelet: KubeletStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []

    def record_event(state: EndpointState, event: Event, now: float, jitter: float) -> Step:
        events.append(event)
        return next_step(state, event, now, jitter)

    monkeypatch.setattr(endpoint, "next_step", record_event)
    async with EndpointRun(kubelet.plugins_dir, X, OneDevice("x0")) as run:
        await run.wait_for(lambda: run.endpoint.status.is_registered)
        run.list_directory()
        await asyncio.sleep(0)
        before = len(events)
        for _ in range(5):
            run.list_directory()
            await asyncio.sleep(0)
        assert events[before:] == []
        (kubelet.plugins_dir / KUBELET_SOCKET).unlink()
        run.list_directory()
        async with asyncio.timeout(10):
            while run.endpoint.status.has_kubelet:  # noqa: ASYNC110 - the endpoint does not report it
                await asyncio.sleep(0)
        assert events[before:] == [KubeletSeen(None)]


async def test_endpoint_waits_for_a_directory_in_which_it_can_bind(tmp_path: Path, kubelet: KubeletStandIn) -> None:
    link = kubelet.plugins_dir.with_name("link")
    link.symlink_to(kubelet.plugins_dir)
    run = EndpointRun(link, X, OneDevice("x0"))
    link.unlink()
    link.symlink_to(tmp_path / "missing")
    task = asyncio.create_task(run.endpoint.run(PluginDir(kubelet.plugins_dir).list_sockets()))
    await run.wait_for(lambda: "cannot serve: " in run.endpoint.status.reason)
    assert run.endpoint.status.phase is Phase.SERVE
    assert not any(isinstance(report, InternalErrorCaught) for report in run.reports)
    link.unlink()
    link.symlink_to(kubelet.plugins_dir)
    await kubelet.wait_for_list(X, healthy={"x0"})
    run.endpoint.stop()
    await asyncio.wait_for(task, 10)


@asynccontextmanager
async def removing_sockets(run: EndpointRun) -> AsyncIterator[None]:
    """Remove each socket of the endpoint in the next turn of the event loop."""

    async def remove() -> None:
        while True:
            for socket in run.sockets:
                socket.unlink()
            await asyncio.sleep(0)

    task = asyncio.create_task(remove())
    try:
        yield
    finally:
        task.cancel()


async def test_endpoint_serves_again_when_its_socket_is_removed_at_bind(kubelet: KubeletStandIn) -> None:
    async with EndpointRun(kubelet.plugins_dir, X, OneDevice("x0")) as run:
        async with removing_sockets(run):
            await run.wait_for(lambda: run.endpoint.status.failures > 0)
        assert "as soon as it was bound" in run.endpoint.status.reason
        assert kubelet.attempts == ()
        await kubelet.wait_for_list(X, healthy={"x0"})


@pytest.mark.parametrize("turns", [5, 6, 11, 15])
async def test_endpoint_serves_again_at_once_when_its_socket_is_removed_before_its_server_is_called(
    kubelet: KubeletStandIn, turns: int
) -> None:
    # A kubelet that starts removes all sockets. After these turns of the event loop, the server is bound, and the check
    # of its response has no connection yet.
    async with EndpointRun(kubelet.plugins_dir, X, OneDevice("x0")) as run:
        while not run.sockets:  # noqa: ASYNC110 - a turn of the event loop is a step of the start
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        for socket in run.sockets:
            socket.unlink()
        run.list_directory()
        # Less than the deadline of the call.
        await kubelet.wait_for_list(X, healthy={"x0"}, timeout=3)
        assert not any("does not respond" in reason for reason in run.reasons)


async def test_endpoint_does_not_register_while_its_server_does_not_respond(
    kubelet: KubeletStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_SELF_CHECK_SECONDS", 0.2)
    monkeypatch.setattr(grpc.aio, "server", lambda **_: SilentServer())
    async with EndpointRun(kubelet.plugins_dir, X, OneDevice("x0")) as run:
        await run.wait_for(lambda: run.endpoint.status.failures > 0)
        assert "its server does not respond: no response from its socket" in run.endpoint.status.reason
        assert kubelet.attempts == ()


async def test_endpoint_does_not_register_when_its_socket_is_removed_before(kubelet: KubeletStandIn) -> None:
    def remove_first_socket(report: Report) -> None:
        if isinstance(report, PhaseChanged) and (report.current.phase, report.current.generation) == (
            Phase.REGISTER,
            1,
        ):
            for socket in run.sockets:
                socket.unlink()

    async with EndpointRun(kubelet.plugins_dir, X, OneDevice("x0"), remove_first_socket) as run:
        await kubelet.wait_for_list(X, healthy={"x0"})
        await run.wait_for(lambda: run.endpoint.status.is_registered)
        assert run.phases[:4] == [(1, "serve"), (1, "register"), (1, "retire"), (2, "serve")]
        assert [f"{kubelet.plugins_dir}/{attempt.endpoint}" for attempt in kubelet.attempts] == [
            str(socket) for socket in run.sockets
        ]


async def test_endpoint_serves_on_a_new_socket_when_its_socket_is_removed(kubelet: KubeletStandIn) -> None:
    async with EndpointRun(kubelet.plugins_dir, X, OneDevice("x0")) as run:
        await kubelet.wait_for_list(X, healthy={"x0"})
        run.list_directory()
        [removed] = run.sockets
        removed.unlink()
        run.list_directory()
        await kubelet.wait_registered(X, times=2)
        assert run.sockets != [removed]
        assert "its socket was removed" in [
            report.current.reason for report in run.reports if isinstance(report, PhaseChanged)
        ]


async def test_endpoint_removes_a_socket_that_its_server_left_behind(
    kubelet: KubeletStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server unlinks its path when it begins to stop. A call in progress keeps the endpoint from the end of the stop
    # until the socket is back.
    monkeypatch.setattr(endpoint, "_STOP_GRACE_SECONDS", 10)
    backend = PreStartBlocker("x0", tmp_path)
    async with EndpointRun(kubelet.plugins_dir, X, backend) as run:
        await kubelet.wait_for_list(X)
        # A connection of its own, because the kubelet closes its connection when the stream ends.
        client = PluginClient(X, kubelet.plugin(X).socket)
        [socket] = run.sockets
        backup = kubelet.plugins_dir.with_name("backup")
        os.link(socket, backup)
        calling = asyncio.create_task(client.pre_start_container(["x0"]))
        await asyncio.to_thread(backend.started.read_text)
        run.endpoint.stop()
        while socket.exists():  # noqa: ASYNC110 - C-core unlinks it in a thread of its own
            await asyncio.sleep(0.005)
        backup.rename(socket)
        await asyncio.to_thread(backend.released.write_text, "")
        await calling
        await client.close()
    assert not socket.exists()


class PreStartBlocker(OneDevice):
    """A resource whose preStart program writes to the pipe ``started`` and then reads from the pipe ``released``."""

    def __init__(self, device_id: str, directory: Path) -> None:
        super().__init__(device_id, PluginOptions(pre_start_required=True))
        self.started, self.released = directory / "started", directory / "released"
        for pipe in (self.started, self.released):
            os.mkfifo(pipe)

    def pre_start_programs(self, ids: Sequence[str]) -> Sequence[ProgramRun]:
        script = f"echo > {self.started}; cat {self.released}"
        return [ProgramRun(X, device_id, ("/bin/sh", "-c", script), 30) for device_id in ids]


class OptionsFailOnce(OneDevice):
    """A resource whose options raise when they are read for the first time, which is for Register."""

    reads = 0

    @property
    def options(self) -> PluginOptions:
        self.reads += 1
        if self.reads == 1:
            raise ZeroDivisionError
        return super().options


async def test_endpoint_registers_again_after_an_internal_error(kubelet: KubeletStandIn) -> None:
    async with EndpointRun(kubelet.plugins_dir, X, OptionsFailOnce("x0")) as run:
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert [phase for _, phase in run.phases[:4]] == ["serve", "register", "wait", "register"]
        [caught] = [report for report in run.reports if isinstance(report, InternalErrorCaught)]
        assert caught.operation == "register"
        assert isinstance(caught.error, ZeroDivisionError)


async def test_endpoint_continues_after_an_internal_error_while_it_serves(kubelet: KubeletStandIn) -> None:
    # No socket name can be made of a resource name that has no UTF-8 encoding.
    async with EndpointRun(kubelet.plugins_dir, "example.com/\udc80", OneDevice("x0")) as run:
        await run.wait_for(lambda: run.endpoint.status.failures == 2)
        assert run.endpoint.status.phase is Phase.SERVE
        assert "UnicodeEncodeError" in run.endpoint.status.reason
        caught = [report for report in run.reports if isinstance(report, InternalErrorCaught)]
        assert [report.operation for report in caught] == ["serve", "serve"]


async def test_endpoint_registers_again_when_its_options_change(kubelet: KubeletStandIn) -> None:
    async with EndpointRun(kubelet.plugins_dir, X, OneDevice("x0")) as run:
        await kubelet.wait_for_list(X, healthy={"x0"})
        run.endpoint.update(OneDevice("x1"))
        await kubelet.wait_for_list(X, healthy={"x1"})
        assert len(kubelet.registrations) == 1
        run.endpoint.update(OneDevice("x1", PluginOptions(pre_start_required=True)))
        assert (await kubelet.wait_registered(X, times=2)).pre_start_required


async def test_idle_connections_are_limited_and_end_at_their_deadline(
    kubelet: KubeletStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (("grpc.server_handshake_timeout_ms", 500), ("grpc.max_allowed_incoming_connections", 8))
    monkeypatch.setattr(endpoint, "SERVER_OPTIONS", options)
    async with EndpointRun(kubelet.plugins_dir, X, OneDevice("x0")):
        await kubelet.wait_for_list(X, healthy={"x0"})
        connections = [await asyncio.open_unix_connection(kubelet.plugin(X).socket) for _ in range(20)]
        async with asyncio.timeout(10):
            for reader, writer in connections:
                # The server closes all of them: those beyond the limit at once, the others at their deadline.
                await reader.read()
                writer.close()
        async with kubelet.connect(X) as client:
            await client.get_options()
        assert kubelet.stream_count(X) == 1
