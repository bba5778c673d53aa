"""The check that a server responds: the servers that pass, and the errors of those that do not."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genplug.kubelet.client import CallError, SocketMissingError, SystemLimitError
from genplug.kubelet.server_check import check_server
from tests.support.tiny_plugin import TinyPlugin


async def test_server_passes_the_check_without_a_call(tmp_path: Path) -> None:
    async with TinyPlugin(tmp_path, "example.com/x") as plugin:
        await check_server(tmp_path / "tiny.sock", deadline=10)
        assert plugin.methods == []


async def test_check_of_a_missing_socket_states_that_it_does_not_exist(tmp_path: Path) -> None:
    missing = tmp_path / "missing.sock"
    with pytest.raises(SocketMissingError, match=f"^{missing} does not exist$"):
        await check_server(missing, deadline=10)


async def test_check_of_a_socket_without_a_server_states_the_error_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "closed.sock"
    with listening(path):
        pass
    with pytest.raises(CallError, match=f"^cannot connect to {path}: Connection refused$"):
        await check_server(path, deadline=10)


async def test_check_of_a_silent_server_states_the_deadline(tmp_path: Path) -> None:
    path = tmp_path / "silent.sock"
    with listening(path), pytest.raises(CallError, match=f"^no response from {path} within 1 s$"):
        await check_server(path, deadline=0.6)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request", b"\0\0\0"])
async def test_check_of_another_server_states_what_it_sent(tmp_path: Path, answer: bytes) -> None:
    async def respond(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    path = tmp_path / "other.sock"
    async with await asyncio.start_unix_server(respond, path):
        with pytest.raises(CallError, match=r"^expected the SETTINGS of an HTTP/2 server"):
            await check_server(path, deadline=10)


async def test_check_without_a_free_descriptor_is_an_error_of_a_limit_of_the_system(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on the number of a new descriptor, and the numbers of the standard streams are used.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(SystemLimitError, match="Too many open files"):
            await check_server(tmp_path / "any.sock", deadline=10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener
