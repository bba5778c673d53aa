"""Strange peers on the sockets, a second copy, signals and a dead mount (contract 10: 16, 17, 26, 28 to 30, 35)."""

import asyncio
import contextlib
import json
import shutil
import signal
import struct
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path
from genplug.kubelet.plugin_dir import PluginDirReplacedError
from genplug.observe.events import Event
from genplug.testing.kubelet.stand_in import KubeletStandIn
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\n"
X, Y = "example.com/x", "example.com/y"
CONFIG = HEAD + "resources: {example.com/x: {devices: [{glob: /dev/x*}]}}"
BOTH = HEAD + "resources: {example.com/x: {devices: [{glob: /dev/x*}]}, example.com/y: {devices: [{glob: /dev/y*}]}}"

# HTTP/2 as far as it takes to be a peer that gRPC's own client cannot be (RFC 9113, 3.4 and 6).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8
END_STREAM, END_HEADERS, INITIAL_WINDOW_SIZE = 1, 4, 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def request(method: str) -> bytes:
    """The headers of a gRPC call, in HPACK's plainest form (RFC 7541, 6.1 and 6.2.2)."""

    def text(written: str) -> bytes:
        return bytes([len(written)]) + written.encode()

    post_http = b"\x83\x86"
    named = b"\x04" + text(method) + b"\x01" + text("localhost")
    return (
        post_http
        + named
        + b"".join(
            b"\x00" + text(name) + text(value)
            for name, value in (("content-type", "application/grpc"), ("te", "trailers"))
        )
    )


class Deaf:
    """A peer that opened ListAndWatch and takes not a byte of it, until it is told to ``listen``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._read = b""

    async def open(self) -> None:
        no_window = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0))
        headers = frame(HEADERS, END_HEADERS, 1, request(method_path(DEVICE_PLUGIN, "ListAndWatch")))
        self._writer.write(PREFACE + no_window + headers + frame(DATA, END_STREAM, 1, bytes(5)))
        # The answer's headers need no window: the call has begun.
        while (await self._frame())[0] != HEADERS:
            pass

    def listen(self) -> None:
        wide = (10 << 20).to_bytes(4, "big")
        self._writer.write(frame(WINDOW_UPDATE, 0, 0, wide) + frame(WINDOW_UPDATE, 0, 1, wide))

    async def message(self) -> pb.ListAndWatchResponse:
        async with asyncio.timeout(10):
            while len(self._read) < 5 or len(self._read) < 5 + int.from_bytes(self._read[1:5], "big"):
                kind, payload = await self._frame()
                self._read += payload if kind == DATA else b""
        end = 5 + int.from_bytes(self._read[1:5], "big")
        whole, self._read = self._read[5:end], self._read[end:]
        return pb.ListAndWatchResponse.FromString(whole)

    async def _frame(self) -> tuple[int, bytes]:
        head = await self._reader.readexactly(9)
        return head[3], await self._reader.readexactly(int.from_bytes(head[:3], "big"))


@contextlib.asynccontextmanager
async def deaf(socket: Path) -> AsyncIterator[Deaf]:
    reader, writer = await asyncio.open_unix_connection(socket)
    peer = Deaf(reader, writer)
    await peer.open()
    yield peer
    writer.close()


async def logged(process: Process, event: Event) -> dict[str, str]:
    """The next entry of an event in a process's log."""
    assert process.stderr is not None
    async with asyncio.timeout(10):
        while (entry := json.loads(await process.stderr.readline()))["event"] != event.code:
            pass
    return dict(entry)


async def ended(process: Process) -> tuple[int, float]:
    """A process's exit code once it has ended, and how long that took."""
    started = time.monotonic()
    await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode is not None
    return process.returncode, time.monotonic() - started


def own_sockets(kubelet: KubeletStandIn) -> dict[Path, int]:
    """The plugins' sockets with their inodes."""
    found = [one for one in kubelet.plugins_dir.iterdir() if one.is_socket() and one != kubelet.socket]
    return {one: one.stat().st_ino for one in found}


@contextlib.asynccontextmanager
async def process_on(node: FakeNode, config: str = CONFIG) -> AsyncIterator[Process]:
    """Run genplug on a node as a process of its own, and kill what is left of it."""
    node.write_config(config)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "genplug", "run", "--log-format", "json", "--config", node.config_dir),
        *("--root", node.root, "--kubelet-dir", node.kubelet_dir),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.fixture
def plugged(node: FakeNode) -> FakeNode:
    for name in ("x0", "y0"):
        node.plug(f"/dev/{name}")
    return node


