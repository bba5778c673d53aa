"""The kubelet's connection to the service of a driver."""
# ruff: noqa: ASYNC109 - a test passes its timeout with the call

import asyncio
from collections.abc import Callable, Sequence

import grpc

from genplug.kubelet.api import genplug_dra_v1_pb2 as pb
from genplug.kubelet.api.services import DRA_PLUGIN, method_path

CALL_SECONDS = 45.0
"""The deadline of NodePrepareResources and NodeUnprepareResources (``defaultClientCallTimeout``)."""
# A kubelet waits for a second and longer before it connects again.
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
)


class DriverClient:
    """The kubelet's connection to the service of a driver. Tests can use it as a client too."""

    def __init__(self, driver: str, endpoint: str, on_change: Callable[[], None]) -> None:
        self.driver = driver
        self.endpoint = endpoint
        self.is_connected = False
        self._on_change = on_change
        self._channel = grpc.aio.insecure_channel(f"unix:{endpoint}", options=CHANNEL_OPTIONS)
        self._watch = asyncio.create_task(self._watch_connection())

    async def prepare(
        self, claims: Sequence[pb.Claim], timeout: float = CALL_SECONDS
    ) -> pb.NodePrepareResourcesResponse:
        """Call NodePrepareResources."""
        request = pb.NodePrepareResourcesRequest(claims=claims)
        response = await self.call_method("NodePrepareResources", request.SerializeToString(), timeout)
        return pb.NodePrepareResourcesResponse.FromString(response)

    async def unprepare(
        self, claims: Sequence[pb.Claim], timeout: float = CALL_SECONDS
    ) -> pb.NodeUnprepareResourcesResponse:
        """Call NodeUnprepareResources."""
        request = pb.NodeUnprepareResourcesRequest(claims=claims)
        response = await self.call_method("NodeUnprepareResources", request.SerializeToString(), timeout)
        return pb.NodeUnprepareResourcesResponse.FromString(response)

    async def call_method(self, method: str, request: bytes = b"", timeout: float = CALL_SECONDS) -> bytes:
        """Call a method of the service, existing or not, with any bytes; return the bytes of the response.

        Raises:
            grpc.aio.AioRpcError: the driver answered with an error, or not within ``timeout`` seconds.
        """
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            method_path(DRA_PLUGIN, method)
        )
        return await unary(request, timeout=timeout)

    async def close(self) -> None:
        """Close the connection and end its calls."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._channel.close()
        self.is_connected = False

    async def _watch_connection(self) -> None:
        while True:
            # As in the kubelet, a connection that ended is opened again without a call.
            state = self._channel.get_state(try_to_connect=True)
            if (is_connected := state is grpc.ChannelConnectivity.READY) != self.is_connected:
                self.is_connected = is_connected
                self._on_change()
            await self._channel.wait_for_state_change(state)
