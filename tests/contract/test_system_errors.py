"""Errors of the system and of peers: the agent waits, reports the reason once, and continues by itself."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator

import grpc
import pytest

from genplug.kubelet.client import CallError
from genplug.kubelet.pod_resources import list_devices_in_use
from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.agent_process import read_log_entry, start_agent, wait_for_exit
from tests.support.events import drain_events
from tests.support.http import get
from tests.support.resources import X_CONFIG, XY_CONFIG, X, Y, build_config
from tests.support.sockets import list_plugin_sockets

GARBAGE = [b"\xff\xff\xff", b"\x0a\x7f", bytes(range(256)), b"\x0a\x02\x0a\x05"]


async def end_agent(process: Process) -> None:
    """Check that an agent still runs, and ends with success."""
    assert process.returncode is None
    process.send_signal(signal.SIGTERM)
    assert await wait_for_exit(process) == 0


@contextlib.asynccontextmanager
async def answer_pod_resources(kubelet: KubeletStandIn, content: bytes) -> AsyncIterator[None]:
    """Serve bytes as the response of List in place of the kubelet's API."""
    kubelet.pod_resources_socket.unlink()

    async def respond(_request: bytes, _context: object) -> bytes:
        return content

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(respond)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": handler}),))
    server.add_insecure_port(f"unix:{kubelet.pod_resources_socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


@pytest.mark.parametrize("content", GARBAGE)
async def test_pod_resources_response_that_is_not_a_message_is_a_known_error(
    kubelet: KubeletStandIn, content: bytes
) -> None:
    async with answer_pod_resources(kubelet, content):
        with pytest.raises(CallError, match=r"expected a ListPodResourcesResponse from .* that are not a message"):
            await list_devices_in_use(kubelet.pod_resources_socket)


async def test_removed_resource_is_kept_while_pod_resources_returns_garbage(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    async with xy_node.run_agent(XY_CONFIG, drain_seconds=0.05) as agent:
        events = record_events(agent)
        await kubelet.wait_for_list(Y, healthy={"y0"})
        async with answer_pod_resources(kubelet, GARBAGE[0]):
            xy_node.write_config(X_CONFIG)
            unavailable = await next_event(events, Event.POD_RESOURCES_UNAVAILABLE)
            assert "not a message" in unavailable.text
            await kubelet.admit(X)
            assert kubelet.stream_count(Y) == 1
        assert Event.INTERNAL_ERROR not in set(drain_events(events))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(range(256)) * 16])
async def test_kubelet_socket_that_answers_garbage_is_retried(xy_node: FakeNode, answer: bytes) -> None:
    xy_node.kubelet.plugins_dir.mkdir(parents=True)

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read(100)
        writer.close()

    other = await asyncio.start_unix_server(respond, xy_node.kubelet.socket)
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node) as process:
        failed = await read_log_entry(process, Event.REGISTRATION_FAILED)
        assert "Register failed" in failed["msg"]
        other.close()
        async with xy_node.kubelet as kubelet:
            await kubelet.wait_for_list(X, healthy={"x0"})
            await end_agent(process)


