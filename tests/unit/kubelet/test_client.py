"""Calls on a Unix socket: the messages of their errors, and waiting for a server."""

import asyncio
import socket

import pytest

from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path
from genplug.kubelet.client import CallError, call
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


async def test_call_with_wait_reaches_a_server_that_starts_later(kubelet: KubeletStandIn) -> None:
    later = kubelet.plugins_dir / "tiny.sock"
    calling = asyncio.create_task(call(later, GET_OPTIONS, b"", deadline=10, wait=True))
    with pytest.raises(CallError, match="does not exist"):
        await call(later, GET_OPTIONS, b"", deadline=10)
    assert not calling.done()
    async with TinyPlugin(kubelet.plugins_dir, "example.com/x") as plugin:
        assert await calling == b""
        assert plugin.methods == ["GetDevicePluginOptions"]
