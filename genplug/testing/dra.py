"""The DRA half of a kubelet stand-in: the plugin watcher and the DRA manager of a kubelet, as a driver observes them.

    async with DraKubelet(Path("/tmp/k")) as kubelet:
        ...                                     # start a driver with a socket in /tmp/k/plugins_registry
        await kubelet.wait_registered("driver.example.com")
        claim = PodClaim("claim-a", uid="...", drivers=("driver.example.com",))
        await kubelet.prepare("pod-a", claim)
        kubelet.cdi_devices(claim)

The calls, their order, deadlines and retries, the checks of the answers and the texts of the errors are those of
Kubernetes 1.37 (``pkg/kubelet/pluginmanager``, ``pkg/kubelet/cm/dra``). docs/how-to/test-a-plugin.md lists what it does
not imitate. It uses one event loop and runs beside a :class:`~genplug.testing.kubelet.KubeletStandIn` of the same
directory. It depends on the generated code of the kubelet's protocols and on no other part of genplug.
"""
# ruff: noqa: ASYNC109 - a test passes its timeout with the wait

import asyncio
import ctypes
import json
import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError
from msgspec import Struct, field

from genplug.kubelet.api import genplug_dra_v1_pb2 as pb
from genplug.kubelet.api import genplug_pluginregistration_v1_pb2 as registration_pb
from genplug.kubelet.api.services import (
    DRA_PLUGIN,
    DRA_PLUGIN_TYPE,
    DRA_PLUGIN_VERSION,
    PLUGIN_REGISTRATION,
    method_path,
)
from genplug.testing.condition import Condition
from genplug.testing.kubelet.plugin_client import format_go_error

REGISTRY = "plugins_registry"
"""The directory of registration sockets in the directory of the kubelet."""
FIRST_WITH_DRA = (1, 34)
"""The first version whose kubelet has a handler for drivers by default."""
LOOP_SECONDS = 1.0
"""The period of the loop that registers and unregisters plugins."""
CALL_SECONDS = 45.0
"""The deadline of NodePrepareResources and NodeUnprepareResources (``defaultClientCallTimeout``)."""
POD_RETRY_SECONDS = 10.0
"""The time after which a kubelet tries again to start a pod whose claims were not prepared."""
WIPING_SECONDS = 30.0
"""The time after which the slices of a driver that is not connected are deleted (``defaultWipingDelay``)."""
_DIAL_SECONDS, _INFO_SECONDS, _NOTIFY_SECONDS = 10.0, 1.0, 5.0
_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.5, 122.0
_SERVICES = (DRA_PLUGIN_VERSION, "v1beta1.DRAPlugin")
# A kubelet waits for a second and longer before it connects again.
_CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
)
_CREATED_OR_REMOVED = 0x100 | 0x200 | 0x40 | 0x80
"""IN_CREATE, IN_DELETE, IN_MOVED_FROM and IN_MOVED_TO of inotify(7)."""


class PodClaim(Struct, frozen=True):
    """A ResourceClaim that a pod uses. ``drivers`` are those whose devices are allocated to it."""

    name: str
    uid: str
    namespace: str = "default"
    drivers: tuple[str, ...] = ("genplug.io",)


class DraRegistration(Struct, frozen=True):
    """A registration that succeeded, and of which the kubelet has notified the driver.

    ``start`` is the number of the start of the kubelet, from 1. ``time`` is in monotonic seconds.
    """

    driver: str
    endpoint: str
    service: str
    start: int
    time: float = field(default_factory=time.monotonic)


class RefusedRegistration(Struct, frozen=True):
    """A registration that failed, and whether the kubelet sent ``error`` to the driver."""

    socket: str
    error: str
    is_sent: bool
    time: float = field(default_factory=time.monotonic)


class PreparedDevice(Struct, frozen=True):
    """A device of a prepared claim, as the driver answered."""

    requests: tuple[str, ...]
    pool: str
    device: str
    cdi_devices: tuple[str, ...]


class DraError(Exception):
    """The kubelet cannot prepare or unprepare the claims of a pod; the message is that of the event of the pod."""


class DriverClient:
    """The kubelet's connection to the service of a driver. Tests can use it as a client too."""

    def __init__(self, driver: str, endpoint: str, on_change: Callable[[], None]) -> None:
        self.driver = driver
        self.endpoint = endpoint
        self.is_connected = False
        self._on_change = on_change
        self._channel = grpc.aio.insecure_channel(f"unix:{endpoint}", options=_CHANNEL_OPTIONS)
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


