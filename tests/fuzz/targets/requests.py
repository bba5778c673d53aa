"""Calls of the kubelet to the plugin: messages for the handlers, and bytes on a real socket."""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.errors import AllocationError
from genplug.allocation.offer import build_offer
from genplug.allocation.resource_state import ResourceState
from genplug.allocation.results import ListedDevice, PluginOptions, ProgramRun
from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path
from genplug.kubelet.endpoint import SERVER_OPTIONS
from genplug.kubelet.latest_value import LatestValue
from genplug.kubelet.reports import InternalErrorCaught, Report
from genplug.kubelet.servicer import DevicePluginServicer, ResourceBackend
from genplug.kubelet.wire import DeviceList, encode_list
from tests.fuzz.scratch import scratch_directory
from tests.fuzz.target import Target
from tests.support.allocation import mark_healthy, mark_unhealthy
from tests.support.configs import CONFIG_HEADER, PERMISSIVE_POLICY
from tests.support.hardware import NodeTree
from tests.support.http2_peer import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    build_frame,
    build_headers,
)

_METHODS = ("Allocate", "GetPreferredAllocation", "PreStartContainer", "GetDevicePluginOptions")
_CONFIG = f"""{CONFIG_HEADER}
resources:
  e.io/a: {{devices: [{{glob: /dev/a*}}], allocate: {{env: {{A: "${{path}}", B: "${{index|default:-}}"}}}}}}
  e.io/b: {{devices: [{{glob: /dev/b*}}], replicas: 3, share: {{distinct: true, maxPerContainer: 2}}}}
  e.io/c: {{devices: [{{glob: /dev/c*}}], replicas: 2, preferredAllocation: {{policy: packed, by: "${{name}}"}}}}
  e.io/d: {{devices: [{{glob: /dev/d*}}], replicas: 2, preferredAllocation: {{policy: spread}}}}
  e.io/e: {{devices: [{{glob: /dev/e*}}], slices: 4, preferredAllocation: {{policy: contiguous}}}}
  e.io/f: {{devices: [{{glob: /dev/f*}}], tokens: 7}}
  e.io/g: {{devices: [{{glob: /dev/g*}}], preStart: {{exec: {{command: [/opt/reset, "${{path}}"]}}}}}}
"""
_RESOURCE_COUNT = 7


class _CallEndedError(Exception):
    """A call ended with a gRPC status."""


class _Context:
    """The context of a call, whose only use is to end it."""

    async def abort(self, code: grpc.StatusCode, message: str) -> None:
        assert code is not grpc.StatusCode.INTERNAL, message
        assert message
        raise _CallEndedError


class _Backend:
    """The state of a resource, as the agent passes it to an endpoint."""

    def __init__(self, state: ResourceState) -> None:
        self._state = state

    @property
    def listed(self) -> tuple[ListedDevice, ...]:
        return self._state.listed

    @property
    def device_list(self) -> DeviceList:
        return encode_list(self._state.listed)

    @property
    def options(self) -> PluginOptions:
        return self._state.options

    async def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        return self._state.allocate(ids)

    def pre_start_programs(self, ids: Sequence[str]) -> Sequence[ProgramRun]:
        return self._state.pre_start_programs(ids)

    def choose_preferred(self, available: Sequence[str], must_include: Sequence[str], size: int) -> Sequence[str]:
        return self._state.choose_preferred(available, must_include, size)


def _report(report: Report) -> None:
    if isinstance(report, InternalErrorCaught):
        raise report.error


@cache
def _build_backends() -> tuple[_Backend, ...]:
    """Return the resources: five devices, of which one is unhealthy."""
    tree = NodeTree(scratch_directory("requests"))
    for letter in "abcdefg":
        for number in (0, 1, 2, 3, 10):
            tree.plug(f"/dev/{letter}{number}")
    config = load_text(_CONFIG, "c.yaml", PERMISSIVE_POLICY)
    inventory = discover(config, tree.host)
    backends = []
    for resource in config.resources.values():
        *healthy, last = inventory.devices[resource.name]
        devices = (*mark_healthy(*healthy), mark_unhealthy(last, "it is broken"))
        backends.append(_Backend(ResourceState(build_offer(resource, devices), tree.host)))
    assert len(backends) == _RESOURCE_COUNT
    return tuple(backends)


