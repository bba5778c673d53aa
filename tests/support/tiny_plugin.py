"""A minimal device plugin, written without genplug, to test the kubelet stand-in."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import grpc

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import API_VERSION, DEVICE_PLUGIN, HEALTHY, REGISTRATION, UNHEALTHY, method_path

REGISTER_CALL = "(registered)"
"""The entry in the calls of a plugin for its own successful Register call."""


class TinyPlugin:
    """Serves a list of devices on a socket and records the calls of the kubelet."""

    def __init__(
        self, directory: Path, resource: str, *devices: str, socket: str = "tiny.sock", **options: bool
    ) -> None:
        self.directory, self.resource, self.socket = directory, resource, socket
        self.options = pb.DevicePluginOptions(**options)
        self.calls: list[tuple[str, float]] = []
        self.requests: list[object] = []
        self.error = ""
        """The message with which all calls except ListAndWatch fail, unless it is empty."""
        self.has_container_responses = True
        self.preferred: list[str] = []
        self.stream_ended = asyncio.Event()
        self._devices = [build_device(name) for name in devices]
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        unary = grpc.unary_unary_rpc_method_handler
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetDevicePluginOptions": unary(self._get_options, None, pb.DevicePluginOptions.SerializeToString),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                self._list_and_watch, None, pb.ListAndWatchResponse.SerializeToString
            ),
            "GetPreferredAllocation": unary(
                self._get_preferred_allocation,
                pb.PreferredAllocationRequest.FromString,
                pb.PreferredAllocationResponse.SerializeToString,
            ),
            "Allocate": unary(self._allocate, pb.AllocateRequest.FromString, pb.AllocateResponse.SerializeToString),
            "PreStartContainer": unary(self._pre_start_container, pb.PreStartContainerRequest.FromString),
        }
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(DEVICE_PLUGIN, handlers)])
        self._server.add_insecure_port(f"unix:{self.directory / self.socket}")
        await self._server.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._closing.set()
        await self._server.stop(None)

    @property
    def methods(self) -> list[str]:
        """The names of the calls, in order."""
        return [name for name, _ in self.calls]

    async def register(
        self, *, version: str = API_VERSION, endpoint: str | None = None, options: pb.DevicePluginOptions | None = None
    ) -> None:
        """Register with the kubelet of the directory; the arguments replace the values of the plugin."""
        request = pb.RegisterRequest(
            version=version,
            endpoint=self.socket if endpoint is None else endpoint,
            resource_name=self.resource,
            options=options or self.options,
        )
        async with grpc.aio.insecure_channel(
            f"unix:{self.directory / 'kubelet.sock'}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            method = channel.unary_unary(method_path(REGISTRATION, "Register"))
            await method(request.SerializeToString(), timeout=20)
        self._record(REGISTER_CALL)

    def set_devices(self, *devices: pb.Device) -> None:
        """Send another list on all streams."""
        self._devices = list(devices)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def find_requests(self, kind: type[Any]) -> list[Any]:
        """Return the requests with this message type, in order."""
        return [request for request in self.requests if isinstance(request, kind)]

    def _record(self, method: str, request: object = None) -> None:
        self.calls.append((method, time.monotonic()))
        self.requests.append(request)

    async def _fail_if_error(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if self.error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.error)

    async def _get_options(
        self, _request: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DevicePluginOptions:
        self._record("GetDevicePluginOptions")
        await self._fail_if_error(context)
        return self.options

    async def _list_and_watch(self, _request: bytes, _context: object) -> AsyncIterator[pb.ListAndWatchResponse]:
        self._record("ListAndWatch")
        try:
            while not self._closing.is_set():
                changed = self._changed
                yield pb.ListAndWatchResponse(devices=self._devices)
                await _wait_first(changed, self._closing)
        finally:
            self.stream_ended.set()

    async def _get_preferred_allocation(
        self, request: pb.PreferredAllocationRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.PreferredAllocationResponse:
        self._record("GetPreferredAllocation", request)
        await self._fail_if_error(context)
        response = pb.ContainerPreferredAllocationResponse(deviceIDs=self.preferred)
        return pb.PreferredAllocationResponse(container_responses=[response])

    async def _allocate(
        self, request: pb.AllocateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.AllocateResponse:
        self._record("Allocate", request)
        await self._fail_if_error(context)
        responses = [
            pb.ContainerAllocateResponse(envs={"IDS": ",".join(sorted(container.devices_ids))})
            for container in request.container_requests
        ]
        return pb.AllocateResponse(container_responses=responses if self.has_container_responses else [])

    async def _pre_start_container(
        self, request: pb.PreStartContainerRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        self._record("PreStartContainer", request)
        await self._fail_if_error(context)
        return b""


def build_device(name: str, *numa: int, healthy: bool = True) -> pb.Device:
    """Return a device for the list of a plugin."""
    return pb.Device(
        ID=name,
        health=HEALTHY if healthy else UNHEALTHY,
        topology=pb.TopologyInfo(nodes=[pb.NUMANode(ID=node) for node in numa]) if numa else None,
    )


async def _wait_first(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