class _Plugin(Struct):
    """A plugin that the kubelet knows. It has no ``client`` if its registration failed after it was added."""

    identity: tuple[int, ...]
    driver: str
    client: DriverClient | None = None


class _Backoff(Struct):
    """The failures of the registration of a socket."""

    seconds: float
    due: float


class _ClaimInfo(Struct):
    claim: PodClaim
    pods: set[str] = field(default_factory=set)
    devices: dict[str, tuple[PreparedDevice, ...]] = field(default_factory=dict)
    is_prepared: bool = False


class DraKubelet:
    """The plugin watcher and the DRA manager of a kubelet whose directory is ``kubelet_dir``.

    ``version`` determines whether the kubelet has a handler for drivers, which ``has_dra`` overrides. ``loop_seconds``
    is the period of the loop that registers plugins, ``call_seconds`` the deadline of calls. ``wipe`` is called as the
    kubelet deletes ResourceSlices: with None at each start, for all slices of the node, and with the name of a driver
    that was not connected for ``wiping_seconds``.
    """

    def __init__(  # noqa: PLR0913 - the timing and the version of a kubelet
        self,
        kubelet_dir: Path,
        *,
        version: tuple[int, int] = (1, 37),
        has_dra: bool | None = None,
        loop_seconds: float = LOOP_SECONDS,
        call_seconds: float = CALL_SECONDS,
        wipe: Callable[[str | None], Awaitable[None]] | None = None,
        wiping_seconds: float = WIPING_SECONDS,
    ) -> None:
        self.registry = kubelet_dir / REGISTRY
        self.has_dra = version >= FIRST_WITH_DRA if has_dra is None else has_dra
        self.starts = 0
        self.events: list[str] = []
        """The messages of the events ``FailedPrepareDynamicResources``."""
        self._loop_seconds, self._call_seconds = loop_seconds, call_seconds
        self._wipe, self._wiping_seconds = wipe, wiping_seconds
        self._refusal = ""
        self._registrations: list[DraRegistration] = []
        self._refused: list[RefusedRegistration] = []
        self._claims: dict[tuple[str, str], _ClaimInfo] = {}
        self._plugins: dict[str, _Plugin] = {}
        self._backoffs: dict[str, _Backoff] = {}
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._wipes: dict[str, asyncio.Task[None]] = {}
        self._condition = Condition()
        self._changed = asyncio.Event()
        self._watcher: _DirectoryWatch | None = None
        self._loop_task: asyncio.Task[None] | None = None
        self._failures: list[BaseException] = []

    def __repr__(self) -> str:
        state = f"running, start {self.starts}" if self.is_running else "stopped"
        drivers = ", ".join(
            f"{plugin.driver}{'' if plugin.client is not None and plugin.client.is_connected else ' (not connected)'}"
            for plugin in self._plugins.values()
        )
        refused = f"; last refused: {self._refused[-1].error}" if self._refused else ""
        return f"<DraKubelet {state}; drivers: {drivers or 'none'}; {len(self._claims)} claims{refused}>"

    async def start(self) -> None:
        """Start: watch the directory of registration sockets, and register the drivers that are there."""
        if self.is_running:
            raise RuntimeError("the kubelet is already running; stop it first, or call restart()")
        self.registry.mkdir(parents=True, exist_ok=True, mode=0o755)
        self.starts += 1
        self._watcher = _DirectoryWatch(self._changed.set)
        self._changed.set()
        self._loop_task = asyncio.create_task(self._run_loop())
        self._start_wipe(None, 0.0)
        self._condition.notify_all()

    async def stop(self) -> None:
        """End at once, as a kubelet that stops or crashes: connections end, and no file is removed.

        The checkpoint keeps the claims with their pods and devices, but not whether they are prepared.
        An internal error of the stand-in is raised.
        """
        if self._loop_task is None or self._watcher is None:
            return
        self._watcher.close()
        tasks = [self._loop_task, *self._operations.values(), *self._wipes.values()]
        self._loop_task = self._watcher = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        plugins = list(self._plugins.values())
        for known in (self._plugins, self._backoffs, self._operations, self._wipes):
            known.clear()
        await asyncio.gather(*(plugin.client.close() for plugin in plugins if plugin.client is not None))
        for info in self._claims.values():
            info.is_prepared = False
        self._condition.notify_all()
        if self._failures:
            raise self._failures[0]

    async def restart(self, *, lose_checkpoint: bool = False) -> None:
        """Stop and start again. With ``lose_checkpoint`` (``dra_manager_state``), it knows no claim."""
        await self.stop()
        if lose_checkpoint:
            self._claims.clear()
        await self.start()

    @property
    def is_running(self) -> bool:
        """Whether the kubelet was started and has not ended."""
        return self._loop_task is not None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    @property
    def registrations(self) -> tuple[DraRegistration, ...]:
        """All registrations that succeeded."""
        return tuple(self._registrations)

    @property
    def refused(self) -> tuple[RefusedRegistration, ...]:
        """All registrations that failed."""
        return tuple(self._refused)

    def refuse_registration(self, error: str) -> None:
        """Refuse every registration with an error, until the next call with an empty text.

        A kubelet tries such a socket again only when it was removed and created again.
        """
        self._refusal = error

    async def wait_for(
        self, predicate: Callable[[], bool], timeout: float | None = 30, describe: Callable[[], str] | None = None
    ) -> None:
        """Wait until a predicate about this kubelet holds; it is evaluated after every change.

        Raises:
            TimeoutError: the predicate did not hold within ``timeout`` seconds.
        """
        await self._condition.wait_for(predicate, timeout, describe or (lambda: repr(self)))

    async def wait_registered(self, driver: str, times: int = 1, timeout: float = 30) -> DraRegistration:
        """Wait until a driver was registered a number of times and is connected; return the last registration.

        Raises:
            TimeoutError: that was not so within ``timeout`` seconds.
        """

        def list_registrations() -> list[DraRegistration]:
            return [registration for registration in self._registrations if registration.driver == driver]

        await self.wait_for(lambda: len(list_registrations()) >= times and self.is_connected(driver), timeout)
        return list_registrations()[-1]

    def is_connected(self, driver: str) -> bool:
        """Return whether the service of a registered driver is connected."""
        return any(
            plugin.driver == driver and plugin.client is not None and plugin.client.is_connected
            for plugin in self._plugins.values()
        )

    def plugin(self, driver: str) -> DriverClient:
        """Return the connection to a driver that the kubelet uses, for calls from the test.

        Raises:
            LookupError: the driver is not registered.
        """
        clients = [plugin.client for plugin in self._plugins.values() if plugin.driver == driver and plugin.client]
        if not clients:
            raise LookupError(f"DRA driver {driver} is not registered")
        return next((client for client in reversed(clients) if client.is_connected), clients[-1])

    async def prepare(self, pod: str, *claims: PodClaim) -> None:
        """Prepare the claims of a pod, as the kubelet does before it creates the sandbox of the pod.

        There is one call for each driver, with the claims that are not prepared yet.

        Raises:
            DraError: a claim was not prepared; ``events`` has the same message.
        """
        try:
            await self._prepare(pod, claims)
        except _ManagerError as error:
            text = f"Failed to prepare dynamic resources: prepare dynamic resources: {error}"
            self.events.append(text)
            self._condition.notify_all()
            raise DraError(text) from None

    async def start_pod(self, pod: str, *claims: PodClaim, retry_seconds: float = POD_RETRY_SECONDS) -> None:
        """Prepare the claims of a pod, and try again after ``retry_seconds`` until that succeeds."""
        while True:
            try:
                return await self.prepare(pod, *claims)
            except DraError:
                await asyncio.sleep(retry_seconds)

    async def unprepare(self, pod: str) -> None:
        """Unprepare the claims of a pod that has ended, unless another pod uses them.

        Raises:
            DraError: a claim was not unprepared. The pod would stay in the phase Terminating, and the kubelet retry.
        """
        batches: dict[str, list[PodClaim]] = {}
        ended: list[_ClaimInfo] = []
        for info in self._claims.values():
            if pod not in info.pods:
                continue
            if len(info.pods) > 1:
                info.pods.discard(pod)
                continue
            ended.append(info)
            for driver in info.claim.drivers:
                batches.setdefault(driver, []).append(info.claim)
        try:
            for driver, batch in batches.items():
                answer = await self._call(driver, "NodeUnprepareResources", batch)
                _check_answer("NodeUnprepareResources", batch, {uid: each.error for uid, each in answer.claims.items()})
        except _ManagerError as error:
            raise DraError(f"unprepare dynamic resources: {error}") from None
        for info in ended:
            self._claims.pop((info.claim.namespace, info.claim.name), None)

    def devices(self, claim: PodClaim) -> tuple[PreparedDevice, ...]:
        """Return the devices of a claim as the kubelet knows them; a restart of the kubelet keeps them."""
        info = self._claims.get((claim.namespace, claim.name))
        return () if info is None else tuple(device for devices in info.devices.values() for device in devices)

    def cdi_devices(self, claim: PodClaim, request: str = "") -> tuple[str, ...]:
        """Return the names of the CDI devices of a container that uses a claim, or one request of it."""
        return tuple(
            name
            for device in self.devices(claim)
            if not request or not device.requests or request in device.requests
            for name in device.cdi_devices
        )

    @property
    def claim_uses(self) -> tuple[tuple[str, str, str, tuple[tuple[str, str, str], ...]], ...]:
        """The pods whose claims were prepared, each with the namespace and the name of a claim, and its devices.

        A device is its driver, its pool and its name.
        """
        return tuple(
            (
                pod,
                info.claim.namespace,
                info.claim.name,
                tuple(
                    (driver, device.pool, device.device)
                    for driver, devices in info.devices.items()
                    for device in devices
                ),
            )
            for info in self._claims.values()
            if info.devices
            for pod in sorted(info.pods)
        )

    def is_prepared(self, claim: PodClaim) -> bool:
        """Return whether the kubelet would not call NodePrepareResources for another pod with the claim."""
        info = self._claims.get((claim.namespace, claim.name))
        return info is not None and info.is_prepared

    async def _prepare(self, pod: str, claims: Sequence[PodClaim]) -> None:
        for claim in claims:
            for driver in claim.drivers:
                self._find_client(driver)
        batches: dict[str, list[PodClaim]] = {}
        prepared: list[_ClaimInfo] = []
        for claim in claims:
            info = self._claims.setdefault((claim.namespace, claim.name), _ClaimInfo(claim))
            if info.claim.uid != claim.uid:
                raise _ManagerError(
                    f"old ResourceClaim with same name {claim.name} and different UID {info.claim.uid} still exists "
                    "(previous pod force-deleted?!)"
                )
            info.pods.add(pod)
            if info.is_prepared:
                continue
            prepared.append(info)
            for driver in claim.drivers:
                batches.setdefault(driver, []).append(claim)
        for driver, batch in batches.items():
            answer = await self._call(driver, "NodePrepareResources", batch)
            _check_answer("NodePrepareResources", batch, {uid: each.error for uid, each in answer.claims.items()})
            for claim in batch:
                self._claims[claim.namespace, claim.name].devices[driver] = tuple(
                    PreparedDevice(
                        tuple(device.request_names),
                        device.pool_name,
                        device.device_name,
                        tuple(device.cdi_device_ids),
                    )
                    for device in answer.claims[claim.uid].devices
                )
        for info in prepared:
            info.is_prepared = True
        self._condition.notify_all()

    async def _call(self, driver: str, method: str, batch: Sequence[PodClaim]) -> Any:  # noqa: ANN401 - two messages
        claims = [pb.Claim(namespace=claim.namespace, uid=claim.uid, name=claim.name) for claim in batch]
        client = self._find_client(driver)
        call = client.prepare if method == "NodePrepareResources" else client.unprepare
        try:
            return await call(claims, self._call_seconds)
        except grpc.aio.AioRpcError as error:
            raise _ManagerError(f"{method}: {format_go_error(error)}") from error
        except asyncio.CancelledError:
            # gRPC raises the same error for a call that the driver canceled and for a canceled task.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            raise _ManagerError(f"{method}: rpc error: code = Canceled desc = CANCELLED") from None
        except DecodeError as error:
            raise _ManagerError(f"{method}: rpc error: code = Internal desc = grpc: failed to unmarshal") from error

    def _find_client(self, driver: str) -> DriverClient:
        try:
            return self.plugin(driver)
        except LookupError as error:
            raise _ManagerError(str(error.args[0])) from None

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
        sockets = self._watcher.scan(self.registry)
        for path, plugin in list(self._plugins.items()):
            if sockets.get(path) != plugin.identity:
                del self._plugins[path]
                if plugin.client is not None:
                    await plugin.client.close()
                self._on_connection_change(plugin.driver)
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
            self._failures.append(error)
        # A socket may have been replaced meanwhile.
        self._changed.set()

    async def _register(self, path: str, identity: tuple[int, ...]) -> None:
        channel = grpc.aio.insecure_channel(f"unix:{path}", options=_CHANNEL_OPTIONS)
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
            self._refused.append(RefusedRegistration(path, error, is_sent))
            previous = self._backoffs.get(path)
            seconds = min(previous.seconds * 2, _MAX_BACKOFF_SECONDS) if previous else _FIRST_BACKOFF_SECONDS
            if path not in self._plugins:
                self._backoffs[path] = _Backoff(seconds, time.monotonic() + seconds)
        self._condition.notify_all()

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
            if refusal := self._refusal or self._find_conflict(info.name, endpoint):
                error = f"RegisterPlugin error -- plugin registration failed with err: {refusal}"
            else:
                plugin.client = DriverClient(info.name, endpoint, lambda: self._on_connection_change(info.name))
                self._on_connection_change(info.name)
        status = registration_pb.RegistrationStatus(plugin_registered=not error, error=error)
        await _call_registration(channel, "NotifyRegistrationStatus", status, _NOTIFY_SECONDS)
        if not error:
            service = next(service for service in info.supported_versions if service in _SERVICES)
            self._registrations.append(DraRegistration(info.name, endpoint, service, self.starts))
        return error, True

    def _validate(self, info: registration_pb.PluginInfo, path: str, endpoint: str) -> str:
        if info.type != DRA_PLUGIN_TYPE or not self.has_dra:
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

    def _on_connection_change(self, driver: str) -> None:
        if self.is_connected(driver):
            if (task := self._wipes.pop(driver, None)) is not None:
                task.cancel()
        elif driver not in self._wipes and self.is_running:
            self._start_wipe(driver, self._wiping_seconds)
        self._condition.notify_all()

    def _start_wipe(self, driver: str | None, seconds: float) -> None:
        if self._wipe is not None:
            self._wipes[driver or ""] = asyncio.create_task(self._wipe_later(self._wipe, driver, seconds))

    async def _wipe_later(
        self, wipe: Callable[[str | None], Awaitable[None]], driver: str | None, seconds: float
    ) -> None:
        await asyncio.sleep(seconds)
        await wipe(driver)
        self._wipes.pop(driver or "", None)