def run_message(content: bytes) -> None:
    """Call a method of a resource; the first byte selects both, and the others are the message."""
    selector = content[0] if content else 0
    backend = _build_backends()[selector % _RESOURCE_COUNT]
    method = _METHODS[selector // _RESOURCE_COUNT % len(_METHODS)]
    state: LatestValue[ResourceBackend] = LatestValue(backend)
    servicer = DevicePluginServicer("e.io/x", state, lambda _: None, _report)
    if method == "PreStartContainer":
        # The programs themselves do not run.
        start = pb.PreStartContainerRequest.FromString(content[1:])
        for program in backend.pre_start_programs(tuple(start.devices_ids)):
            assert program.arguments[0] == "/opt/reset"
        return
    handler: Any = servicer.service(_Call(method_path(DEVICE_PLUGIN, method)))
    request: Any = handler.request_deserializer(content[1:]) if handler.request_deserializer else content[1:]
    response = _finish(handler.unary_unary(request, _Context()))
    if method == "GetPreferredAllocation":
        check_preference(request, pb.PreferredAllocationResponse.FromString(response))
    elif method == "Allocate":
        containers = pb.AllocateRequest.FromString(request).container_requests
        assert len(pb.AllocateResponse.FromString(response).container_responses) == len(containers)


class _Call(grpc.HandlerCallDetails):
    """The details of a call."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def _finish(call: Any) -> bytes:
    """Return the result of a coroutine that waits for nothing."""
    try:
        call.send(None)
    except StopIteration as result:
        return bytes(result.value)
    call.close()
    raise AssertionError("the handler waits")


def check_preference(request: pb.PreferredAllocationRequest, response: pb.PreferredAllocationResponse) -> None:
    """Assert what the kubelet expects of a preferred allocation (docs/internals/kubelet-contract.md, section 5.2)."""
    assert len(response.container_responses) == len(request.container_requests)
    for asked, answer in zip(request.container_requests, response.container_responses, strict=True):
        chosen, available = list(answer.deviceIDs), set(asked.available_deviceIDs)
        required, size = set(asked.must_include_deviceIDs) & available, max(asked.allocation_size, 0)
        assert len(set(chosen)) == len(chosen)
        assert set(chosen) <= available
        assert len(chosen) == min(size, len(available))
        assert required <= set(chosen) if len(required) <= size else set(chosen) <= required


def list_messages() -> list[bytes]:
    messages = []
    for number in range(_RESOURCE_COUNT):
        ids = [device.id for device in _build_backends()[number].listed]
        for found in (ids, ids[:2], ids[::-2], []):
            allocate = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=found)])
            preferred = pb.PreferredAllocationRequest(
                container_requests=[
                    pb.ContainerPreferredAllocationRequest(
                        available_deviceIDs=found, must_include_deviceIDs=found[:1], allocation_size=2
                    )
                ]
            )
            too_many = pb.PreferredAllocationRequest(
                container_requests=[
                    pb.ContainerPreferredAllocationRequest(
                        available_deviceIDs=found, must_include_deviceIDs=[*found, "gone"], allocation_size=1
                    )
                ]
            )
            start = pb.PreStartContainerRequest(devices_ids=found)
            messages.append(bytes([_RESOURCE_COUNT + number]) + too_many.SerializeToString())
            requests = (allocate, preferred, start)
            messages += [
                bytes([method * _RESOURCE_COUNT + number]) + request.SerializeToString()
                for method, request in enumerate(requests)
            ]
    return messages


def run_socket(content: bytes) -> None:
    """Send bytes to the socket of a resource; then the server must still answer another client."""
    _start_server()
    with _connect() as client, contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
        client.settimeout(_ANSWER_SECONDS)
        client.sendall(content)
        # gRPC regards the end of the input as the end of the connection, and a broken request gets no answer.
        while client.recv(1 << 16):
            pass
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not _has_answer():
        # A server that ends accepts connections for a moment, and has no answer for them.
        assert time.monotonic() < deadline, "the server does not answer any more"
        time.sleep(0.001)


def _has_answer() -> bool:
    """Return whether the server answers a valid call; the server may end during the call."""
    with _connect() as client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.settimeout(_DEADLINE_SECONDS)
        client.sendall(_OPTIONS_CALL)
        response = b""
        while part := client.recv(1 << 16):
            response += part
            if b"grpc-status" in response:
                return True
    return False


def _connect() -> socket.socket:
    """Return a connection to the server, which starts again after a method name that is not UTF-8."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(_start_server())
        except (FileNotFoundError, ConnectionRefusedError):
            client.close()
            assert time.monotonic() < deadline, "the server does not listen any more"
            time.sleep(0.001)
        else:
            return client


_ANSWER_SECONDS = 0.01
"""Seconds to wait for each part of an answer to the input."""
_DEADLINE_SECONDS = 60.0
"""Seconds within which the server answers a valid call."""
_OPTIONS_CALL = (
    PREFACE
    + build_frame(SETTINGS, 0, 0, b"")
    + build_frame(HEADERS, END_HEADERS, 1, build_headers(method_path(DEVICE_PLUGIN, "GetDevicePluginOptions")))
    + build_frame(DATA, END_STREAM, 1, bytes(5))
)


@cache
def _start_server() -> str:
    """Start a server with the options of the agent in a thread of this process, and return the path of its socket."""
    # A short path to the directory: the path of a socket has at most 107 bytes.
    directory = os.open(scratch_directory("socket"), os.O_PATH | os.O_DIRECTORY)
    path = f"/proc/self/fd/{directory}/s"
    is_started = threading.Event()

    async def serve() -> None:
        state: LatestValue[ResourceBackend] = LatestValue(_build_backends()[0])
        while True:
            servicer = DevicePluginServicer("e.io/x", state, lambda _: None, _report)
            server = grpc.aio.server(handlers=[servicer], options=SERVER_OPTIONS)
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            is_started.set()
            # gRPC ends a server that gets a method name that is not UTF-8. The agent notices that its socket is gone.
            with contextlib.suppress(UnicodeDecodeError):
                await server.wait_for_termination()

    threading.Thread(target=asyncio.run, args=(serve(),), daemon=True).start()
    is_started.wait()
    return path


def list_connections() -> list[bytes]:
    calls = []
    for method, message in (
        ("Allocate", pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=["a0"])])),
        ("PreStartContainer", pb.PreStartContainerRequest(devices_ids=["a0"])),
        ("ListAndWatch", pb.Empty()),
        ("Unknown", pb.Empty()),
    ):
        data = message.SerializeToString()
        calls.append(
            PREFACE
            + build_frame(SETTINGS, 0, 0, b"")
            + build_frame(HEADERS, END_HEADERS, 1, build_headers(method_path(DEVICE_PLUGIN, method)))
            + build_frame(DATA, END_STREAM, 1, b"\0" + len(data).to_bytes(4, "big") + data)
        )
    return [*calls, _OPTIONS_CALL, PREFACE, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"]


TARGETS = (
    Target(
        "plugin-message",
        "messages of the kubelet for the plugin",
        run_message,
        list_messages,
        allowed=(AllocationError, DecodeError, _CallEndedError),
        words=tuple(device.id for backend in _build_backends() for device in backend.listed[:3]),
        max_bytes=1024,
    ),
    Target(
        "plugin-socket",
        "bytes on the socket of the plugin",
        run_socket,
        list_connections,
        words=(PREFACE.decode(), "\0\0\0\4\0\0\0\0\0", "application/grpc", "grpc-timeout", "te", "trailers", ":path"),
        short_runs=100,
    ),
)
