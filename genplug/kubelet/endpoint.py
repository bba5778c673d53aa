"""One resource's endpoint: performs what the state machine of ``generation.py`` decides, and tells it what happened.

Everything with an effect is here; every decision is there. One task per endpoint reads events in order; binding,
registering and stopping run beside it and report back as events, so nothing an endpoint does can block another.
"""

import asyncio
import random
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import grpc

from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path
from genplug.kubelet.client import CallError, call
from genplug.kubelet.endpoint_state import (
    Action,
    Event,
    Generation,
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
    TimePassed,
    first_step,
    next_step,
)
from genplug.kubelet.events import EndpointStatus, InternalErrorCaught, Phase, PhaseChanged, Reporter
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
from genplug.kubelet.servicer import DevicePluginServicer, ResourceBackend

_SELF_PROBE = 5.0
_DRAIN = 0.5
"""Seconds that calls under way get to finish when a server is stopped."""


class Endpoint:
    """A resource at the kubelet. ``answers`` is the newest state of the resource.

    ``run`` serves until ``stop``; ``update`` is given each new state, ``see`` what the kubelet's directory holds
    whenever that may have changed.
    """

    def __init__(
        self, resource: str, answers: LatestValue[ResourceBackend], registrar: Registrar, report: Reporter
    ) -> None:
        self.resource = resource
        self.answers = answers
        self._registrar = registrar
        self._report = report
        self._directory = registrar.directory
        self._events: asyncio.Queue[tuple[int | None, Event] | None] = asyncio.Queue()
        self._generation = Generation(0, Phase.PAUSE, time.monotonic())
        self._server: grpc.aio.Server | None = None
        self._service: DevicePluginServicer | None = None
        self._socket: Path | None = None
        self._bound: SocketIdentity | None = None
        self._work: asyncio.Task[None] | None = None

    @property
    def status(self) -> EndpointStatus:
        """The present status of the endpoint."""
        return self._generation.status

    def update(self, answers: ResourceBackend) -> None:
        """Answer by a new state from now on; where its options differ, the kubelet has to connect anew to read them."""
        before = self.answers.value.options
        self.answers.set(answers)
        if answers.options != before:
            self._happened(OptionsChanged())

    def on_directory_listing(self, directory: PluginDirListing) -> None:
        """Take note of the kubelet's directory: its socket, and whether our own is still ours."""
        # In this order: that a new kubelet wiped our socket is a restart, and not the old one's doing.
        self._happened(KubeletSeen(directory.kubelet))
        if self._socket is not None and self._bound is not None and directory.own.get(self._socket.name) != self._bound:
            self._happened(OwnSocketLost(), self._generation.number)

    async def run(self, directory: PluginDirListing) -> None:
        """Serve the resource until :meth:`stop`."""
        step = first_step(directory.kubelet, time.monotonic())
        try:
            while True:
                self._move(step.generation)
                if step.action is not None:
                    self._perform(step.action)
                if (event := await self._next_event()) is None:
                    return
                step = next_step(self._generation, event, time.monotonic(), random.random())  # noqa: S311 - jitter
        finally:
            await _ended(self._work)
            await self._stop_server()

    def stop(self) -> None:
        """End :meth:`run`: streams are closed, calls under way answered, the own socket removed."""
        self._events.put_nowait(None)

    async def _next_event(self) -> Event | None:
        """Return what happened next; news of an earlier generation's server is dropped, None is the end."""
        due = self._generation.due
        timeout = None if due is None else max(due - time.monotonic(), 0)
        while True:
            try:
                async with asyncio.timeout(timeout):
                    item = await self._events.get()
            except TimeoutError:
                return TimePassed()
            if item is None:
                return None
            number, event = item
            if number in (None, self._generation.number):
                return event

    def _happened(self, event: Event, number: int | None = None) -> None:
        """Queue an event; ``number`` is the generation that it concerns, None for whichever there is."""
        self._events.put_nowait((number, event))

    def _move(self, after: Generation) -> None:
        before, self._generation = self._generation, after
        if (before.phase, before.number, before.is_live) != (after.phase, after.number, after.is_live):
            self._report(PhaseChanged(self.resource, before.status, after.status))

    def _perform(self, action: Action) -> None:
        self._work = asyncio.create_task(self._work_on(action, self._generation.number, self._work))

    async def _work_on(self, action: Action, number: int, before: asyncio.Task[None] | None) -> None:
        # A Register under way when the generation retires has nobody to report to.
        await _ended(before)
        try:
            match action:
                case Action.SERVE:
                    event = await self._serve(number)
                case Action.REGISTER:
                    event = await self._register()
                case Action.RETIRE:
                    event = await self._retire()
        except Exception as error:  # noqa: BLE001 - a mistake of ours is reported and retried, never a silent end
            self._report(InternalErrorCaught(self.resource, action, error))
            failed: dict[Action, Event] = {
                Action.SERVE: ServeFailed(repr(error)),
                Action.REGISTER: RegisterFailed(repr(error)),
                Action.RETIRE: Retired(),
            }
            event = failed[action]
        self._happened(event, number)

    async def _serve(self, number: int) -> Event:
        await self._stop_server()

        def happened(event: StreamOpened | StreamClosed) -> None:
            self._happened(event, number)

        try:
            self._service = DevicePluginServicer(self.resource, self.answers, happened, self._report)
            self._socket = self._directory / new_socket_name(self.resource, self._directory)
            self._server = grpc.aio.server(handlers=[self._service])
            with private_umask():
                self._server.add_insecure_port(f"unix:{self._socket}")
            await _run_uncancelled(self._server.start())
            self._bound = stat_socket(self._socket)
            if self._bound is None:
                return ServeFailed("it was removed as soon as it was bound")
            # It must answer before the kubelet dials it (contract 2.3).
            await call(
                self._socket, method_path(DEVICE_PLUGIN, "GetDevicePluginOptions"), b"", deadline=_SELF_PROBE, wait=True
            )
        except (RuntimeError, OSError, PluginDirUnusableError, CallError) as error:
            return ServeFailed(str(error))
        return Served()

    async def _register(self) -> Event:
        # Looked at again at the last moment: a kubelet that is just starting may have wiped it (contract 3, race 2).
        if self._socket is None or stat_socket(self._socket) != self._bound:
            return OwnSocketLost()
        try:
            await self._registrar.register(self.resource, self._socket.name, self.answers.value.options)
        except CallError as error:
            return RegisterFailed(str(error))
        return Registered()

    async def _retire(self) -> Event:
        await self._stop_server()
        return Retired()

    async def _stop_server(self) -> None:
        server, service, socket, bound = self._server, self._service, self._socket, self._bound
        self._server = self._service = self._socket = self._bound = None
        if service is not None:
            service.close()
        if server is not None:
            await _run_uncancelled(server.stop(_DRAIN))
        # C-core unlinks its path when it stops; what it leaves, and only what is still ours, goes here.
        if socket is not None and bound is not None and stat_socket(socket) == bound:
            socket.unlink(missing_ok=True)


async def _ended(work: asyncio.Task[None] | None) -> None:
    """Cancel work and wait until it has ended, whatever its end."""
    if work is not None:
        work.cancel()
        await _run_uncancelled(asyncio.wait([work]))


async def _run_uncancelled(step: Coroutine[Any, Any, object]) -> None:
    """Do a step to its end even when cancelled.

    A server that is stopped while it starts makes C-core follow a null pointer: the end of the process.
    """
    doing = asyncio.ensure_future(step)
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        raise
