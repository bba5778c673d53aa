"""The plugin manager of a kubelet, as a driver observes it: it registers the driver of each socket.

Source: ``pkg/kubelet/pluginmanager`` and ``pkg/kubelet/cm/dra/plugin`` of Kubernetes 1.37.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
from msgspec import Struct

from genplug.kubelet.api import genplug_pluginregistration_v1_pb2 as registration_pb
from genplug.kubelet.api.services import DRA_PLUGIN_TYPE, DRA_PLUGIN_VERSION, PLUGIN_REGISTRATION, method_path
from genplug.testing.dra.directory_watch import DirectoryWatch
from genplug.testing.dra.driver_client import CHANNEL_OPTIONS, DriverClient
from genplug.testing.dra.records import DraRegistration, RefusedRegistration
from genplug.testing.kubelet.plugin_client import format_go_error

LOOP_SECONDS = 1.0
"""The period of the loop that registers and unregisters plugins."""
_DIAL_SECONDS, _INFO_SECONDS, _NOTIFY_SECONDS = 10.0, 1.0, 5.0
_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.5, 122.0
_SERVICES = (DRA_PLUGIN_VERSION, "v1beta1.DRAPlugin")


class _Plugin(Struct):
    """A plugin that the kubelet knows. It has no ``client`` if its registration failed after it was added."""

    identity: tuple[int, ...]
    driver: str
    client: DriverClient | None = None


class _Backoff(Struct):
    """The failures of the registration of a socket."""

    seconds: float
    due: float


class PluginManager:
    """Registers the drivers of the sockets in ``registry``, and keeps a connection to each of them.

    ``on_connection`` is called with the name of a driver whose connection may have changed, ``on_change`` after each
    registration. The plugin manager of a kubelet without a handler for drivers (``has_dra``) refuses them.
    """

    def __init__(
        self,
        registry: Path,
        on_connection: Callable[[str], None],
        on_change: Callable[[], None],
        *,
        has_dra: bool,
        loop_seconds: float,
    ) -> None:
        self.refusal = ""
        """The error with which each registration is refused; empty to accept registrations."""
        self.registrations: list[DraRegistration] = []
        self.refused: list[RefusedRegistration] = []
        self.failures: list[BaseException] = []
        """The internal errors of the stand-in."""
        self._registry = registry
        self._on_connection, self._on_change = on_connection, on_change
        self._has_dra, self._loop_seconds = has_dra, loop_seconds
        self._start_number = 0
        self._plugins: dict[str, _Plugin] = {}
        self._backoffs: dict[str, _Backoff] = {}
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._watcher: DirectoryWatch | None = None
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the directory of registration sockets is watched."""
        return self._loop_task is not None

    def describe_drivers(self) -> str:
        """Return the names of the known drivers, with those that are not connected."""
        drivers = ", ".join(
            f"{plugin.driver}{'' if plugin.client is not None and plugin.client.is_connected else ' (not connected)'}"
            for plugin in self._plugins.values()
        )
        return drivers or "none"

    def start(self, number: int) -> None:
        """Register the drivers whose sockets are there, and those that follow. ``number`` counts the starts from 1."""
        self._start_number = number
        self._watcher = DirectoryWatch(self._changed.set)
        self._changed.set()
        self._loop_task = asyncio.create_task(self._run_loop())

    async def stop(self) -> None:
        """End all registrations and connections, and forget the drivers."""
        if self._loop_task is None or self._watcher is None:
            return
        self._watcher.close()
        tasks = [self._loop_task, *self._operations.values()]
        self._loop_task = self._watcher = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        plugins = list(self._plugins.values())
        for known in (self._plugins, self._backoffs, self._operations):
            known.clear()
        await asyncio.gather(*(plugin.client.close() for plugin in plugins if plugin.client is not None))

    def is_connected(self, driver: str) -> bool:
        """Return whether the service of a registered driver is connected."""
        return any(
            plugin.driver == driver and plugin.client is not None and plugin.client.is_connected
            for plugin in self._plugins.values()
        )

    def get_client(self, driver: str) -> DriverClient:
        """Return the connection to a driver.

        Raises:
            LookupError: the driver is not registered.
        """
        clients = [plugin.client for plugin in self._plugins.values() if plugin.driver == driver and plugin.client]
        if not clients:
            raise LookupError(f"DRA driver {driver} is not registered")
        return next((client for client in reversed(clients) if client.is_connected), clients[-1])

    async def _run_loop(self) -> None:
        while True:
            due = min((backoff.due for backoff in self._backoffs.values()), default=None)
            try:
                async with asyncio.timeout(None if due is None else max(due - time.monotonic(), 0.0)):
                    await self._changed.wait()
            except TimeoutError:
                pass
            # A change is seen at the next period, so that a socket is registered up to a second after its creation.
            await asyncio.sleep(self._loop_seconds)
            self._changed.clear()
            await self._reconcile()

    async def _reconcile(self) -> None:
        if self._watcher is None:
            return
        sockets = self._watcher.scan(self._registry)
        for path, plugin in list(self._plugins.items()):
            if sockets.get(path) != plugin.identity:
                del self._plugins[path]
                if plugin.client is not None:
                    await plugin.client.close()
                self._on_connection(plugin.driver)
        for path in [path for path in self._backoffs if path not in sockets]:
            del self._backoffs[path]
        now = time.monotonic()
        for path, identity in sockets.items():
            backoff = self._backoffs.get(path)
            if path in self._plugins or path in self._operations or (backoff is not None and backoff.due > now):
                continue
            task = self._operations[path] = asyncio.create_task(self._register(path, identity))
            task.add_done_callback(self._on_operation_done)

    def _on_operation_done(self, task: asyncio.Task[None]) -> None:
        for path in [path for path, other in self._operations.items() if other is task]:
            del self._operations[path]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)
        # A socket may have been replaced meanwhile.
        self._changed.set()

    async def _register(self, path: str, identity: tuple[int, ...]) -> None:
        channel = grpc.aio.insecure_channel(f"unix:{path}", options=CHANNEL_OPTIONS)
        try:
            error, is_sent = await self._register_on(channel, path, identity)
        except TimeoutError:
            error, is_sent = f"failed to dial socket {path}, err: context deadline exceeded", False
        except grpc.aio.AioRpcError as failure:
            error, is_sent = f"rpc failed at socket {path}: {format_go_error(failure)}", False
        finally:
            await channel.close()
        if not error:
            self._backoffs.pop(path, None)
        else:
            self.refused.append(RefusedRegistration(path, error, is_sent))
            previous = self._backoffs.get(path)
            seconds = min(previous.seconds * 2, _MAX_BACKOFF_SECONDS) if previous else _FIRST_BACKOFF_SECONDS
            if path not in self._plugins:
                self._backoffs[path] = _Backoff(seconds, time.monotonic() + seconds)
        self._on_change()

    async def _register_on(self, channel: grpc.aio.Channel, path: str, identity: tuple[int, ...]) -> tuple[str, bool]:
        """Register the plugin of a socket; return why that failed, and whether the plugin got the error."""
        async with asyncio.timeout(_DIAL_SECONDS):
            await channel.channel_ready()
        answer = await _call_registration(channel, "GetInfo", registration_pb.InfoRequest(), _INFO_SECONDS)
        info = registration_pb.PluginInfo.FromString(answer)
        endpoint = info.endpoint or path
        error = self._validate(info, path, endpoint)
        if not error:
            plugin = self._plugins[path] = _Plugin(identity, info.name)
            if refusal := self.refusal or self._find_conflict(info.name, endpoint):
                error = f"RegisterPlugin error -- plugin registration failed with err: {refusal}"
            else:
                plugin.client = DriverClient(info.name, endpoint, lambda: self._on_connection(info.name))
                self._on_connection(info.name)
        status = registration_pb.RegistrationStatus(plugin_registered=not error, error=error)
        await _call_registration(channel, "NotifyRegistrationStatus", status, _NOTIFY_SECONDS)
        if not error:
            service = next(service for service in info.supported_versions if service in _SERVICES)
            self.registrations.append(DraRegistration(info.name, endpoint, service, self._start_number))
        return error, True

    def _validate(self, info: registration_pb.PluginInfo, path: str, endpoint: str) -> str:
        if info.type != DRA_PLUGIN_TYPE or not self._has_dra:
            return f"RegisterPlugin error -- no handler registered for plugin type: {info.type} at socket {path}"
        if any(service in _SERVICES for service in info.supported_versions):
            return ""
        versions = (
            f"{_format_go_list(info.supported_versions)}) are supported by the kubelet ({_format_go_list(_SERVICES)}"
        )
        reason = (
            f"none of services supported by the plugin ({versions})"
            if info.supported_versions
            else "empty list of supported gRPC services (aka supported versions)"
        )
        return (
            "RegisterPlugin error -- plugin validation failed with err: invalid supported gRPC versions of DRA driver "
            f"plugin {info.name} at endpoint {endpoint}: {reason}"
        )

    def _find_conflict(self, driver: str, endpoint: str) -> str:
        clients = [plugin.client for plugin in self._plugins.values() if plugin.driver == driver and plugin.client]
        if any(client.endpoint == endpoint for client in clients):
            return f"endpoint {endpoint} already registered for DRA driver plugin {driver}"
        return ""


async def _call_registration(channel: grpc.aio.Channel, method: str, message: Any, seconds: float) -> bytes:  # noqa: ANN401 - two messages
    unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        method_path(PLUGIN_REGISTRATION, method)
    )
    return await unary(message.SerializeToString(), timeout=seconds)


def _format_go_list(texts: Iterable[str]) -> str:
    return f"[{' '.join(json.dumps(text) for text in texts)}]"
