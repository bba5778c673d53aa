"""A connection to a plugin's socket, as the kubelet uses it; also a client of its own for low-level tests.

Nothing has a deadline here but dialing and PreStartContainer, as in the kubelet (contract 1.5). Messages larger than
4 MiB are refused by gRPC's default on both sides.
"""

# ruff: noqa: ASYNC109 - the kubelet says for each call how long it waits
import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence

import grpc

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path
from genplug.testing.kubelet.records import Devices, ListMessage, parse_list

DIAL_TIMEOUT = 10.0
PRE_START_TIMEOUT = 30.0

# Every dial is a connection of its own, and a lost one is not replaced behind the kubelet's back.
_CHANNEL = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))

ListCall = grpc.aio.UnaryStreamCall[bytes, bytes]


class DialError(Exception):
    """Nobody answered on a plugin's socket in time."""


class PluginClient:
    """One connection to the plugin that serves ``resource`` on ``socket`` (a path)."""

    def __init__(self, resource: str, socket: str) -> None:
        self.resource = resource
        self.socket = socket
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=_CHANNEL)
        self._lists: set[ListCall] = set()

    async def dial(self, timeout: float = DIAL_TIMEOUT) -> None:
        """Connect.

        Raises:
            DialError: no connection within ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._channel.channel_ready()
        except TimeoutError:
            raise DialError("failed to dial device plugin: context deadline exceeded") from None

    async def get_options(self) -> pb.DevicePluginOptions:
        """Call GetDevicePluginOptions."""
        return pb.DevicePluginOptions.FromString(await self.call_method("GetDevicePluginOptions"))

    def list_and_watch(self) -> ListCall:
        """Open ListAndWatch; each ``read`` of it returns the bytes of a list."""
        opening: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        opening = self._channel.unary_stream(method_path(DEVICE_PLUGIN, "ListAndWatch"))
        call = opening(b"")
        self._lists.add(call)
        call.add_done_callback(lambda _: self._lists.discard(call))
        return call

    async def watch(self) -> AsyncGenerator[ListMessage]:
        """Open another ListAndWatch and read it; leaving the loop ends it."""
        call = self.list_and_watch()
        try:
            async for raw in call:
                yield ListMessage(self.resource, self.socket, time.monotonic(), raw, Devices(dict(parse_list(raw))))
        finally:
            call.cancel()

    async def get_preferred_allocation(
        self, available: Iterable[str], must_include: Iterable[str], size: int
    ) -> pb.PreferredAllocationResponse:
        """Call GetPreferredAllocation for one container."""
        asked = pb.ContainerPreferredAllocationRequest(
            available_deviceIDs=available, must_include_deviceIDs=must_include, allocation_size=size
        )
        request = pb.PreferredAllocationRequest(container_requests=[asked])
        answer = await self.call_method("GetPreferredAllocation", request.SerializeToString())
        return pb.PreferredAllocationResponse.FromString(answer)

    async def allocate(self, containers: Iterable[Sequence[str]]) -> pb.AllocateResponse:
        """Call Allocate with one container request for each sequence of IDs."""
        asked = [pb.ContainerAllocateRequest(devices_ids=ids) for ids in containers]
        request = pb.AllocateRequest(container_requests=asked)
        return pb.AllocateResponse.FromString(await self.call_method("Allocate", request.SerializeToString()))

    async def pre_start_container(self, ids: Iterable[str]) -> None:
        """Call PreStartContainer with the kubelet's deadline."""
        request = pb.PreStartContainerRequest(devices_ids=ids)
        await self.call_method("PreStartContainer", request.SerializeToString(), PRE_START_TIMEOUT)

    async def call_method(self, method: str, request: bytes = b"", timeout: float | None = None) -> bytes:
        """Call any method of DevicePlugin, existing or not, with any bytes, and return the answer's.

        Raises:
            grpc.aio.AioRpcError: the plugin's error.
        """
        calling: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        calling = self._channel.unary_unary(method_path(DEVICE_PLUGIN, method))
        return await calling(request, timeout=timeout)

    def cancel_lists(self) -> None:
        """Cancel every open ListAndWatch of this connection."""
        for call in list(self._lists):
            call.cancel()

    async def close(self) -> None:
        """Close the connection and whatever goes over it."""
        self.cancel_lists()
        await self._channel.close()


def go_error(error: grpc.aio.AioRpcError) -> str:
    """Return an error of gRPC in the words of Go's library, which the kubelet's texts contain."""
    code = "".join(word.capitalize() for word in error.code().name.split("_"))
    return f"rpc error: code = {'Canceled' if code == 'Cancelled' else code} desc = {error.details()}"
