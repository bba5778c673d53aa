"""A connection to the socket of a plugin, as the kubelet uses it. Tests can use it as a client too.

As in the kubelet, only dialing and PreStartContainer have a deadline (docs/internals/kubelet-contract.md §1.5). By
default, gRPC refuses messages larger than 4 MiB on both sides.
"""

# ruff: noqa: ASYNC109 - the kubelet passes its timeout with each call
import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence

import grpc

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path
from genplug.testing.kubelet.records import Devices, ListMessage, parse_list

DIAL_TIMEOUT_SECONDS = 10.0
PRE_START_TIMEOUT_SECONDS = 30.0

# Each channel has a connection of its own, and gRPC does not retry calls on another connection.
_CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))

ListCall = grpc.aio.UnaryStreamCall[bytes, bytes]


class DialError(Exception):
    """No server accepted a connection on the socket of the plugin in time."""


class PluginClient:
    """A connection to the plugin that serves ``resource`` on the socket with the path ``socket``."""

    def __init__(self, resource: str, socket: str) -> None:
        self.resource = resource
        self.socket = socket
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=_CHANNEL_OPTIONS)
        self._lists: set[ListCall] = set()

    async def dial(self, timeout: float = DIAL_TIMEOUT_SECONDS) -> None:
        """Connect to the plugin.

        Raises:
            DialError: there is no connection within ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._channel.channel_ready()
        except TimeoutError:
            raise DialError("failed to dial device plugin: context deadline exceeded") from None

    async def get_options(self) -> pb.DevicePluginOptions:
        """Call GetDevicePluginOptions and return the options."""
        return pb.DevicePluginOptions.FromString(await self.call_method("GetDevicePluginOptions"))

    def list_and_watch(self) -> ListCall:
        """Call ListAndWatch; each ``read`` of the result returns the bytes of a list."""
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        method = self._channel.unary_stream(method_path(DEVICE_PLUGIN, "ListAndWatch"))
        call = method(b"")
        self._lists.add(call)
        call.add_done_callback(lambda _: self._lists.discard(call))
        return call

    async def watch(self) -> AsyncGenerator[ListMessage, None]:
        """Call ListAndWatch and yield its lists; the call is canceled when the generator is closed."""
        call = self.list_and_watch()
        try:
            async for raw in call:
                yield ListMessage(self.resource, self.socket, time.monotonic(), raw, Devices(dict(parse_list(raw))))
        finally:
            call.cancel()

    async def get_preferred_allocation(
        self, available: Iterable[str], must_include: Iterable[str], size: int
    ) -> pb.PreferredAllocationResponse:
        """Call GetPreferredAllocation with one container request."""
        container = pb.ContainerPreferredAllocationRequest(
            available_deviceIDs=available, must_include_deviceIDs=must_include, allocation_size=size
        )
        request = pb.PreferredAllocationRequest(container_requests=[container])
        response = await self.call_method("GetPreferredAllocation", request.SerializeToString())
        return pb.PreferredAllocationResponse.FromString(response)

    async def allocate(self, containers: Iterable[Sequence[str]]) -> pb.AllocateResponse:
        """Call Allocate with one container request for each sequence of IDs."""
        requests = [pb.ContainerAllocateRequest(devices_ids=ids) for ids in containers]
        request = pb.AllocateRequest(container_requests=requests)
        return pb.AllocateResponse.FromString(await self.call_method("Allocate", request.SerializeToString()))

    async def pre_start_container(self, ids: Iterable[str]) -> None:
        """Call PreStartContainer with the kubelet's deadline."""
        request = pb.PreStartContainerRequest(devices_ids=ids)
        await self.call_method("PreStartContainer", request.SerializeToString(), PRE_START_TIMEOUT_SECONDS)

    async def call_method(self, method: str, request: bytes = b"", timeout: float | None = None) -> bytes:
        """Call a method of DevicePlugin, existing or not, with any bytes; return the bytes of the response.

        Raises:
            grpc.aio.AioRpcError: the plugin answered with an error.
        """
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        unary = self._channel.unary_unary(method_path(DEVICE_PLUGIN, method))
        return await unary(request, timeout=timeout)

    def cancel_lists(self) -> None:
        """Cancel all ListAndWatch calls of this connection."""
        for call in list(self._lists):
            call.cancel()

    async def close(self) -> None:
        """Close the connection and end its calls."""
        self.cancel_lists()
        await self._channel.close()


def format_go_error(error: grpc.aio.AioRpcError) -> str:
    """Return an error as the gRPC library of Go formats it; messages of the kubelet contain it."""
    code = "".join(word.capitalize() for word in error.code().name.split("_"))
    return f"rpc error: code = {'Canceled' if code == 'Cancelled' else code} desc = {error.details()}"
