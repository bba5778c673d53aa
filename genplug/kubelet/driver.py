"""The driver of Dynamic Resource Allocation (DRA) at the kubelet: its two sockets and the calls on them.

The kubelet finds the registration socket in ``plugins_registry``, asks for the path of the service, connects to it, and
reports on the registration socket whether the driver is registered (``k8s.io/kubernetes``, pkg/kubelet/pluginmanager
and pkg/kubelet/cm/dra/plugin). Both sockets have fixed names: a kubelet connects again to a service that comes back on
the same path without another registration. This module knows claims by their names and results only;
:class:`ClaimBackend` prepares them. Only the process that has locked the directory of the kubelet may run a driver.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import grpc
from msgspec.structs import replace

from genplug.allocation.errors import ClaimError, ClaimErrorCode
from genplug.allocation.results import ClaimDevice, ClaimReference
from genplug.kubelet import driver_wire as wire
from genplug.kubelet.api.services import DRA_PLUGIN, PLUGIN_REGISTRATION
from genplug.kubelet.bind import describe_bind_error
from genplug.kubelet.client import CallError
from genplug.kubelet.endpoint import SERVER_OPTIONS
from genplug.kubelet.plugin_dir import MAX_SOCKET_PATH_BYTES, SocketIdentity, private_umask, stat_socket
from genplug.kubelet.reports import (
    ClaimAnswered,
    ClaimMethod,
    DriverNotServing,
    DriverRefused,
    DriverRegistered,
    DriverReporter,
    DriverStatus,
    InternalErrorCaught,
)
from genplug.kubelet.server_check import check_server
from genplug.kubelet.uncancelled import run_uncancelled
from genplug.spec.limits import MAX_RESPONSE_BYTES

REGISTRY, PLUGINS = "plugins_registry", "plugins"
"""The directories of registration sockets and of drivers in the directory of the kubelet."""
ANSWER_SECONDS = 40.0
"""Seconds after which a claim is answered with an error; the kubelet ends a call after 45 s."""
MAX_CONCURRENT_CLAIMS = 16
"""Claims that are prepared or unprepared at the same time: each of them uses a thread."""
MAX_ERROR_CHARACTERS = 1000
"""Characters of an error: the event of the pod has at most 1024 bytes."""
CHECK_SECONDS = 5.0
"""Seconds between two checks that the sockets exist: another program can remove them."""
MAX_STATUSES = 16
"""Registration statuses that wait, the last that arrived; a kubelet sends another after the first was answered."""
FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0
"""Pause before a refused registration is tried again, at most; it doubles with each refusal."""
_SELF_CHECK_SECONDS = 5.0
_STOP_GRACE_SECONDS = 0.5
"""Seconds that calls in progress get to finish when a server stops."""

Handlers = Mapping[str, "grpc.RpcMethodHandler[Any, bytes]"]
Context = grpc.aio.ServicerContext[Any, bytes]


class ClaimBackend(Protocol):
    """Prepares and unprepares claims. Calls for one claim do not overlap; all calls can be repeated."""

    async def prepare(self, claim: ClaimReference) -> Sequence[ClaimDevice]:
        """Return the devices of a claim that is prepared now, or was before.

        Raises:
            ClaimError: the claim cannot be prepared.
        """
        ...

    async def unprepare(self, claim: ClaimReference) -> None:
        """Remove what was prepared for a claim; succeed if nothing was.

        Raises:
            ClaimError: something cannot be removed.
        """
        ...


class Driver:
    """A driver whose sockets are in ``kubelet_dir``, which the kubelet sees at the same path.

    :meth:`run` serves until :meth:`stop`. A driver runs once.
    """

    def __init__(self, name: str, kubelet_dir: Path, backend: ClaimBackend, report: DriverReporter) -> None:
        self.status = DriverStatus(name, error="the driver has not started")
        self._name = name
        self._backend = backend
        self._report = report
        self._statuses: deque[str | None] = deque(maxlen=MAX_STATUSES)
        self._has_stopped = False
        self._changed = asyncio.Event()
        self._refusals = 0
        self._register_at = time.monotonic()
        directory = kubelet_dir / PLUGINS / name
        self._service = _Server(directory / "dra.sock", DRA_PLUGIN, self._service_methods(), creates_directory=True)
        self._registration = _Server(
            kubelet_dir / REGISTRY / f"{name}-reg.sock", PLUGIN_REGISTRATION, self._registration_methods()
        )
        self._claims = asyncio.Semaphore(MAX_CONCURRENT_CLAIMS)
        self._running: set[asyncio.Task[Sequence[ClaimDevice]]] = set()
        self._latest: dict[str, tuple[ClaimMethod, asyncio.Task[Sequence[ClaimDevice]]]] = {}
        """The call that was started last for each claim that has a call in progress, by UID."""

    def __repr__(self) -> str:
        return f"<Driver [{self.status}]>"

    async def run(self) -> None:
        """Serve the two sockets until :meth:`stop`, and register again whenever that is necessary."""
        try:
            while not self._has_stopped:
                pause = await self._serve()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
                self._changed.clear()
                while self._statuses:
                    await self._on_status(self._statuses.popleft())
        finally:
            # The agent can be stopped while the driver ends: a server that is not stopped would keep the process.
            await run_uncancelled(self._end())

    def stop(self) -> None:
        """End :meth:`run`, which then finishes calls in progress and removes the sockets."""
        self._has_stopped = True
        self._changed.set()

    async def _end(self) -> None:
        # A kubelet closes its connection when the registration socket has disappeared.
        await self._end_claims()
        await self._registration.stop()
        await self._service.stop()
        self._set_status(is_serving=False, is_registered=False, error="the driver has stopped")

    async def _serve(self) -> float:
        """Create the sockets that are missing and due; return the seconds until the next check."""
        now = time.monotonic()
        is_lost = not (self._service.is_intact() and self._registration.is_intact())
        if is_lost and self.status.is_registered:
            error = "another program removed a socket of the driver; the driver creates it again"
            self._set_status(is_registered=False, error=error)
            self._report(DriverNotServing(self._name, error, 0.0))
        try:
            if not self._service.is_intact():
                # Without its registration socket, the kubelet does not call a service that does not exist.
                await self._registration.stop()
                await self._service.start()
            if self._register_at <= now and not self._registration.is_intact():
                await self._registration.start()
        except _ServeError as error:
            if str(error) != self.status.error:
                self._report(DriverNotServing(self._name, str(error), FIRST_RETRY_SECONDS))
            self._set_status(is_serving=False, is_registered=False, error=str(error))
            return FIRST_RETRY_SECONDS
        if not self.status.is_serving:
            self._set_status(is_serving=True, error="the kubelet has not registered it yet")
        due = self._register_at - now
        return min(CHECK_SECONDS, due) if due > 0 else CHECK_SECONDS

    async def _on_status(self, error: str | None) -> None:
        """Handle a registration status: an error, or None for a success."""
        if error is None:
            self._refusals = 0
            self._set_status(is_registered=True, registrations=self.status.registrations + 1, error="")
            self._report(DriverRegistered(self._name))
            return
        self._refusals += 1
        seconds = retry_seconds(self._refusals, random.random())  # noqa: S311 - jitter
        self._register_at = time.monotonic() + seconds
        self._set_status(is_registered=False, error=f"the kubelet refuses to register it: {error}")
        self._report(DriverRefused(self._name, error, seconds))
        # A kubelet registers a socket that it refused only after the file was created again.
        await self._registration.stop()

    def _set_status(self, **changes: Any) -> None:  # noqa: ANN401 - fields of the status
        self.status = replace(self.status, **changes)

    def _registration_methods(self) -> Handlers:
        unary = grpc.unary_unary_rpc_method_handler
        return {"GetInfo": unary(self._get_info), "NotifyRegistrationStatus": unary(self._notify, wire.decode_status)}

    def _service_methods(self) -> Handlers:
        unary = grpc.unary_unary_rpc_method_handler
        return {
            "NodePrepareResources": unary(self._prepare, wire.decode_claims),
            "NodeUnprepareResources": unary(self._unprepare, wire.decode_claims),
        }

    async def _get_info(self, _request: bytes, _context: Context) -> bytes:
        return wire.encode_info(self._name, str(self._service.path))

    async def _notify(self, status: str | None, _context: Context) -> bytes:
        self._statuses.append(status)
        self._changed.set()
        return b""

    async def _prepare(self, claims: Sequence[ClaimReference], context: Context) -> bytes:
        answers = await self._answer_all("NodePrepareResources", claims, self._backend.prepare)
        response = wire.encode_prepared(dict(zip((claim.uid for claim in claims), answers, strict=True)))
        if len(response) > MAX_RESPONSE_BYTES:
            # The kubelet would fail the pod with an error of gRPC that does not name the cause.
            text = (
                f"{self._name}: the answer for {len(claims)} ResourceClaims has {len(response)} bytes, and the kubelet "
                f"accepts at most {MAX_RESPONSE_BYTES}; use fewer claims in the pod"
            )
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        return response

    async def _unprepare(self, claims: Sequence[ClaimReference], _context: Context) -> bytes:
        async def unprepare(claim: ClaimReference) -> Sequence[ClaimDevice]:
            await self._backend.unprepare(claim)
            return ()

        answers = await self._answer_all("NodeUnprepareResources", claims, unprepare)
        errors = (answer if isinstance(answer, str) else "" for answer in answers)
        return wire.encode_unprepared(dict(zip((claim.uid for claim in claims), errors, strict=True)))

    async def _answer_all(
        self,
        method: ClaimMethod,
        claims: Sequence[ClaimReference],
        function: Callable[[ClaimReference], Coroutine[Any, Any, Sequence[ClaimDevice]]],
    ) -> list[Sequence[ClaimDevice] | str]:
        """Return for each claim its devices or the text of its error, all within the deadline."""
        deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS
        tasks = [self._start(method, claim, function) for claim in claims]
        answers = (self._answer(method, claim, task, deadline) for claim, task in zip(claims, tasks, strict=True))
        return await asyncio.gather(*answers)

    def _start(
        self,
        method: ClaimMethod,
        claim: ClaimReference,
        function: Callable[[ClaimReference], Coroutine[Any, Any, Sequence[ClaimDevice]]],
    ) -> asyncio.Task[Sequence[ClaimDevice]]:
        """Return a task for a claim: that of the previous call if the kubelet repeats it before the task has ended.

        A call that the kubelet ended continues. After a call of the other method, a repeated call is another task: it
        must not have the result from before that call.
        """
        latest = self._latest.get(claim.uid)
        if latest is not None and latest[0] == method:
            return latest[1]

        async def run() -> Sequence[ClaimDevice]:
            async with self._claims:
                return await function(claim)

        task = asyncio.create_task(run())
        self._running.add(task)
        self._latest[claim.uid] = method, task
        task.add_done_callback(lambda done: self._on_task_done(claim.uid, done))
        return task

    def _on_task_done(self, uid: str, task: asyncio.Task[Sequence[ClaimDevice]]) -> None:
        self._running.discard(task)
        if uid in self._latest and self._latest[uid][1] is task:
            del self._latest[uid]
        if not task.cancelled():
            # The call may have ended before: then nothing retrieves the exception.
            task.exception()

    async def _answer(
        self, method: ClaimMethod, claim: ClaimReference, task: asyncio.Task[Sequence[ClaimDevice]], deadline: float
    ) -> Sequence[ClaimDevice] | str:
        """Return the devices of a claim, or the text of its error, and report the answer.

        The task of the claim continues after the deadline and after the end of the call.
        """
        started = time.perf_counter()
        code, error = None, ""
        devices: Sequence[ClaimDevice] = ()
        done, _ = await asyncio.wait([task], timeout=deadline - asyncio.get_running_loop().time())
        if not done:
            code, error = (
                ClaimErrorCode.TIMEOUT,
                f"ResourceClaim {claim}: {method} took longer than {ANSWER_SECONDS:g} s",
            )
        else:
            try:
                devices = task.result()
            except ClaimError as refusal:
                code, error = refusal.code, str(refusal)
            except asyncio.CancelledError:
                code, error = ClaimErrorCode.INTERNAL, f"ResourceClaim {claim}: genplug is being stopped"
            except Exception as defect:  # noqa: BLE001 - the log and the owner of the pod get every error
                self._report(InternalErrorCaught(self._name, method, defect))
                code = ClaimErrorCode.INTERNAL
                error = f"ResourceClaim {claim}: genplug failed in {method}: {defect!r}; see its log on this node"
        error = _shorten(error)
        names = tuple(device.device for device in devices)
        self._report(ClaimAnswered(self._name, method, claim, time.perf_counter() - started, names, code, error))
        return error or devices

    async def _end_claims(self) -> None:
        """Wait a moment for the claims in progress, and cancel the others, so that the kubelet gets an answer."""
        tasks = list(self._running)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=_STOP_GRACE_SECONDS)
        for task in late:
            task.cancel()
        await run_uncancelled(asyncio.wait(tasks))


def retry_seconds(refusals: int, jitter: float) -> float:
    """Return the pause after a number of consecutive refusals: 1 s, doubling to 60 s, plus up to a quarter.

    ``jitter`` is a random number in [0, 1).
    """
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(refusals - 1, 10), MAX_RETRY_SECONDS) * (1 + 0.25 * jitter)


class _ServeError(Exception):
    """A socket cannot be created; the message states why and what to do."""


class _Server:
    """A gRPC server with the methods of one service, on the socket with a fixed path."""

    def __init__(self, path: Path, service: str, methods: Handlers, *, creates_directory: bool = False) -> None:
        self.path = path
        self._creates_directory = creates_directory
        self._handler = grpc.method_handlers_generic_handler(service, dict(methods))
        self._server: grpc.aio.Server | None = None
        self._identity: SocketIdentity | None = None

    def is_intact(self) -> bool:
        """Return whether the server runs and its socket is still at the path."""
        try:
            return self._identity is not None and self._identity == stat_socket(self.path)
        except OSError:
            return False

    async def start(self) -> None:
        """Stop the server if it runs, and start it on a new socket.

        Raises:
            _ServeError: the socket cannot be created, or the server does not respond.
        """
        await self.stop()
        directory = self.path.parent
        if len(bytes(self.path)) > MAX_SOCKET_PATH_BYTES:
            raise _ServeError(
                f"the path {self.path} is too long: a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes; use a "
                "shorter name of the driver or a shorter --kubelet-dir"
            )
        try:
            if self._creates_directory:
                directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            elif not directory.is_dir():
                raise _ServeError(
                    f"the directory {directory} does not exist, which a kubelet creates when it starts; check that a "
                    "kubelet runs on this node and that --kubelet-dir is its --root-dir"
                )
            self._server = grpc.aio.server(handlers=[self._handler], options=SERVER_OPTIONS)
            with private_umask():
                # C-core removes a socket that is at the path.
                self._server.add_insecure_port(f"unix:{self.path}")
            await run_uncancelled(self._server.start())
            self._identity = stat_socket(self.path)
            await check_server(self.path, deadline=_SELF_CHECK_SECONDS)
        except (RuntimeError, OSError) as error:
            raise _ServeError(describe_bind_error(error, directory, self.path)) from error
        except CallError as error:
            raise _ServeError(f"its server does not respond: {error}") from error

    async def stop(self) -> None:
        """Stop the server after calls in progress, and remove its socket."""
        server, identity = self._server, self._identity
        self._server = self._identity = None
        if server is None:
            return
        await run_uncancelled(server.stop(_STOP_GRACE_SECONDS))
        try:
            # C-core has unlinked its path. It does not if the start failed.
            if identity is not None and stat_socket(self.path) == identity:
                self.path.unlink(missing_ok=True)
        except OSError:
            # The next start removes the socket, and reports the error if it cannot.
            return


def _shorten(error: str) -> str:
    """Return an error with valid characters and of limited length."""
    text = error.encode(errors="replace").decode()
    return text if len(text) <= MAX_ERROR_CHARACTERS else f"{text[: MAX_ERROR_CHARACTERS - 1]}…"