async def test_16_second_process_waits_without_touching_files_of_the_first(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    async with plugged.run_agent(CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        before = own_sockets(kubelet)
        async with process_on(plugged) as second:
            said = await logged(second, Event.PLUGIN_DIR_LOCKED)
            assert str(kubelet.plugins_dir) in said["msg"]
            second.terminate()
            assert (await ended(second))[0] == 0
        assert own_sockets(kubelet) == before
        assert kubelet.stream_count(X) == len(kubelet.attempts) == 1


async def test_16_second_process_takes_over_when_the_first_ends(plugged: FakeNode, kubelet: KubeletStandIn) -> None:
    async with contextlib.AsyncExitStack() as later:
        async with plugged.run_agent(CONFIG):
            await kubelet.wait_for_list(X, healthy={"x0"})
            second = await later.enter_async_context(process_on(plugged))
            await logged(second, Event.PLUGIN_DIR_LOCKED)
            await kubelet.admit(X, pod="before")
        await kubelet.wait_registered(X, 2)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert kubelet.stream_count(X) == len(own_sockets(kubelet)) == 1
        assert len(kubelet.attempts) == 2


async def test_17_slow_server_stop_does_not_delete_the_new_socket(plugged: FakeNode, kubelet: KubeletStandIn) -> None:
    async with plugged.run_agent(CONFIG) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        [first] = own_sockets(kubelet)
        # A stream that cannot end by itself: nobody takes the last words on it.
        async with deaf(first):
            first.unlink()
            await kubelet.wait_registered(X, 2)
            [second] = own_sockets(kubelet)
            assert second != first
            # Longer than a server is given for its end.
            await asyncio.sleep(0.7)
        await next_event(entries, Event.REGISTERED)
        assert list(own_sockets(kubelet)) == [second]
        async with kubelet.connect(X) as dialled:
            await dialled.get_options()


async def test_26_process_exits_when_its_plugin_directory_is_replaced(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    async with process_on(plugged) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        shutil.rmtree(kubelet.plugins_dir)
        kubelet.plugins_dir.mkdir()
        said = await logged(process, Event.PLUGIN_DIR_REPLACED)
        assert f"{kubelet.plugins_dir} was deleted or replaced" in said["msg"]
        code, seconds = await ended(process)
        assert code == 1
        assert seconds < 5
        assert own_sockets(kubelet) == {}


@contextlib.contextmanager
def mounted(source: Path, target: Path) -> Iterator[None]:
    """Mount a directory at another path, as a container gets it."""
    target.mkdir(parents=True)
    subprocess.run(["mount", "--bind", source, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", target], check=True)


@pytest.mark.root
async def test_26_bind_mount_of_a_deleted_directory_ends_the_agent(plugged: FakeNode, kubelet: KubeletStandIn) -> None:
    seen = plugged.directory / "m"

    async def serve() -> None:
        async with plugged.run_agent(CONFIG, kubelet_dir=seen, poll=0.2):
            await kubelet.wait_for_list(X, healthy={"x0"})
            shutil.rmtree(kubelet.plugins_dir)
            kubelet.plugins_dir.mkdir()
            await asyncio.sleep(1)

    with mounted(kubelet.plugins_dir, seen / "device-plugins"):
        with pytest.raises(PluginDirReplacedError, match="deleted or replaced"):
            await serve()
        assert list((seen / "device-plugins").iterdir()) == []


async def test_28_second_stream_gets_full_lists_and_ends_independently(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    async with plugged.run_agent(CONFIG) as agent:
        await kubelet.wait_for_list(X, healthy={"x0"})
        async with asyncio.timeout(10), kubelet.connect(X) as one, kubelet.connect(X) as other:
            lists, others = one.watch(), other.watch()
            for second in (lists, others):
                asked = time.monotonic()
                first = await anext(second)
                assert first.devices.healthy == {"x0"}
                assert first.time - asked < 0.5
            plugged.plug("/dev/x1")
            assert (await anext(lists)).devices.healthy == (await anext(others)).devices.healthy == {"x0", "x1"}
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})

            await others.aclose()
            plugged.unplug("/dev/x1")
            assert (await anext(lists)).devices.unhealthy == {"x1"}
            await kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})

            kubelet.cancel_stream(X)
            await kubelet.wait_for(lambda: kubelet.stream_count(X) == 0)
            plugged.plug("/dev/x1")
            assert (await anext(lists)).devices.healthy == {"x0", "x1"}
            assert agent.status.resources[0].streams == 1
            await lists.aclose()


async def test_29_unread_stream_keeps_the_newest_list_and_delays_nothing_else(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    def config(tokens: int) -> str:
        return BOTH.replace("/dev/x*}]", f"/dev/x*}}], tokens: {tokens}")

    # More than gRPC's core takes from us before anybody reads it.
    async with plugged.run_agent(config(3000)) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, lambda devices: len(devices) == 3000)
        await next_event(entries, Event.CONFIG_UNCHANGED)
        [socket] = [one for one in own_sockets(kubelet) if one.name == kubelet.plugin(X).socket.rpartition("/")[2]]
        async with deaf(socket) as peer:
            for tokens in range(3001, 3011):
                plugged.write_config(config(tokens), how="rename")
                await next_event(entries, Event.CONFIG_LOADED)
            assert agent.status.resources[0].streams == 2
            asked = time.monotonic()
            await kubelet.admit(X, 3)
            plugged.plug("/dev/y1")
            await kubelet.wait_for_list(Y, healthy={"y0", "y1"})
            assert time.monotonic() - asked < 1
            await kubelet.wait_for_list(X, lambda devices: len(devices) == 3010)

            peer.listen()
            assert [len((await peer.message()).devices) for _ in range(2)] == [3000, 3010]
            plugged.unplug("/dev/x0")
            assert {one.health for one in (await peer.message()).devices} == {"Unhealthy"}


async def test_30_server_survives_garbage_and_half_open_connections(plugged: FakeNode, kubelet: KubeletStandIn) -> None:
    list_and_watch = request(method_path(DEVICE_PLUGIN, "ListAndWatch"))
    allocate = request(method_path(DEVICE_PLUGIN, "Allocate"))
    said = {
        "nothing": b"",
        "garbage": bytes(range(256)) * 256,
        "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
        "half a preface": PREFACE[:10],
        "no settings": PREFACE + b"\xff" * 100,
        "a frame too long": PREFACE + frame(SETTINGS, 0, 0, b"") + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        "headers that are none": PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
        "a list without an end of the request": PREFACE
        + frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, list_and_watch),
        "half an Allocate": PREFACE
        + frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, allocate)
        + frame(DATA, 0, 1, b"\x00\x00\x00\x00\x64abc"),
    }
    async with plugged.run_agent(CONFIG) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        [socket] = own_sockets(kubelet)
        async with contextlib.AsyncExitStack() as later:
            for number, words in enumerate([*said.values(), *said.values()]):
                _, writer = await asyncio.open_unix_connection(socket)
                later.callback(writer.close)
                writer.write(words)
                await writer.drain()
                # Half of them only stop talking, the others hang up in the midst of it.
                if number < len(said):
                    writer.write_eof()
                else:
                    writer.transport.abort()
            for message in (b"\xff\xff", b"\x0a\x7f"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await kubelet.plugin(X).call_method("Allocate", message)
            with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
                await kubelet.plugin(X).call_method("Deallocate")
            assert (await asyncio.wait_for(kubelet.admit(X), 2)).ids == ("x0",)
            plugged.plug("/dev/x1")
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})
            async with kubelet.connect(X) as dialled:
                assert (await anext(dialled.watch())).devices.healthy == {"x0", "x1"}
        assert kubelet.stream_count(X) == len(kubelet.attempts) == 1
        assert not {Event.INTERNAL_ERROR, Event.DISCONNECTED} & {
            entries.get_nowait().event for _ in range(entries.qsize())
        }