WITHOUT_ACCESS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Runs a program as root without the capabilities to use any file."""
OTHER_USER = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=+dac_override,+dac_read_search",
    "--ambient-caps=+dac_override,+dac_read_search",
)
"""Runs a program as another user with access to all files; the limit of processes does not apply to root."""


@pytest.mark.root
async def test_unreadable_kubelet_directory_is_waited_for(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node, prefix=WITHOUT_ACCESS) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        kubelet.plugins_dir.chmod(0)
        (kubelet.plugins_dir / "genplug-touch").touch()
        entry = await read_log_entry(process, Event.PLUGIN_DIR_UNUSABLE)
        assert f"the kubelet's directory {kubelet.plugins_dir}: Permission denied" in entry["msg"]
        xy_node.plug("/dev/x1")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        kubelet.plugins_dir.chmod(0o700)
        await read_log_entry(process, Event.SYSTEM_RECOVERED)
        assert kubelet.stream_count(X) == 1
        await end_agent(process)


@pytest.mark.parametrize("taken", [0, 4, 8, 12, 16, 24])
async def test_agent_without_free_descriptors_continues(xy_node: FakeNode, kubelet: KubeletStandIn, taken: int) -> None:
    # A limit below the descriptors in use refuses each system call that needs another descriptor.
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        [socket] = list_plugin_sockets(kubelet)
        used = max(map(int, os.listdir(f"/proc/{process.pid}/fd")))  # noqa: PTH208 - names, not paths
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (max(used - taken, 3), hard))
        # Each of these steps needs descriptors: the listing of the directory, a reload, a scan, another socket.
        xy_node.write_config(build_config([X, Y]))
        xy_node.plug("/dev/x1")
        (kubelet.plugins_dir / "genplug-touch").touch()
        connections = [await asyncio.open_unix_connection(kubelet.plugins_dir / socket) for _ in range(30)]
        await asyncio.sleep(2)
        assert process.returncode is None
        for _, writer in connections:
            writer.close()
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        process.send_signal(signal.SIGHUP)
        await kubelet.wait_for_list(X, healthy={"x0", "x1"}, timeout=20)
        await kubelet.wait_for_list(Y, healthy={"y0"}, timeout=20)
        await end_agent(process)


async def test_devices_stay_healthy_while_no_file_can_be_opened(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, hard))
        xy_node.plug("/dev/x1")
        # A scan after an event opens no file. A full scan lists the directory.
        process.send_signal(signal.SIGHUP)
        stalled = await read_log_entry(process, Event.SCAN_STALLED)
        assert "Too many open files: the limit of open files of the process is reached" in stalled["msg"]
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        # Without a further event or SIGHUP: the scan is started again.
        await read_log_entry(process, Event.SCAN_RESUMED)
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert all("x0" in message.devices.healthy for message in kubelet.messages(X))
        await end_agent(process)


async def limit_processes(process: Process, number: int) -> None:
    """Limit the processes and threads of the other user, as that user."""
    command = [*OTHER_USER, "prlimit", f"--pid={process.pid}", f"--nproc={number}:10000"]
    assert await (await asyncio.create_subprocess_exec(*command)).wait() == 0


@pytest.mark.root
async def test_agent_that_cannot_start_threads_continues(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    xy_node.write_config(X_CONFIG)
    # access(2) ignores the capabilities of a user other than root.
    for directory in (xy_node.directory, xy_node.kubelet_dir, kubelet.plugins_dir):
        os.chown(directory, 65534, 65534)
    async with start_agent(xy_node, prefix=("prlimit", "--nproc=10000", *OTHER_USER)) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        await limit_processes(process, 1)
        # Idle threads end after ten seconds; a burst of work needs more threads than are idle.
        xy_node.write_config(XY_CONFIG)
        for number in range(1, 4):
            xy_node.plug(f"/dev/x{number}")
        await asyncio.sleep(12)
        xy_node.plug("/dev/x4")
        process.send_signal(signal.SIGHUP)
        await asyncio.sleep(2)
        assert process.returncode is None
        await limit_processes(process, 10_000)
        await kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"}, timeout=20)
        await end_agent(process)


async def test_failure_of_the_controller_is_in_readiness_and_ends_by_itself(
    xy_node: FakeNode, kubelet: KubeletStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genplug.agent.supervision.STEADY_AFTER_SYSTEM_ERROR_SECONDS", 0.2)
    async with xy_node.run_agent(X_CONFIG, poll_seconds=0.2, listen=("127.0.0.1", 0)) as agent:
        await kubelet.wait_for_list(X, healthy={"x0"})
        events = record_events(agent)
        with monkeypatch.context() as patch:
            # No file system of a test raises ENOMEM.
            patch.setattr(os, "scandir", _raise_memory_error)
            await next_event(events, Event.SYSTEM_ERROR)
            code, text = await get(agent, "/readyz?verbose")
            assert code == 503
            assert "the kubelet controller waits for the system: Cannot allocate memory" in text
        await next_event(events, Event.SYSTEM_RECOVERED)
        await kubelet.wait_for_list(X, healthy={"x0"})


def _raise_memory_error(_path: object) -> None:
    raise MemoryError


async def test_replaced_directory_still_ends_the_agent(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        shutil.rmtree(kubelet.plugins_dir)
        await read_log_entry(process, Event.PLUGIN_DIR_REPLACED)
        assert await wait_for_exit(process) == 1


async def test_idle_connections_to_a_plugin_socket_do_not_end_an_agent_with_few_descriptors(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node, "--listen", "127.0.0.1:0", prefix=("prlimit", "--nofile=64")) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        async with kubelet.open_idle_connections(X, 80):
            (kubelet.plugins_dir / "genplug-touch").touch()
            xy_node.plug("/dev/x1")
            xy_node.write_config(XY_CONFIG)
            # The descriptors of the agent are used up until the idle connections end.
            entry = await read_log_entry(process, Event.PLUGIN_DIR_UNUSABLE)
            assert "Too many open files" in entry["msg"]
            assert "raise RLIMIT_NOFILE" in entry["msg"]
        await read_log_entry(process, Event.SYSTEM_RECOVERED)
        await kubelet.wait_for_list(X, healthy={"x0", "x1"}, timeout=20)
        await kubelet.wait_for_list(Y, healthy={"y0"}, timeout=20)
        await end_agent(process)
