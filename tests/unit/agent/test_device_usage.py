"""Reads of the use of devices, from a pod-resources API that responds when the test allows it."""

import asyncio
from pathlib import Path
from typing import Any

import grpc

from genplug.agent.device_usage import DeviceUsage
from genplug.kubelet.api import genplug_podresources_v1_pb2 as pb
from genplug.kubelet.api.services import POD_RESOURCES


class SlowPodResources:
    """A pod-resources API without pods that counts its calls, and whose responses wait for ``respond``."""

    def __init__(self) -> None:
        self.calls = 0
        self.called, self.respond = asyncio.Event(), asyncio.Event()

    async def list_pods(self, _request: bytes, _context: object) -> bytes:
        self.calls += 1
        self.called.set()
        await self.respond.wait()
        return pb.ListPodResourcesResponse().SerializeToString()


async def test_reads_at_the_same_time_share_a_response(tmp_path: Path) -> None:
    api = SlowPodResources()
    server = grpc.aio.server()
    handlers: dict[str, Any] = {"List": grpc.unary_unary_rpc_method_handler(api.list_pods)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(POD_RESOURCES, handlers),))
    server.add_insecure_port(f"unix:{tmp_path}/kubelet.sock")
    await server.start()
    usage = DeviceUsage(tmp_path / "kubelet.sock")
    reads = [asyncio.create_task(usage.refresh()) for _ in range(3)]
    await api.called.wait()
    # No read ends before the response arrives: it would report an older use of the devices.
    assert not any(read.done() for read in reads)
    api.respond.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*reads)
    assert api.calls == 1

    await usage.refresh()
    assert api.calls == 1
    usage.expire()
    await usage.refresh()
    assert api.calls == 2
    await server.stop(None)
