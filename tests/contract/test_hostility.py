"""Unusual clients, a second process, signals and a deleted directory (points 16, 17, 26, 28 to 30 and 35)."""

import asyncio
import contextlib
import shutil
import signal
from pathlib import Path

import grpc
import pytest

from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path
from genplug.kubelet.plugin_dir import PluginDirReplacedError
from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.agent_process import read_log_entry, start_agent, wait_for_exit
from tests.support.events import drain_events
from tests.support.http2_peer import (
    DATA,
    END_HEADERS,
    HEADERS,
    PREFACE,
    SETTINGS,
    build_frame,
    build_headers,
    open_unread_stream,
)
from tests.support.mounts import bind_mount
from tests.support.resources import X_CONFIG, XY_CONFIG, X, Y
from tests.support.sockets import list_plugin_sockets


async def test_16_second_process_waits_without_touching_files_of_the_first(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    async with xy_node.run_agent(X_CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        before = list_plugin_sockets(kubelet)
        async with start_agent(xy_node) as second:
            entry = await read_log_entry(second, Event.PLUGIN_DIR_LOCKED)
            assert str(kubelet.plugins_dir) in entry["msg"]
            second.terminate()
            assert await wait_for_exit(second) == 0
        assert list_plugin_sockets(kubelet) == before
        assert kubelet.stream_count(X) == len(kubelet.attempts) == 1


async def test_16_second_process_takes_over_when_the_first_ends(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with xy_node.run_agent(X_CONFIG):
            await kubelet.wait_for_list(X, healthy={"x0"})
            second = await stack.enter_async_context(start_agent(xy_node))
            await read_log_entry(second, Event.PLUGIN_DIR_LOCKED)
            await kubelet.admit(X, pod="before")
        await kubelet.wait_registered(X, 2)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert kubelet.stream_count(X) == len(list_plugin_sockets(kubelet)) == 1
        assert len(kubelet.attempts) == 2


async def test_17_slow_server_stop_does_not_delete_the_new_socket(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    async with xy_node.run_agent(X_CONFIG) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        [first] = list_plugin_sockets(kubelet)
        # The server cannot end this stream: its client does not read the last list.
        async with open_unread_stream(kubelet.plugins_dir / first):
            (kubelet.plugins_dir / first).unlink()
            await kubelet.wait_registered(X, 2)
            [second] = list_plugin_sockets(kubelet)
            assert second != first
            # The stop of a server takes at most half a second.
            await asyncio.sleep(0.7)
        await next_event(entries, Event.REGISTERED, times=2)
        assert list(list_plugin_sockets(kubelet)) == [second]
        async with kubelet.connect(X) as client:
            await client.get_options()


async def test_26_process_exits_when_its_plugin_directory_is_replaced(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        shutil.rmtree(kubelet.plugins_dir)
        kubelet.plugins_dir.mkdir()
        entry = await read_log_entry(process, Event.PLUGIN_DIR_REPLACED)
        assert f"{kubelet.plugins_dir} was deleted or replaced" in entry["msg"]
        code = await wait_for_exit(process)
        assert code == 1
        assert list_plugin_sockets(kubelet) == {}


@pytest.mark.root
async def test_26_bind_mount_of_a_deleted_directory_ends_the_agent(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    mounted = xy_node.directory / "m"

    async def run_until_replaced() -> None:
        async with asyncio.timeout(30), xy_node.run_agent(X_CONFIG, kubelet_dir=mounted, poll_seconds=0.2):
            await kubelet.wait_for_list(X, healthy={"x0"})
            shutil.rmtree(kubelet.plugins_dir)
            kubelet.plugins_dir.mkdir()
            # The end of the agent cancels this.
            await asyncio.Event().wait()

    with bind_mount(kubelet.plugins_dir, mounted / "device-plugins"):
        with pytest.raises(PluginDirReplacedError, match="deleted or replaced"):
            await run_until_replaced()
        assert list((mounted / "device-plugins").iterdir()) == []


async def test_28_second_stream_gets_full_lists_and_ends_independently(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    async with xy_node.run_agent(X_CONFIG) as agent:
        await kubelet.wait_for_list(X, healthy={"x0"})
        async with kubelet.connect(X) as second, kubelet.connect(X) as third:
            second_stream, third_stream = second.watch(), third.watch()
            for stream in (second_stream, third_stream):
                assert (await anext(stream)).devices.healthy == {"x0"}
            xy_node.plug("/dev/x1")
            for stream in (second_stream, third_stream):
                assert (await anext(stream)).devices.healthy == {"x0", "x1"}
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})

            await third_stream.aclose()
            xy_node.unplug("/dev/x1")
            assert (await anext(second_stream)).devices.unhealthy == {"x1"}
            await kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})

            kubelet.cancel_stream(X)
            await kubelet.wait_for(lambda: kubelet.stream_count(X) == 0)
            xy_node.plug("/dev/x1")
            assert (await anext(second_stream)).devices.healthy == {"x0", "x1"}
            assert agent.status.resources[0].streams == 1
            await second_stream.aclose()


async def test_29_unread_stream_keeps_the_newest_list_and_delays_nothing_else(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    def build_token_config(tokens: int) -> str:
        return XY_CONFIG.replace("'/dev/x*'}]", f"'/dev/x*'}}], tokens: {tokens}")

    # A list of 3000 devices is larger than the buffers of gRPC's C core, so that the server has to keep it.
    async with xy_node.run_agent(build_token_config(3000)) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, lambda devices: len(devices) == 3000)
        await next_event(entries, Event.CONFIG_UNCHANGED)
        async with open_unread_stream(Path(kubelet.plugin(X).socket)) as unread:
            for tokens in range(3001, 3011):
                xy_node.write_config(build_token_config(tokens), how="rename")
                await next_event(entries, Event.CONFIG_LOADED)
            assert agent.status.resources[0].streams == 2
            # The unread stream is open all the time.
            await kubelet.admit(X, 3)
            xy_node.plug("/dev/y1")
            await kubelet.wait_for_list(Y, healthy={"y0", "y1"})
            await kubelet.wait_for_list(X, lambda devices: len(devices) == 3010)

            unread.start_reading()
            assert [len((await unread.read_message()).devices) for _ in range(2)] == [3000, 3010]
            xy_node.unplug("/dev/x0")
            assert {device.health for device in (await unread.read_message()).devices} == {"Unhealthy"}


async def test_30_server_survives_garbage_and_half_open_connections(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    settings = PREFACE + build_frame(SETTINGS, 0, 0, b"")
    list_and_watch = build_headers(method_path(DEVICE_PLUGIN, "ListAndWatch"))
    allocate = build_headers(method_path(DEVICE_PLUGIN, "Allocate"))
    inputs = {
        "nothing": b"",
        "garbage": bytes(range(256)) * 256,
        "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
        "half a preface": PREFACE[:10],
        "no settings": PREFACE + b"\xff" * 100,
        "a frame that is too long": settings + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        "invalid headers": settings + build_frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
        "ListAndWatch without the end of its request": settings + build_frame(HEADERS, END_HEADERS, 1, list_and_watch),
        "half of an Allocate request": settings
        + build_frame(HEADERS, END_HEADERS, 1, allocate)
        + build_frame(DATA, 0, 1, b"\x00\x00\x00\x00\x64abc"),
    }
    async with xy_node.run_agent(X_CONFIG) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        [socket] = list_plugin_sockets(kubelet)
        async with contextlib.AsyncExitStack() as stack:
            for number, data in enumerate([*inputs.values(), *inputs.values()]):
                _, writer = await asyncio.open_unix_connection(kubelet.plugins_dir / socket)
                stack.callback(writer.close)
                writer.write(data)
                await writer.drain()
                # Half of the clients stop sending, the others close the connection.
                if number < len(inputs):
                    writer.write_eof()
                else:
                    writer.transport.abort()
            for message in (b"\xff\xff", b"\x0a\x7f"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await kubelet.plugin(X).call_method("Allocate", message)
            with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
                await kubelet.plugin(X).call_method("Deallocate")
            assert (await kubelet.admit(X)).ids == ("x0",)
            xy_node.plug("/dev/x1")
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})
            async with kubelet.connect(X) as client:
                assert (await anext(client.watch())).devices.healthy == {"x0", "x1"}
        assert kubelet.stream_count(X) == len(kubelet.attempts) == 1
        events = set(drain_events(entries))
        assert Event.REGISTERED in events
        assert not {Event.INTERNAL_ERROR, Event.DISCONNECTED} & events


async def test_30_resource_is_served_again_after_a_method_name_that_is_not_utf8(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    # The server of gRPC ends with a UnicodeDecodeError and removes its socket (grpcio, aio/server.pyx.pxi).
    async with xy_node.run_agent(X_CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        [first] = list_plugin_sockets(kubelet)
        _, writer = await asyncio.open_unix_connection(kubelet.plugins_dir / first)
        no_settings = build_frame(SETTINGS, 0, 0, b"")
        writer.write(PREFACE + no_settings + build_frame(HEADERS, END_HEADERS, 1, build_headers("/\udcff/Allocate")))
        await kubelet.wait_registered(X, 2)
        await kubelet.wait_for_list(X, healthy={"x0"})
        [second] = list_plugin_sockets(kubelet)
        assert second != first
        await kubelet.admit(X, pod="after")
        writer.close()


async def test_35_sigterm_closes_streams_removes_sockets_and_exits(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    xy_node.write_config(XY_CONFIG)
    async with start_agent(xy_node) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        assert len(list_plugin_sockets(kubelet)) == 2
        process.send_signal(signal.SIGTERM)
        code = await wait_for_exit(process)
        assert code == 0
        assert list_plugin_sockets(kubelet) == {}
        await kubelet.wait_for_list(X, healthy=(), unhealthy={"x0"})
        await kubelet.wait_for_list(Y, healthy=(), unhealthy={"y0"})


async def test_35_sigterm_ends_process_during_hung_register_and_unread_stream(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    gate = kubelet.faults.hang_register(Y)
    xy_node.write_config(XY_CONFIG)
    async with start_agent(xy_node) as process:
        await gate.wait_reached()
        await kubelet.wait_for_list(X, healthy={"x0"})
        async with open_unread_stream(Path(kubelet.plugin(X).socket)):
            process.send_signal(signal.SIGTERM)
            code = await wait_for_exit(process)
        assert code == 0
        assert list_plugin_sockets(kubelet) == {}


async def test_35_sigterm_ends_process_without_kubelet(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    await kubelet.crash()
    kubelet.socket.unlink()
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node) as process:
        await read_log_entry(process, Event.KUBELET_SOCKET_MISSING)
        process.send_signal(signal.SIGTERM)
        code = await wait_for_exit(process)
        assert code == 0
        assert list_plugin_sockets(kubelet) == {}


async def test_35_sockets_of_a_killed_process_are_removed_at_the_next_start(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    xy_node.write_config(X_CONFIG)
    async with start_agent(xy_node) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        process.kill()
        await process.wait()
        await kubelet.wait_for_list(X, healthy=(), unhealthy={"x0"})
    [left] = list_plugin_sockets(kubelet)
    async with xy_node.run_agent(X_CONFIG) as agent:
        acquired = await next_event(record_events(agent), Event.PLUGIN_DIR_ACQUIRED)
        assert acquired.facts["leftovers"] == (left,)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert left not in list_plugin_sockets(kubelet)
        assert kubelet.stream_count(X) == len(list_plugin_sockets(kubelet)) == 1
        assert len(kubelet.attempts) == 2