class _ManagerError(Exception):
    """An error of the DRA manager; the message is the kubelet's."""


class _DirectoryWatch:
    """Calls a function when an entry of a directory, or of a directory in it, is created or removed (inotify(7))."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot watch the directory of registration sockets: {os.strerror(number)}")
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def scan(self, directory: Path) -> dict[str, tuple[int, ...]]:
        """Return the sockets below a directory by path, each with what identifies the file; watch its directories."""
        sockets: dict[str, tuple[int, ...]] = {}
        self._libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _CREATED_OR_REMOVED)
        for path in sorted(directory.iterdir()):
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if path.name.startswith("."):
                continue
            if stat.S_ISDIR(status.st_mode):
                sockets |= self.scan(path)
            elif stat.S_ISSOCK(status.st_mode):
                sockets[str(path)] = (status.st_dev, status.st_ino, status.st_mtime_ns)
        return sockets

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        os.read(self._descriptor, 65536)
        self._on_change()


async def _call_registration(channel: grpc.aio.Channel, method: str, message: Any, timeout: float) -> bytes:  # noqa: ANN401 - two messages
    unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        method_path(PLUGIN_REGISTRATION, method)
    )
    return await unary(message.SerializeToString(), timeout=timeout)


def _check_answer(method: str, batch: Iterable[PodClaim], errors: Mapping[str, str]) -> None:
    """Check the answer of a driver, whose errors are by UID, as the kubelet does."""
    names = {claim.uid: claim.name for claim in batch}
    for uid, error in errors.items():
        if uid not in names:
            raise _ManagerError(f"{method} returned result for unknown claim UID {uid}")
        if error:
            raise _ManagerError(f"{method} failed for ResourceClaim {names[uid]}: {error}")
    if skipped := len(names) - len(errors):
        raise _ManagerError(f"{method} skipped {skipped} ResourceClaims")


def _format_go_list(texts: Iterable[str]) -> str:
    return f"[{' '.join(json.dumps(text) for text in texts)}]"
