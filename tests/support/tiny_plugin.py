"""A minimal device plugin without code of genplug's agent, for tests of the kubelet stand-in and of migrations."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import grpc

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import API_VERSION, DEVICE_PLUGIN, HEALTHY, REGISTRATION, UNHEALTHY


class TinyPlugin:
    """Serves a list of devices on a socket and records the calls that it receives."""

    def __init__(
        self, directory: Path, resource: str, *devices: str, socket: str = "tiny.sock", **options: bool
    ) -> None:
        self.directory, self.resource, self.socket = directory, resource, socket
        self.options = pb.DevicePluginOptions(**options)
        self.calls: list[tuple[str, float]] = []
        self.requests: list[object] = []
        self.listed: list[pb.Device] = [device(name) for name in devices]
        self.refusal = ""
        self.answers_containers = True
        self.preferred: list[str] = []
        self.stream_ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        unary = grpc.unary_unary_rpc_method_handler
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetDevicePluginOptions": unary(self._options, None, pb.DevicePluginOptions.SerializeToString),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                self._list, None, pb.ListAndWatchResponse.SerializeToString
            ),
            "GetPreferredAllocation": unary(
                self._prefer, pb.PreferredAllocationRequest.FromString, pb.PreferredAllocationResponse.SerializeToString
            ),
            "Allocate": unary(self._allocate, pb.AllocateRequest.FromString, pb.AllocateResponse.SerializeToString),
            "PreStartContainer": unary(self._pre_start, pb.PreStartContainerRequest.FromString),
        }
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(DEVICE_PLUGIN, handlers)])
        self._server.add_insecure_port(f"unix:{self.directory / self.socket}")
        await self._server.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._closing.set()
        await self._server.stop(None)

    async def register(
        self, *, version: str = API_VERSION, endpoint: str | None = None, says: pb.DevicePluginOptions | None = None
    ) -> None:
        request = pb.RegisterRequest(
            version=version,
            endpoint=self.socket if endpoint is None else endpoint,
            resource_name=self.resource,
            options=says or self.options,
        )
        async with grpc.aio.insecure_channel(
            f"unix:{self.directory / 'kubelet.sock'}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            register: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{REGISTRATION}/Register")
            await register(request.SerializeToString(), timeout=20)
        self._called("(registered)")

    def offer(self, *devices: pb.Device) -> None:
        self.listed = list(devices)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def _called(self, name: str, request: object = None) -> None:
        self.calls.append((name, time.monotonic()))
        self.requests.append(request)

    async def _options(self, _request: bytes, _context: object) -> pb.DevicePluginOptions:
        self._called("GetDevicePluginOptions")
        return self.options

    async def _list(self, _request: bytes, _context: object) -> AsyncIterator[pb.ListAndWatchResponse]:
        self._called("ListAndWatch")
        try:
            while not self._closing.is_set():
                changed = self._changed
                yield pb.ListAndWatchResponse(devices=self.listed)
                await self._wait_for_any(changed, self._closing)
        finally:
            self.stream_ended.set()

    async def _wait_for_any(self, *events: asyncio.Event) -> None:
        tasks = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _prefer(self, request: pb.PreferredAllocationRequest, _context: object) -> pb.PreferredAllocationResponse:
        self._called("GetPreferredAllocation", request)
        response = pb.ContainerPreferredAllocationResponse(deviceIDs=self.preferred)
        return pb.PreferredAllocationResponse(container_responses=[response])

    async def _allocate(
        self, request: pb.AllocateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.AllocateResponse:
        self._called("Allocate", request)
        if self.refusal:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refusal)
        responses = [
            pb.ContainerAllocateResponse(envs={"IDS": ",".join(sorted(container.devices_ids))})
            for container in request.container_requests
        ]
        return pb.AllocateResponse(container_responses=responses if self.answers_containers else [])

    async def _pre_start(
        self, request: pb.PreStartContainerRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        self._called("PreStartContainer", request)
        if self.refusal:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refusal)
        return b""


def device(name: str, *numa: int, healthy: bool = True) -> pb.Device:
    """Return a device on these NUMA nodes."""
    return pb.Device(
        ID=name,
        health=HEALTHY if healthy else UNHEALTHY,
        topology=pb.TopologyInfo(nodes=[pb.NUMANode(ID=node) for node in numa]) if numa else None,
    )
