"""The endpoint of one resource: runs the actions that ``endpoint_state`` decides on and reports events to it.

``endpoint_state`` contains all decisions, this module all effects. One task per endpoint handles the events in order.
Serving, registering and retiring run in a second task and report their result as an event, so that an endpoint never
blocks another endpoint. References with § are to docs/internals/kubelet-contract.md.
"""

import asyncio
import random
import time
from pathlib import Path

import grpc

from genplug.kubelet.bind import describe_bind_error
from genplug.kubelet.client import CallError, SocketMissingError, SystemLimitError
from genplug.kubelet.endpoint_events import (
    Event,
    KubeletSeen,
    OptionsChanged,
    OwnSocketLost,
    Registered,
    RegisterFailed,
    Retired,
    Served,
    ServeFailed,
    StreamClosed,
    StreamOpened,
)
from genplug.kubelet.endpoint_state import Action, EndpointState, first_step, next_step
from genplug.kubelet.event_queue import EventQueue
from genplug.kubelet.latest_value import LatestValue
from genplug.kubelet.plugin_dir import (
    PluginDirListing,
    PluginDirUnusableError,
    SocketIdentity,
    new_socket_name,
    private_umask,
    stat_socket,
)
from genplug.kubelet.registration import Registrar
from genplug.kubelet.reports import (
    EndpointStatus,
    InternalErrorCaught,
    Phase,
    PhaseChanged,
    Reporter,
    SocketNotRemoved,
)
from genplug.kubelet.server_check import check_server
from genplug.kubelet.servicer import DevicePluginServicer, ResourceBackend
from genplug.kubelet.uncancelled import run_uncancelled

_SELF_CHECK_SECONDS = 5.0
"""Deadline of the connection with which an endpoint checks that its server responds."""
_STOP_GRACE_SECONDS = 0.5
"""Time that calls in progress get to finish when a server stops."""
HANDSHAKE_SECONDS = 10.0
"""Seconds within which a client has to begin its connection; idle connections use file descriptors of the agent."""
MAX_CONNECTIONS = 64
"""Connections to the socket of a resource; the kubelet opens one for each registration."""
SERVER_OPTIONS = (
    ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE_SECONDS)),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
)


