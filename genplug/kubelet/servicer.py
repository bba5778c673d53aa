"""The five calls of v1beta1 DevicePlugin for one generation of one resource (contract 1.1, 4, 5).

Requests are read by the generated classes, answers leave as ready bytes. Each call takes the newest answers once and
uses nothing else, so it sees one whole configuration, old or new.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol

import grpc

from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.errors import AllocationError
from genplug.allocation.results import ListedDevice, PluginOptions, ProgramRun
from genplug.kubelet import prestart_runner as program
from genplug.kubelet import wire
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, path
from genplug.kubelet.endpoint_state import StreamClosed, StreamOpened
from genplug.kubelet.events import Allocated, CallFailed, ListSent, PreStarted, Reporter
from genplug.kubelet.latest_value import LatestValue

MESSAGE_INTERVAL = 1.0
"""Seconds between two lists on one stream: each costs the kubelet a checkpoint with fsync (contract 4)."""

Context = grpc.aio.ServicerContext[Any, bytes]


class ResourceBackend(Protocol):
    """One consistent state of a resource, as its endpoint needs it."""

    @property
    def listed(self) -> tuple[ListedDevice, ...]:
        """The list for the kubelet; equal when nothing changed."""
        ...

    @property
    def options(self) -> PluginOptions:
        """What the kubelet reads once, when it connects."""
        ...

    def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        """Return what a container with these devices gets, or raise :class:`Refusal`."""
        ...

    def pre_start_programs(self, ids: Sequence[str]) -> Sequence[ProgramRun]:
        """Return what is to run before a container starts, or raise :class:`Refusal`."""
        ...

    def choose_preferred(self, available: Sequence[str], must_include: Sequence[str], size: int) -> Sequence[str]:
        """Return which of the available devices to take."""
        ...


class DevicePluginServicer(grpc.GenericRpcHandler):
    """Serves one generation; ``happened`` hears of streams, ``report`` of lists and allocations."""

    def __init__(
        self,
        resource: str,
        answers: LatestValue[ResourceBackend],
        happened: Callable[[StreamOpened | StreamClosed], None],
        report: Reporter,
    ) -> None:
        self._resource = resource
        self._answers = answers
        self._happened = happened
        self._report = report
        self._closing = asyncio.Event()
        unary = grpc.unary_unary_rpc_method_handler
        calls: dict[str, grpc.RpcMethodHandler[Any, bytes]] = {
            "GetDevicePluginOptions": unary(self._options),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(self._list_and_watch),
            "GetPreferredAllocation": unary(self._prefer, pb.PreferredAllocationRequest.FromString),
            "Allocate": unary(self._allocate, pb.AllocateRequest.FromString),
            "PreStartContainer": unary(self._pre_start, pb.PreStartContainerRequest.FromString),
        }
        self._handlers = {path(DEVICE_PLUGIN, name): handler for name, handler in calls.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, bytes] | None":
        """Return the handler of a method; None lets gRPC answer UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)

    def close(self) -> None:
        """Let every open stream end by itself, so that stopping the server waits for calls only."""
        self._closing.set()

    async def _options(self, _request: bytes, _context: Context) -> bytes:
        return wire.options_bytes(self._answers.value.options)

    async def _list_and_watch(self, _request: bytes, _context: Context) -> AsyncIterator[bytes]:
        self._happened(StreamOpened())
        sent: tuple[ListedDevice, ...] | None = None
        try:
            while not self._closing.is_set():
                notice, listed = self._answers.changed, self._answers.value.listed
                if listed != sent:
                    is_change, sent = sent is not None, listed
                    yield wire.list_bytes(listed)
                    self._report(ListSent(self._resource, len(listed), sum(one.healthy for one in listed)))
                    if is_change:
                        await _first(self._closing.wait(), asyncio.sleep(MESSAGE_INTERVAL))
                await _first(self._closing.wait(), notice.wait())
        finally:
            self._happened(StreamClosed())

    async def _allocate(self, request: pb.AllocateRequest, context: Context) -> bytes:
        started = time.perf_counter()
        answers = self._answers.value
        asked = [tuple(container.devices_ids) for container in request.container_requests]
        code, refusal = grpc.StatusCode.OK, ""
        answer = b""
        try:
            answer = wire.allocate_bytes(map(answers.allocate, asked))
        except AllocationError as refused:
            code, refusal = grpc.StatusCode[refused.code.value], str(refused)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the pod's owner and the log are told
            self._report(CallFailed(self._resource, "Allocate", error))
            code, refusal = grpc.StatusCode.INTERNAL, f"genplug failed on {self._resource}: {error!r}; see its log"
        ids = tuple(dict.fromkeys(one for ids in asked for one in ids))
        self._report(Allocated(self._resource, ids, time.perf_counter() - started, refusal))
        if refusal:
            await context.abort(code, refusal)
        return answer

    async def _prefer(self, request: pb.PreferredAllocationRequest, _context: Context) -> bytes:
        answers = self._answers.value
        try:
            chosen = [
                answers.choose_preferred(one.available_deviceIDs, one.must_include_deviceIDs, one.allocation_size)
                for one in request.container_requests
            ]
        except Exception as error:  # noqa: BLE001 - an error here fails the pod; no preference does not (contract 5.2)
            self._report(CallFailed(self._resource, "GetPreferredAllocation", error))
            chosen = [() for _ in request.container_requests]
        return wire.preferred_bytes(chosen)

    async def _pre_start(self, request: pb.PreStartContainerRequest, context: Context) -> bytes:
        started, ids = time.perf_counter(), tuple(request.devices_ids)
        code, refusal = grpc.StatusCode.OK, ""
        try:
            await program.run_all(self._answers.value.pre_start_programs(ids))
        except AllocationError as refused:
            code, refusal = grpc.StatusCode[refused.code.value], str(refused)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the pod's owner and the log are told
            self._report(CallFailed(self._resource, "PreStartContainer", error))
            code, refusal = grpc.StatusCode.INTERNAL, f"genplug failed on {self._resource}: {error!r}; see its log"
        self._report(PreStarted(self._resource, ids, time.perf_counter() - started, refusal))
        if refusal:
            await context.abort(code, refusal)
        return b""


async def _first(*awaitables: Coroutine[Any, Any, object]) -> None:
    waiting = [asyncio.ensure_future(one) for one in awaitables]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
