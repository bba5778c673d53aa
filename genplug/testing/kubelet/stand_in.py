"""A kubelet stand-in: the device manager of a kubelet, as a plugin observes it, on Unix sockets.

    async with KubeletStandIn(Path("/tmp/k")) as kubelet:
        ...                                     # start a plugin on /tmp/k/device-plugins
        await kubelet.wait_for_list("example.com/x", healthy={"x0", "x1"})
        allocation = await kubelet.admit("example.com/x", 1, pod="a")

The stand-in makes the calls of a kubelet in the same order, with the same messages and the same bugs; ``faults``
injects further faults. docs/how-to/test-a-plugin.md lists what the stand-in does not imitate. It uses one event loop
and does not poll.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

import grpc

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import REGISTRATION
from genplug.testing.kubelet import checkpoint
from genplug.testing.kubelet.admission import LAST_WITH_OLD_MESSAGES, admission_error, allocate_devices, call_pre_start
from genplug.testing.kubelet.device_manager import DeviceManager, DeviceManagerError, Request
from genplug.testing.kubelet.faults import FaultInjector, RegisterRefusedError
from genplug.testing.kubelet.plugin_client import DIAL_TIMEOUT_SECONDS, PluginClient
from genplug.testing.kubelet.plugins import KubeletBehavior, Plugins
from genplug.testing.kubelet.pod_resources import ClaimUse, build_pod_resources_handler
from genplug.testing.kubelet.recorder import Recorder
from genplug.testing.kubelet.records import Allocation, Devices, ListMessage, NodeStatus, RegisterAttempt, Registration

SOCKET = "kubelet.sock"
FIRST_SYNCHRONOUS = (1, 25)
"""The first version that dials the plugin within Register (docs/internals/kubelet-contract.md §2.1)."""
FIRST_WITHOUT_DISCONNECT_BUG = (1, 36)
"""The first version without the disconnect bug (§2.3)."""
_MAX_SUMMARIES = 5


class KubeletStandIn(Recorder):
    """A kubelet whose sockets are in the directories ``device-plugins`` and ``pod-resources`` in ``kubelet_dir``.

    ``version`` determines how it registers plugins, and whether it has the disconnect bug, which ``disconnect_bug``
    overrides. ``seed`` determines which devices it chooses. ``dial_timeout`` is in seconds, 10 as in the kubelet.
    """

    def __init__(
        self,
        kubelet_dir: Path,
        *,
        version: tuple[int, int] = (1, 32),
        disconnect_bug: bool | None = None,
        seed: int = 0,
        dial_timeout: float = DIAL_TIMEOUT_SECONDS,
    ) -> None:
        super().__init__()
        self.version = version
        self.plugins_dir = kubelet_dir / "device-plugins"
        self.socket = self.plugins_dir / SOCKET
        self.pod_resources_socket = kubelet_dir / "pod-resources" / SOCKET
        self.faults = FaultInjector()
        self.list_claims: Callable[[], Iterable[ClaimUse]] = tuple
        self.has_listed_pods = True
        """Whether pod-resources has pods: a kubelet that has started does not know them for a moment."""
        self.pod_lists = 0
        """The number of List calls of the pod-resources API."""
        """Returns the claims that pods use, for the pod-resources API (``DraKubelet.claim_uses``)."""
        self.starts = 0
        if disconnect_bug is None:
            disconnect_bug = FIRST_SYNCHRONOUS <= version < FIRST_WITHOUT_DISCONNECT_BUG
        self._behavior = KubeletBehavior(version >= FIRST_SYNCHRONOUS, disconnect_bug, dial_timeout, self.faults)
        self._shuffle = random.Random(seed)  # noqa: S311 - a choice of devices, no secret
        self._admission = asyncio.Lock()
        self._checkpoint = checkpoint.Checkpoint(self.plugins_dir)
        self._running: AsyncExitStack | None = None
        self._reset()

    def __repr__(self) -> str:
        resources = self._device_manager.resources
        state = f"running, start {self.starts}" if self.is_running else "stopped"
        summaries = [
            f"; {resource}: {self._device_manager.summarize(resource)}, streams: {self.stream_count(resource)}"
            for resource in resources[:_MAX_SUMMARIES]
        ]
        if len(resources) > _MAX_SUMMARIES:
            summaries.append(f"; {len(resources) - _MAX_SUMMARIES} more resources")
        version = ".".join(map(str, self.version))
        return f"<KubeletStandIn {version}, {state}{''.join(summaries)}>"

    async def start(self) -> None:
        """Start as the kubelet does: read the checkpoint, empty the directory, listen, serve (§3)."""
        if self.is_running:
            raise RuntimeError("the kubelet is already running; stop it first, or call restart()")
        self.plugins_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._reset()
        restored = self._checkpoint.read()
        self._device_manager.restore(restored.resources, restored.allocations, time.monotonic())
        self.wipe(spare=())
        self.starts += 1
        registration = {
            "Register": grpc.unary_unary_rpc_method_handler(
                self._register, pb.RegisterRequest.FromString, pb.Empty.SerializeToString
            )
        }
        async with AsyncExitStack() as running:
            running.push_async_callback(self._plugins.close)
            handler = grpc.method_handlers_generic_handler(REGISTRATION, registration)
            await running.enter_async_context(_listen(self.socket, handler))
            self.pod_resources_socket.parent.mkdir(mode=0o750, exist_ok=True)
            handler = build_pod_resources_handler(lambda: self._device_manager, self._list_claims, self._begin_pod_list)
            await running.enter_async_context(_listen(self.pod_resources_socket, handler))
            self._running = running.pop_all()
        self.notify()

    async def crash(self) -> None:
        """End at once. Connections end; kubelet.sock remains and refuses connections, as after the end of a kubelet."""
        if self._running is not None:
            running, self._running = self._running, None
            await running.aclose()
            self._reset()
            self.notify()

    async def stop(self) -> None:
        """End, with the same effects as :meth:`crash`: a kubelet that stops removes no file."""
        await self.crash()

    async def restart(self) -> None:
        """Crash and start again. The checkpoint restores allocations, but no lists."""
        await self.crash()
        await self.start()

    @property
    def is_running(self) -> bool:
        """Whether the kubelet was started and has not ended."""
        return self._running is not None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    def wipe(self, spare: Collection[str] = (SOCKET,)) -> None:
        """Delete all files in the directory except the checkpoint and the files in ``spare``; directories are kept."""
        for entry in list(self.plugins_dir.iterdir()):
            if entry.name not in (checkpoint.FILE_NAME, *spare) and (entry.is_symlink() or not entry.is_dir()):
                entry.unlink(missing_ok=True)

    def devices(self, resource: str) -> Devices:
        """Return the devices of a resource as the kubelet knows them now; empty for an unknown resource."""
        return self._device_manager.devices(resource)

    def stream_count(self, resource: str) -> int:
        """Return the number of open ListAndWatch streams of a resource."""
        return self._plugins.streams[resource]

    def node_status(self) -> NodeStatus:
        """Return capacity and allocatable as of a sync of the node status (§2.6)."""
        return self._device_manager.node_status(time.monotonic())

    async def admit(
        self,
        resource: str,
        count: int = 1,
        *,
        pod: str = "pod",
        container: str = "main",
        ids: Iterable[str] | None = None,
    ) -> Allocation:
        """Admit a container that requests devices; ``ids`` limits the devices to choose from.

        Like the kubelet, the stand-in admits one container at a time. A container that was admitted before keeps its
        devices, and only PreStartContainer is called again.

        Raises:
            AdmissionError: the kubelet rejects the pod, or cannot start the container.
        """
        request = Request(pod, container, resource, count, None if ids is None else frozenset(ids))
        async with self._admission:
            endpoint = self._plugins.endpoints.get(resource)
            try:
                allocation = await allocate_devices(request, self._device_manager, endpoint, self._shuffle)
            except DeviceManagerError as error:
                raise admission_error(error, self.version) from error
            self._save_allocations()
        if endpoint is not None and endpoint.options.pre_start_required:
            await call_pre_start(allocation, endpoint)
        return allocation

    async def remove_pod(self, pod: str) -> None:
        """Free the devices of a pod. The plugins are not notified (§5.1)."""
        async with self._admission:
            self._device_manager.release(pod)
            self._save_allocations()

    def plugin(self, resource: str) -> PluginClient:
        """Return the kubelet's connection to the plugin of a resource, for calls from the test.

        Raises:
            LookupError: no plugin is connected for the resource.
        """
        return self._plugins.client(resource)

    def endpoint(self, resource: str) -> PluginClient:
        """Return the connection on which the kubelet calls Allocate.

        It remains when the failed registration of another socket removes the record of the plugin (§2.3).

        Raises:
            LookupError: no plugin has registered the resource since the start of the kubelet.
        """
        if resource not in self._plugins.endpoints:
            raise LookupError(f"no plugin has registered {resource} since the start of the kubelet")
        return self._plugins.endpoints[resource].client

    def cancel_stream(self, resource: str) -> None:
        """Cancel the ListAndWatch call of a resource; as after any end of a stream, the kubelet opens no other."""
        self._plugins.cancel_lists(resource)

    @asynccontextmanager
    async def connect(self, resource: str) -> AsyncIterator[PluginClient]:
        """Open another connection to the plugin of a resource, for example to ``watch`` a second list."""
        client = PluginClient(resource, self.plugin(resource).socket)
        try:
            await client.dial()
            yield client
        finally:
            await client.close()

    @asynccontextmanager
    async def open_idle_connections(self, resource: str, number: int) -> AsyncIterator[None]:
        """Open a number of connections to the plugin of a resource and send nothing on them."""
        async with AsyncExitStack() as open_connections:
            for _ in range(number):
                _, writer = await asyncio.open_unix_connection(self.plugin(resource).socket)
                open_connections.callback(writer.close)
            yield

    def _begin_pod_list(self) -> bool:
        self.pod_lists += 1
        self.notify()
        return self.has_listed_pods

    def _list_claims(self) -> Iterable[ClaimUse]:
        # A test can replace the function while the kubelet runs.
        return self.list_claims()

    def _reset(self) -> None:
        self._device_manager = DeviceManager(cannot="can't" if self.version <= LAST_WITH_OLD_MESSAGES else "cannot")
        self._plugins = Plugins(self.plugins_dir, self._device_manager, self._behavior, self._on_list, self.notify)

    async def _register(
        self, request: pb.RegisterRequest, context: grpc.aio.ServicerContext[pb.RegisterRequest, pb.Empty]
    ) -> pb.Empty:
        self.record(RegisterAttempt(request.resource_name, request.endpoint, request.version))
        try:
            options = await self._plugins.register(request)
        except RegisterRefusedError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        self.record(
            Registration(
                request.resource_name,
                request.endpoint,
                options.pre_start_required,
                options.get_preferred_allocation_available,
                self.starts,
            )
        )
        return pb.Empty()

    def _on_list(self, message: ListMessage) -> None:
        self._checkpoint.set_devices(message.resource, self._device_manager.healthy_ids(message.resource))
        self._checkpoint.write()
        self.record(message)

    def _save_allocations(self) -> None:
        self._checkpoint.set_allocations(self._device_manager.allocations.values())
        self._checkpoint.write()


@asynccontextmanager
async def _listen(socket: Path, handler: grpc.GenericRpcHandler) -> AsyncIterator[None]:
    """Serve on a socket and keep its file at the end, as after the end of a process.

    C-core unlinks the path of the socket when the server stops. The path leads through a symbolic link, which is
    removed first.
    """
    server = grpc.aio.server(handlers=[handler])
    with tempfile.TemporaryDirectory(prefix="gp") as aliases:
        alias = Path(aliases) / "a"
        alias.symlink_to(socket.parent.resolve())
        server.add_insecure_port(f"unix:{alias / socket.name}")
        await server.start()
        try:
            yield
        finally:
            alias.unlink()
            await server.stop(None)
