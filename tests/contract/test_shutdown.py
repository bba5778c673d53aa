"""The end of the process after SIGTERM: soon, with exit code 0, whatever hangs or is read-only."""

import asyncio
import fcntl
import json
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Iterator
from pathlib import Path

import pytest

from genplug.cli.serving import KILL_SECONDS, RELEASE_SECONDS, STOP_SECONDS
from genplug.kubelet.plugin_dir import PluginDir
from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.hanging_files import HangingFiles
from tests.support.agent_process import read_log_entry, start_agent, wait_for_exit
from tests.support.http import get_text
from tests.support.mounts import bind_mount, remount
from tests.support.network import free_port
from tests.support.resources import X_CONFIG, X, build_x_config, write_policy
from tests.support.sockets import list_plugin_sockets

MAX_STOP_SECONDS = 2.0
"""Seconds after which the process ends at the latest; ``python -m benchmarks`` measures them."""


@pytest.fixture
def unread_pipe() -> Iterator[tuple[int, int]]:
    """Give the two ends of a pipe of one page, which nothing reads."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    for descriptor in (reader, writer):
        os.close(descriptor)


async def read_lines(descriptor: int, until: Event) -> list[dict[str, object]]:
    """Read log entries until an event is logged."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    file = os.fdopen(os.dup(descriptor), "rb")
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, file)
    entries: list[dict[str, object]] = []
    async with asyncio.timeout(30):
        while not entries or entries[-1]["event"] != until.code:
            entries.append(json.loads(await reader.readline()))
    transport.close()
    return entries


async def allocate_until_lines_are_dropped(kubelet: KubeletStandIn, port: int) -> None:
    """Make an agent, with its metrics on a port, log allocations until it drops lines that nothing reads."""
    async with asyncio.timeout(30):
        while "genplug_log_lines_dropped_total 0.0" in await get_text(port, "/metrics"):
            for _ in range(500):
                await kubelet.plugin(X).allocate([["x0"]])


async def wait_until_blocked(process: Process, number: signal.Signals) -> None:
    """Wait until a process blocks a signal: it starts, and has no handler yet."""
    async with asyncio.timeout(30):
        while True:
            status = Path(f"/proc/{process.pid}/status").read_text()  # noqa: ASYNC240 - procfs does not block
            [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:")]
            if int(mask, 16) & 1 << (number - 1):
                return
            # The kernel reports no change of a mask.
            await asyncio.sleep(0.001)


def test_waits_of_the_stop_are_shorter_than_two_seconds() -> None:
    assert STOP_SECONDS + RELEASE_SECONDS + KILL_SECONDS < MAX_STOP_SECONDS


@pytest.mark.usefixtures("kubelet")
async def test_sigterm_during_the_start_ends_the_process_with_code_0(xy_node: FakeNode) -> None:
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node) as process:
        await wait_until_blocked(process, signal.SIGTERM)
        process.terminate()
        assert await wait_for_exit(process) == 0


async def test_sighup_during_the_start_does_not_end_the_process(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node) as process:
        await wait_until_blocked(process, signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        await kubelet.wait_for_list(X, healthy={"x0"})
        process.terminate()
        assert await wait_for_exit(process) == 0


async def test_log_that_nothing_reads_blocks_neither_allocations_nor_the_end(
    xy_node: FakeNode, kubelet: KubeletStandIn, unread_pipe: tuple[int, int]
) -> None:
    port = free_port()
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node, "--listen", f"127.0.0.1:{port}", stderr=unread_pipe[1]) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        await allocate_until_lines_are_dropped(kubelet, port)
        xy_node.plug("/dev/x1")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        process.send_signal(signal.SIGTERM)
        code = await wait_for_exit(process)
    assert code == 0
    assert list_plugin_sockets(kubelet) == {}


async def test_dropped_lines_are_counted_in_the_log_when_it_is_read_again(
    xy_node: FakeNode, kubelet: KubeletStandIn, unread_pipe: tuple[int, int]
) -> None:
    port = free_port()
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node, "--listen", f"127.0.0.1:{port}", stderr=unread_pipe[1]) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        await allocate_until_lines_are_dropped(kubelet, port)
        entries = await read_lines(unread_pipe[0], Event.LOG_LINES_DROPPED)
        dropped = entries[-1]["lines"]
        # The lines of the last calls are dropped after their responses.
        metrics = await get_text(port, "/metrics")
        assert f"genplug_log_lines_dropped_total {dropped}.0" in metrics
        assert f"{dropped} lines of the log were dropped" in str(entries[-1]["msg"])
        process.send_signal(signal.SIGTERM)
        assert await wait_for_exit(process) == 0


