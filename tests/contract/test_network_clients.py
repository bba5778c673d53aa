"""Clients in the network of the cluster that reach the HTTP endpoints of an agent."""

import asyncio
import contextlib
import resource
import signal
from asyncio.subprocess import Process
from collections.abc import Iterator
from pathlib import Path

import pytest

from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode
from tests.support.agent_process import read_log_entry, start_agent, wait_for_exit
from tests.support.network import free_port
from tests.support.resources import X_CONFIG, X

CONNECTIONS = 1500


def count_threads(process: Process) -> int:
    """Return the number of threads of a process."""
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


def read_resident_kib(process: Process) -> int:
    """Return the resident memory of a process in KiB."""
    status = Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")[1]
    return int(status.split()[0])


@contextlib.contextmanager
def raise_descriptor_limit() -> Iterator[None]:
    """Raise the limit of descriptors of this process, which holds the clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("descriptors", [256, 1024])
async def test_idle_connections_neither_end_nor_grow_the_agent(
    xy_node: FakeNode, kubelet: KubeletStandIn, descriptors: int
) -> None:
    port = free_port()
    xy_node.write_config(X_CONFIG)
    async with start_agent(
        xy_node, "--listen", f"127.0.0.1:{port}", prefix=("prlimit", f"--nofile={descriptors}")
    ) as process:
        await kubelet.wait_for_list(X, healthy={"x0"})
        await read_log_entry(process, Event.REGISTERED)
        threads, memory = count_threads(process), read_resident_kib(process)
        with raise_descriptor_limit():
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(CONNECTIONS):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    stack.callback(writer.close)
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                writer.close()
                assert count_threads(process) <= threads + 2
                assert read_resident_kib(process) <= memory + 8192
                assert (await kubelet.admit(X)).ids == ("x0",)
                xy_node.plug("/dev/x1")
                await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        process.send_signal(signal.SIGTERM)
        assert await wait_for_exit(process) == 0