async def test_35_sigterm_closes_streams_removes_sockets_and_exits(plugged: FakeNode, kubelet: KubeletStandIn) -> None:
    async with process_on(plugged, BOTH) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        assert len(own_sockets(kubelet)) == 2
        process.send_signal(signal.SIGTERM)
        code, seconds = await ended(process)
        assert code == 0
        assert seconds < 2
        assert own_sockets(kubelet) == {}
        await kubelet.wait_for_list(X, healthy=(), unhealthy={"x0"})
        await kubelet.wait_for_list(Y, healthy=(), unhealthy={"y0"})


async def test_35_sigterm_ends_process_during_hung_register_and_unread_stream(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    gate = kubelet.faults.hang_register(Y)
    async with process_on(plugged, BOTH) as process:
        await gate.wait_reached()
        await kubelet.wait_for_list(X, healthy={"x0"})
        async with deaf(Path(kubelet.plugin(X).socket)):
            process.send_signal(signal.SIGTERM)
            code, seconds = await ended(process)
        assert code == 0
        assert seconds < 2
        assert own_sockets(kubelet) == {}


async def test_35_sigterm_ends_process_without_kubelet(plugged: FakeNode, kubelet: KubeletStandIn) -> None:
    await kubelet.crash()
    kubelet.socket.unlink()
    async with process_on(plugged) as process:
        await logged(process, Event.KUBELET_SOCKET_MISSING)
        process.send_signal(signal.SIGTERM)
        code, seconds = await ended(process)
        assert code == 0
        assert seconds < 2
        assert own_sockets(kubelet) == {}


async def test_35_sockets_of_a_killed_process_are_removed_at_the_next_start(
    plugged: FakeNode, kubelet: KubeletStandIn
) -> None:
    async with process_on(plugged) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        process.kill()
        await process.wait()
        await kubelet.wait_for_list(X, healthy=(), unhealthy={"x0"})
    [left] = own_sockets(kubelet)
    async with plugged.run_agent(CONFIG) as agent:
        said = await next_event(record_events(agent), Event.PLUGIN_DIR_ACQUIRED)
        assert said.facts["leftovers"] == (left.name,)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert not left.exists()
        assert kubelet.stream_count(X) == len(own_sockets(kubelet)) == 1
        assert len(kubelet.attempts) == 2
