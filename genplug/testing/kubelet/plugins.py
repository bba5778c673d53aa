"""The kubelet's side of registration and lists, for kubelets up to 1.24 and from 1.25.

Source: docs/internals/kubelet-contract.md §2.1 and §2.3. As in the kubelet, the key of a client is the name of its
resource. This causes the disconnect bug of 1.25 to 1.35: when an old stream ends, the client with its name is the new
client, and the kubelet closes that client.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from posixpath import normpath
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from msgspec import Struct

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.kubelet.admission import Endpoint
from genplug.testing.kubelet.device_manager import DeviceManager
from genplug.testing.kubelet.faults import FaultInjector, RegisterRefusedError
from genplug.testing.kubelet.names import registration_error
from genplug.testing.kubelet.plugin_client import DialError, PluginClient, format_go_error
from genplug.testing.kubelet.records import ListMessage, parse_list


class KubeletBehavior(Struct, frozen=True):
    """The behavior of a kubelet, from its version and from the test. ``dial_timeout`` is in seconds."""

    dials_inside_register: bool
    has_disconnect_bug: bool
    dial_timeout: float
    faults: FaultInjector


class Plugins:
    """The plugins of one run of the kubelet.

    ``on_list`` is called with each list, ``notify`` after each other change.
    """

    def __init__(
        self,
        directory: Path,
        device_manager: DeviceManager,
        behavior: KubeletBehavior,
        on_list: Callable[[ListMessage], None],
        notify: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._device_manager = device_manager
        self._behavior = behavior
        self._on_list = on_list
        self._notify = notify
        self._clients: dict[str, PluginClient] = {}
        self._open_clients: set[PluginClient] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self.endpoints: dict[str, Endpoint] = {}
        self.streams: Counter[str] = Counter()

    async def register(self, request: pb.RegisterRequest) -> pb.DevicePluginOptions:
        """Process a Register call; return the options that the kubelet uses.

        Raises:
            RegisterRefusedError: the kubelet refuses the registration; the message is the kubelet's.
        """
        resource = request.resource_name
        await self._behavior.faults.apply_to_register(resource)
        if message := registration_error(request.version, resource):
            raise RegisterRefusedError(message)
        if self._behavior.faults.is_ignored(resource):
            return request.options
        client = PluginClient(resource, normpath(f"{self._directory}/{request.endpoint}"))
        self._open_clients.add(client)
        if not self._behavior.dials_inside_register:
            self._spawn(self._connect_later(client, request.options))
            return request.options
        # As in the kubelet, the connection is made even if the plugin cancels Register.
        await asyncio.shield(self._spawn(self._connect(client)))
        return self.endpoints[resource].options

    def cancel_lists(self, resource: str) -> None:
        """Cancel the ListAndWatch calls of a resource."""
        self.client(resource).cancel_lists()

    def client(self, resource: str) -> PluginClient:
        """Return the connection to the plugin of a resource.

        Raises:
            LookupError: no plugin is connected for the resource.
        """
        if resource not in self._clients:
            raise LookupError(f"no plugin is connected for {resource}; connected: {sorted(self._clients)}")
        return self._clients[resource]

    async def close(self) -> None:
        """Close all connections at once, like the end of a process. Raise the first internal error of the stand-in."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*map(self._close_client, list(self._open_clients)))
        if self._failures:
            raise self._failures[0]

    async def _close_client(self, client: PluginClient) -> None:
        self._open_clients.discard(client)
        await client.close()

    async def _connect(self, client: PluginClient) -> None:
        if self._behavior.has_disconnect_bug:
            self._clients[client.resource] = client
        try:
            await client.dial(self._behavior.dial_timeout)
            options = await client.get_options()
        except (DialError, grpc.aio.AioRpcError) as error:
            if self._behavior.has_disconnect_bug:
                # The second bug in §2.3: the record of an older client, which still runs, is removed too.
                self._clients.pop(client.resource, None)
            await self._close_client(client)
            if isinstance(error, grpc.aio.AioRpcError):
                raise RegisterRefusedError(f"failed to get device plugin options: {format_go_error(error)}") from error
            raise RegisterRefusedError(str(error)) from error
        self._add_endpoint(client, options)
        self._spawn(self._read_lists(client))

    async def _connect_later(self, client: PluginClient, options: pb.DevicePluginOptions) -> None:
        try:
            await client.dial(self._behavior.dial_timeout)
        except DialError:
            await self._close_client(client)
            return
        self._add_endpoint(client, options)
        await self._read_lists(client)

    def _add_endpoint(self, client: PluginClient, options: pb.DevicePluginOptions) -> None:
        self._clients[client.resource] = client
        self.endpoints[client.resource] = Endpoint(client, options)
        self._device_manager.connect(client.resource)

    async def _read_lists(self, client: PluginClient) -> None:
        """Call ListAndWatch, once for each registration, and read it until it ends or fails."""
        resource = client.resource
        stream = client.list_and_watch()
        self.streams[resource] += 1
        self._notify()
        try:
            while True:
                await self._behavior.faults.apply_to_read(resource)
                if not isinstance(raw := await stream.read(), bytes):
                    break
                arrived = time.monotonic()
                devices = self._device_manager.set_list(resource, parse_list(raw))
                self._on_list(ListMessage(resource, client.socket, arrived, raw, devices))
        except (grpc.aio.AioRpcError, DecodeError):
            pass
        except asyncio.CancelledError:
            # gRPC raises the same error for a canceled stream and for a canceled task.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
        finally:
            self.streams[resource] -= 1
            self._notify()
        await self._on_stream_end(client)

    async def _on_stream_end(self, client: PluginClient) -> None:
        current = self._clients.get(client.resource)
        if current is client or (current is not None and self._behavior.has_disconnect_bug):
            del self._clients[client.resource]
            self._device_manager.disconnect(client.resource, time.monotonic())
            self._notify()
            await self._close_client(current)
        await self._close_client(client)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, RegisterRefusedError):
            self._failures.append(error)