class Endpoint:
    """The endpoint of a resource at the kubelet.

    :meth:`run` serves until :meth:`stop`. The caller passes each new state of the resource to :meth:`update`, and each
    listing of the kubelet's directory to :meth:`on_directory_listing`.
    """

    def __init__(
        self, resource: str, backend: LatestValue[ResourceBackend], registrar: Registrar, report: Reporter
    ) -> None:
        self.resource = resource
        self._backend = backend
        self._registrar = registrar
        self._report = report
        self._directory = registrar.directory
        self._listing: PluginDirListing | None = None
        self._events = EventQueue()
        self._state = EndpointState(0, Phase.PAUSE, time.monotonic())
        self._server: grpc.aio.Server | None = None
        self._servicer: DevicePluginServicer | None = None
        self._socket: Path | None = None
        self._socket_identity: SocketIdentity | None = None
        self._action: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Endpoint {self.resource}: {self.status}>"

    @property
    def status(self) -> EndpointStatus:
        """The present status of the endpoint."""
        return self._state.status

    def update(self, backend: ResourceBackend) -> None:
        """Serve a new state of the resource. If its options differ, the kubelet has to connect again to read them."""
        previous = self._backend.value.options
        self._backend.set(backend)
        if backend.options != previous:
            self._events.put(OptionsChanged())

    def on_directory_listing(self, directory: PluginDirListing) -> None:
        """Handle a listing of the kubelet's directory: kubelet.sock may be new, and the own socket may be lost."""
        # The kubelet comes first: if a new kubelet deleted the own socket, the reason is its restart.
        # The periodic listings of an idle node contain nothing new, and must not wake the endpoint.
        if self._listing is None or directory.kubelet != self._listing.kubelet:
            self._events.put(KubeletSeen(directory.kubelet))
        self._listing = directory
        if self._socket is None or self._socket_identity is None:
            return
        if directory.own.get(self._socket.name) != self._socket_identity:
            self._events.put(OwnSocketLost(), self._state.number)

    async def run(self, directory: PluginDirListing) -> None:
        """Serve the resource until :meth:`stop`."""
        step = first_step(directory.kubelet, time.monotonic())
        try:
            while True:
                self._enter(step.state)
                if step.action is not None:
                    self._start_action(step.action)
                event = await self._events.get(self._state.number, self._state.due)
                if event is None:
                    return
                step = next_step(self._state, event, time.monotonic(), random.random())  # noqa: S311 - jitter
        finally:
            await _cancel(self._action)
            await self._stop_server()

    def stop(self) -> None:
        """End :meth:`run`, which then closes the streams, finishes calls in progress and removes the own socket."""
        self._events.close()

    def _enter(self, state: EndpointState) -> None:
        previous, self._state = self._state, state
        is_other = (previous.phase, previous.number, previous.is_live) != (state.phase, state.number, state.is_live)
        # An attempt to serve that fails does not change the phase.
        if is_other or state.failures > previous.failures:
            self._report(PhaseChanged(self.resource, previous.status, state.status))

    def _start_action(self, action: Action) -> None:
        self._action = asyncio.create_task(self._run_action(action, self._state.number, self._action))

    async def _run_action(self, action: Action, number: int, previous: asyncio.Task[None] | None) -> None:
        # The result of the previous action is of no use: a Register can be in progress when its generation retires.
        await _cancel(previous)
        try:
            if action is Action.SERVE:
                event = await self._serve(number)
            elif action is Action.REGISTER:
                event = await self._register()
            else:
                event = await self._retire()
        except Exception as error:  # noqa: BLE001 - a defect is reported and the action retried; the endpoint continues
            self._report(InternalErrorCaught(self.resource, action, error))
            failures: dict[Action, Event] = {
                Action.SERVE: ServeFailed(repr(error)),
                Action.REGISTER: RegisterFailed(repr(error)),
                Action.RETIRE: Retired(),
            }
            event = failures[action]
        self._events.put(event, number)

    async def _serve(self, number: int) -> Event:
        await self._stop_server()

        def on_stream(event: StreamOpened | StreamClosed) -> None:
            self._events.put(event, number)

        try:
            self._servicer = DevicePluginServicer(self.resource, self._backend, on_stream, self._report)
            self._socket = self._directory / new_socket_name(self.resource, self._directory)
            self._server = grpc.aio.server(handlers=[self._servicer], options=SERVER_OPTIONS)
            with private_umask():
                self._server.add_insecure_port(f"unix:{self._socket}")
            await run_uncancelled(self._server.start())
            self._socket_identity = stat_socket(self._socket)
        except (RuntimeError, OSError, PluginDirUnusableError) as error:
            return ServeFailed(self._describe_serve_error(error))
        if self._socket_identity is None:
            return ServeFailed(f"another process removed its socket in {self._directory} as soon as it was bound")
        try:
            # The server has to respond before the kubelet dials it (§2.3).
            await check_server(self._socket, deadline=_SELF_CHECK_SECONDS)
        except SocketMissingError:
            return ServeFailed(f"another process removed its socket in {self._directory} as soon as it was bound")
        except CallError as error:
            # Each attempt has another socket: without its name, repeated failures have the same text.
            return ServeFailed(f"its server does not respond: {str(error).replace(str(self._socket), 'its socket')}")
        return Served()

    def _describe_serve_error(self, error: Exception) -> str:
        """Return why a server cannot be started on a socket in the directory."""
        if isinstance(error, PluginDirUnusableError):
            return str(error)
        return describe_bind_error(error, self._directory, self._socket)

    async def _register(self) -> Event:
        try:
            # A kubelet that starts at this moment may have deleted the socket (§3, race 2).
            if self._socket is None or stat_socket(self._socket) != self._socket_identity:
                return OwnSocketLost()
            await self._registrar.register(self.resource, self._socket.name, self._backend.value.options)
        except CallError as error:
            return RegisterFailed(str(error), is_system_limit=isinstance(error, SystemLimitError))
        except OSError as error:
            return RegisterFailed(f"cannot stat the socket in {self._directory}: {error.strerror or error}")
        return Registered()

    async def _retire(self) -> Event:
        await self._stop_server()
        return Retired()

    async def _stop_server(self) -> None:
        server, servicer, socket, identity = self._server, self._servicer, self._socket, self._socket_identity
        self._server = self._servicer = self._socket = self._socket_identity = None
        if servicer is not None:
            servicer.close()
        if server is not None:
            await run_uncancelled(server.stop(_STOP_GRACE_SECONDS))
        if servicer is not None:
            servicer.release()
        # C-core unlinks its path when it stops. If the socket is still there, and still the own socket, remove it.
        if socket is None or identity is None:
            return
        try:
            if stat_socket(socket) == identity:
                socket.unlink(missing_ok=True)
        except OSError as error:
            # For example a file system that is read-only now. The next agent, or a starting kubelet, removes it.
            self._report(SocketNotRemoved(self.resource, str(socket), error.strerror or str(error)))


async def _cancel(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait until it has ended, with any result."""
    if task is not None:
        task.cancel()
        await run_uncancelled(asyncio.wait([task]))
