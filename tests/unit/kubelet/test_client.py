"""Calls on a Unix socket: the messages of their errors, and servers that start later."""

import asyncio
import resource
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path
from genplug.kubelet.client import CallError, Client, SocketMissingError, SystemLimitError, call
from genplug.testing.kubelet import KubeletStandIn
from tests.support.tiny_plugin import TinyPlugin

GET_OPTIONS = method_path(DEVICE_PLUGIN, "GetDevicePluginOptions")


async def test_call_of_a_missing_socket_states_that_it_does_not_exist(kubelet: KubeletStandIn) -> None:
    missing = kubelet.plugins_dir / "missing.sock"
    with pytest.raises(CallError, match=f"^{missing} does not exist$"):
        await call(missing, GET_OPTIONS, b"", deadline=5)


async def test_call_of_a_socket_without_a_server_states_that_the_connection_was_refused(
    kubelet: KubeletStandIn,
) -> None:
    await kubelet.crash()
    with pytest.raises(CallError, match=f"^connection refused: no process listens on {kubelet.socket}$"):
        await call(kubelet.socket, GET_OPTIONS, b"", deadline=5)


async def test_call_without_a_response_states_the_deadline(kubelet: KubeletStandIn) -> None:
    silent = kubelet.plugins_dir / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(silent))
        listener.listen()
        with pytest.raises(CallError, match=f"^no response from {silent} within 1 s$"):
            await call(silent, GET_OPTIONS, b"", deadline=0.6)


async def test_call_of_an_unknown_method_states_message_and_status(kubelet: KubeletStandIn) -> None:
    with pytest.raises(CallError, match=r"^Method not found! \(UNIMPLEMENTED\)$"):
        await call(kubelet.socket, GET_OPTIONS, b"", deadline=5)


async def test_call_reaches_a_server_that_started_after_a_failed_call(kubelet: KubeletStandIn) -> None:
    later = kubelet.plugins_dir / "tiny.sock"
    with pytest.raises(SocketMissingError, match="does not exist"):
        await call(later, GET_OPTIONS, b"", deadline=10)
    async with TinyPlugin(kubelet.plugins_dir, "example.com/x") as plugin:
        assert await call(later, GET_OPTIONS, b"", deadline=10) == b""
        assert plugin.methods == ["GetDevicePluginOptions"]


async def test_call_without_a_free_descriptor_is_an_error_of_a_limit_of_the_system(kubelet: KubeletStandIn) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on the number of a new descriptor, and the numbers of the standard streams are used.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(SystemLimitError, match="Too many open files"):
            await call(kubelet.socket, GET_OPTIONS, b"", deadline=5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def opened_channels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give a list of the addresses of the channels that are opened."""
    addresses: list[str] = []
    insecure_channel = grpc.aio.insecure_channel

    def open_channel(address: str, **options: Any) -> grpc.aio.Channel:
        addresses.append(address)
        return insecure_channel(address, **options)

    monkeypatch.setattr(grpc.aio, "insecure_channel", open_channel)
    return addresses


async def test_concurrent_calls_of_a_client_share_a_channel_that_the_last_call_closes(
    tmp_path: Path, opened_channels: list[str]
) -> None:
    client = Client(tmp_path / "tiny.sock")
    async with TinyPlugin(tmp_path, "example.com/x"):
        calls = [client.call(GET_OPTIONS, b"", deadline=10) for _ in range(10)]
        assert await asyncio.gather(*calls) == [b""] * 10
        assert len(opened_channels) == 1
        await client.call(GET_OPTIONS, b"", deadline=10)
        assert len(opened_channels) == 2


async def test_failed_channel_of_a_client_gets_no_further_calls(tmp_path: Path, opened_channels: list[str]) -> None:
    client = Client(tmp_path / "tiny.sock")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "tiny.sock"))
        silent.listen()
        hanging = asyncio.create_task(client.call(GET_OPTIONS, b"", deadline=10))
        with pytest.raises(CallError, match="no response"):
            await client.call(GET_OPTIONS, b"", deadline=0.1)
        assert len(opened_channels) == 1
        with pytest.raises(CallError, match="no response"):
            await client.call(GET_OPTIONS, b"", deadline=0.1)
        assert len(opened_channels) == 2
        hanging.cancel()


async def test_call_of_a_client_reaches_the_server_of_a_replaced_socket(
    tmp_path: Path, opened_channels: list[str]
) -> None:
    client = Client(tmp_path / "tiny.sock")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "tiny.sock"))
        silent.listen()
        silent.settimeout(0)
        hanging = asyncio.create_task(client.call(GET_OPTIONS, b"", deadline=10))
        connection, _ = await asyncio.get_running_loop().sock_accept(silent)
        (tmp_path / "tiny.sock").unlink()
        async with TinyPlugin(tmp_path, "example.com/x"):
            assert await client.call(GET_OPTIONS, b"", deadline=10) == b""
        assert not hanging.done()
        assert len(opened_channels) == 2
        hanging.cancel()
        connection.close()