@pytest.mark.root
async def test_read_only_directory_ends_the_process_with_success(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    mounted = xy_node.directory / "m"
    xy_node.write_config(X_CONFIG)
    with bind_mount(kubelet.plugins_dir, mounted):
        async with start_agent(xy_node, "--device-plugins-dir", str(mounted)) as process:
            await kubelet.wait_for_list(X, healthy={"x0"})
            [name] = list_plugin_sockets(kubelet)
            remount(mounted, "ro")
            process.send_signal(signal.SIGTERM)
            entry = await read_log_entry(process, Event.SOCKET_NOT_REMOVED)
            assert entry["path"] == str(mounted / name)
            assert "Read-only file system" in entry["msg"]
            code = await wait_for_exit(process)
        assert code == 0


@pytest.mark.fuse
@pytest.mark.parametrize("what", ["mount source", "companion", "probe", "configuration", "attribute"])
async def test_hanging_file_system_does_not_delay_the_end(
    xy_node: FakeNode, kubelet: KubeletStandIn, what: str
) -> None:
    dead = xy_node.locate("/sys/dead")
    options = {
        "mount source": "allocate: {mounts: [{hostPath: /sys/dead/f, containerPath: /f}]}",
        "companion": "",
        "probe": "health: {probes: [{file: {path: /sys/dead/f}, periodSeconds: 0.1, timeoutSeconds: 60}]}",
        "configuration": "",
        "attribute": "",
    }[what]
    source = {
        "companion": 'nodes: [{path: "${path}"}, {path: /sys/dead/absent, optional: true}]',
        "attribute": "where: {a: ok}, attributes: {a: {path: /sys/dead/f}}",
    }.get(what, "")
    rules = "mounts: {allow: [/sys]}\ndevices: {allow: [/dev/**, /sys/**]}\n"
    policy = write_policy(xy_node, rules)
    with HangingFiles(dead, {"f": "ok\n"}) as files:
        xy_node.write_config(build_x_config(options, source=source))
        extra = ("--config", str(dead / "f")) if what == "configuration" else ()
        if what == "configuration":
            files.hang("f")
        async with start_agent(xy_node, "--policy", str(policy), *extra) as process:
            if what == "configuration":
                await asyncio.to_thread(files.wait_for_reader, "f")
            else:
                await kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 1)
                files.hang("f")
                files.hang_lookups()
                xy_node.plug("/dev/x1")
                hung = asyncio.ensure_future(asyncio.to_thread(files.wait_for_lookup))
                if what == "mount source":
                    call = asyncio.ensure_future(kubelet.plugin(X).allocate([["x0"]]))
                    call.add_done_callback(lambda done: done.exception())
                await hung
            process.send_signal(signal.SIGTERM)
            code = await wait_for_exit(process)
        assert code == 0
        assert list_plugin_sockets(kubelet) == {}


@pytest.mark.fuse
async def test_event_loop_that_hangs_does_not_delay_the_end(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    dead = xy_node.directory / "dead"
    xy_node.write_config(X_CONFIG)
    with HangingFiles(dead, {"f": ""}) as files:
        files.hang_lookups()
        async with start_agent(xy_node, "--device-plugins-dir", str(dead / "sub")) as process:
            await asyncio.to_thread(files.wait_for_lookup)
            process.send_signal(signal.SIGTERM)
            entry = await read_log_entry(process, Event.STOP_TIMED_OUT)
            assert "an operation hangs" in entry["msg"]
            code = await wait_for_exit(process)
        assert code == 0
    assert kubelet.is_running


async def test_release_removes_sockets_and_the_lock_without_the_event_loop(tmp_path: Path) -> None:
    directory = PluginDir(tmp_path)
    assert directory.lock()
    descriptor = os.dup(directory._descriptor)  # noqa: SLF001 - a thread that hangs keeps the descriptor open
    try:
        directory.close()
        other = PluginDir(tmp_path)
        assert other.lock()
        other.close()
        directory.close()
    finally:
        os.close(descriptor)
