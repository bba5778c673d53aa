"""Serve the five calls of the v1beta1 DevicePlugin service for one generation of one resource.

Source of the rules: docs/internals/kubelet-contract.md §1.1, §4 and §5. The generated classes parse requests; responses
are serialized before gRPC gets them. Each call reads the newest state of the resource once and uses nothing else, so
it sees one whole configuration, the old one or the new one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from itertools import chain
from operator import is_
from typing import Any, Protocol

import grpc
from msgspec import Struct

from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.allocation.results import PluginOptions, ProgramRun
from genplug.kubelet import prestart_runner, wire
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path
from genplug.kubelet.endpoint_events import StreamClosed, StreamOpened
from genplug.kubelet.latest_value import LatestValue
from genplug.kubelet.list_timer import LIST_BUDGET, list_due
from genplug.kubelet.reports import CallAnswered, InternalErrorCaught, ListSent, Method, Reporter
from genplug.spec.limits import MAX_RESPONSE_BYTES

MAX_ALLOCATE_ATTEMPTS = 3
"""Attempts to allocate while the state of the resource changes; more would keep other pods waiting."""

MAX_KEPT_REQUESTS = 1024
"""Allocate requests for a device whose responses are kept, and requests for several; the next discards all of these."""
MAX_KEPT_BYTES = 4096
"""Bytes of a request and its response that are kept; both have 200 bytes usually."""

Context = grpc.aio.ServicerContext[Any, bytes]


class ResourceBackend(Protocol):
    """One consistent state of a resource, as its endpoint needs it."""

    @property
    def device_list(self) -> wire.DeviceList:
        """The device list for the kubelet; equal if nothing changed."""
        ...

    @property
    def options(self) -> PluginOptions:
        """The plugin options, which the kubelet reads once, when it connects."""
        ...

    async def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        """Return the edits for a container with these devices.

        Raises:
            AllocationError: the request fails.
        """
        ...

    def pre_start_programs(self, ids: Sequence[str]) -> Sequence[ProgramRun]:
        """Return the programs to run before a container with these devices starts.

        Raises:
            AllocationError: the request fails.
        """
        ...

    def choose_preferred(self, available: Sequence[str], must_include: Sequence[str], size: int) -> Sequence[str]:
        """Return the preferred devices among the available devices."""
        ...


class _Allocation(Struct, frozen=True):
    """An Allocate request: the IDs for each of its containers. ``response`` is the response with ``edits``."""

    containers: tuple[tuple[str, ...], ...]
    edits: tuple[ContainerEdits, ...] = ()
    response: bytes = b""

    @property
    def ids(self) -> tuple[str, ...]:
        """The IDs of all containers, each once."""
        return tuple(dict.fromkeys(chain.from_iterable(self.containers)))


class DevicePluginServicer(grpc.GenericRpcHandler):
    """The gRPC handler of one generation of an endpoint.

    ``on_stream`` is called when a ListAndWatch stream opens or closes, ``report`` when a list was sent, a call was
    answered, or a call failed because of a defect in genplug.
    """

    def __init__(
        self,
        resource: str,
        backend: LatestValue[ResourceBackend],
        on_stream: Callable[[StreamOpened | StreamClosed], None],
        report: Reporter,
    ) -> None:
        self._resource = resource
        self._backend = backend
        self._on_stream = on_stream
        self._report = report
        self._closing = asyncio.Event()
        # Sets of devices seldom repeat: they do not replace the requests for a device.
        self._kept_of_one: dict[bytes, _Allocation] = {}
        self._kept_of_several: dict[bytes, _Allocation] = {}
        unary = grpc.unary_unary_rpc_method_handler
        calls: dict[str, grpc.RpcMethodHandler[Any, bytes]] = {
            "GetDevicePluginOptions": unary(self._get_options),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(self._list_and_watch),
            "GetPreferredAllocation": unary(self._get_preferred_allocation, pb.PreferredAllocationRequest.FromString),
            "Allocate": unary(self._allocate),
            "PreStartContainer": unary(self._pre_start_container, pb.PreStartContainerRequest.FromString),
        }
        self._handlers = {method_path(DEVICE_PLUGIN, name): handler for name, handler in calls.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, bytes] | None":
        """Return the handler of a method; None makes gRPC respond with UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)

    def close(self) -> None:
        """End every open stream, so that the stop of the server waits for the other calls only."""
        self._closing.set()

    def release(self) -> None:
        """Release the handlers, which refer to the servicer; call this when the server has stopped.

        Otherwise, a generation needs memory until the next garbage collection, which can be many restarts later.
        """
        self._handlers.clear()

    async def _get_options(self, _request: bytes, _context: Context) -> bytes:
        return wire.encode_options(self._backend.value.options)

    async def _list_and_watch(self, _request: bytes, _context: Context) -> AsyncIterator[bytes]:
        self._on_stream(StreamOpened())
        sent: wire.DeviceList | None = None
        budget = LIST_BUDGET
        try:
            while not self._closing.is_set():
                changed, listed = self._backend.changed, self._backend.value.device_list
                now = time.monotonic()
                if listed == sent:
                    await _wait_first(self._closing.wait(), changed.wait())
                elif sent is not None and (due := list_due(budget, self._backend.changed_at)) > now:
                    await _wait_first(self._closing.wait(), changed.wait(), asyncio.sleep(due - now))
                else:
                    budget, sent = budget if sent is None else budget.take(now), listed
                    yield listed.message
                    self._report(ListSent(self._resource, len(listed.parts), listed.healthy))
        finally:
            self._on_stream(StreamClosed())

    async def _get_preferred_allocation(self, request: pb.PreferredAllocationRequest, _context: Context) -> bytes:
        backend = self._backend.value
        try:
            preferred = [
                backend.choose_preferred(
                    container.available_deviceIDs, container.must_include_deviceIDs, container.allocation_size
                )
                for container in request.container_requests
            ]
        except Exception as error:  # noqa: BLE001 - an error fails the pod, an empty preference does not (§5.2)
            self._report(InternalErrorCaught(self._resource, "GetPreferredAllocation", error))
            preferred = [() for _ in request.container_requests]
        return wire.encode_preferred_response(preferred)

    async def _allocate(self, request: bytes, context: Context) -> bytes:
        kept = self._kept_of_one.get(request) or self._kept_of_several.get(request)
        allocation = kept or _parse_allocate_request(request)
        return await self._answer("Allocate", allocation.ids, self._respond(request, allocation), context)

    async def _respond(self, request: bytes, kept: _Allocation) -> bytes:
        """Return the response to an Allocate request."""
        for _ in range(MAX_ALLOCATE_ATTEMPTS):
            backend = self._backend.value
            edits = tuple([await backend.allocate(ids) for ids in kept.containers])
            # A device allocated meanwhile under another name of the resource must not be allocated twice.
            if backend is not self._backend.value:
                continue
            # The backend returns the identical edits if nothing has changed since the request was answered.
            if kept.edits and all(map(is_, edits, kept.edits)):
                return kept.response
            response = self._encode_allocate_response(edits)
            if len(request) + len(response) <= MAX_KEPT_BYTES:
                self._keep(request, _Allocation(kept.containers, edits, response))
            return response
        text = f"{self._resource}: its devices changed {MAX_ALLOCATE_ATTEMPTS} times during the allocation"
        raise AllocationError(AllocationErrorCode.UNAVAILABLE, text)

    def _keep(self, request: bytes, allocation: _Allocation) -> None:
        kept = self._kept_of_one if len(allocation.ids) == 1 else self._kept_of_several
        if len(kept) >= MAX_KEPT_REQUESTS:
            kept.clear()
        kept[request] = allocation

    def _encode_allocate_response(self, edits: Sequence[ContainerEdits]) -> bytes:
        response = wire.encode_allocate_response(edits)
        if len(response) > MAX_RESPONSE_BYTES:
            # The kubelet would fail the pod with an error of gRPC that does not name the cause.
            text = (
                f"{self._resource}: the Allocate response has {len(response)} bytes, and the kubelet accepts at most "
                f"{MAX_RESPONSE_BYTES}; shorten 'env', 'annotations' and 'mounts' of the resource"
            )
            raise AllocationError(AllocationErrorCode.FAILED_PRECONDITION, text)
        return response

    async def _pre_start_container(self, request: pb.PreStartContainerRequest, context: Context) -> bytes:
        backend = self._backend.value
        ids = tuple(request.devices_ids)

        async def run_programs() -> bytes:
            await prestart_runner.run_programs(backend.pre_start_programs(ids))
            return b""

        return await self._answer("PreStartContainer", ids, run_programs(), context)

    async def _answer(
        self, method: Method, ids: tuple[str, ...], response: Awaitable[bytes], context: Context
    ) -> bytes:
        """Return the response to a call and report it; if the response raises, end the call with a gRPC status."""
        started = time.perf_counter()
        code, message, content = grpc.StatusCode.OK, "", b""
        try:
            content = await response
        except AllocationError as error:
            code, message = grpc.StatusCode[error.code.value], str(error)
        except Exception as error:  # noqa: BLE001 - the log and the owner of the pod get every error
            self._report(InternalErrorCaught(self._resource, method, error))
            code = grpc.StatusCode.INTERNAL
            message = f"{self._resource}: genplug failed in {method}: {error!r}; see the log of genplug on this node"
        self._report(CallAnswered(self._resource, method, ids, time.perf_counter() - started, message))
        if code is not grpc.StatusCode.OK:
            await context.abort(code, message)
        return content


def _parse_allocate_request(request: bytes) -> _Allocation:
    message = pb.AllocateRequest.FromString(request)
    return _Allocation(tuple(tuple(container.devices_ids) for container in message.container_requests))


async def _wait_first(*awaitables: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
