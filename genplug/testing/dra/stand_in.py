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
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from genplug.testing.condition import Condition
from genplug.testing.dra.claim_manager import ClaimManager, ClaimUse
from genplug.testing.dra.driver_client import CALL_SECONDS, DriverClient
from genplug.testing.dra.plugin_manager import LOOP_SECONDS, PluginManager
from genplug.testing.dra.records import DraError, DraRegistration, PodClaim, PreparedDevice, RefusedRegistration
from genplug.testing.dra.slice_wiper import WIPING_SECONDS, SliceWiper

REGISTRY = "plugins_registry"
"""The directory of registration sockets in the directory of the kubelet."""
FIRST_WITH_DRA = (1, 34)
"""The first version whose kubelet has a handler for drivers by default."""
POD_RETRY_SECONDS = 10.0
"""The time after which a kubelet tries again to start a pod whose claims were not prepared."""


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
        self._condition = Condition()
        self._plugins = PluginManager(
            self.registry,
            self._on_connection,
            self._condition.notify_all,
            has_dra=self.has_dra,
            loop_seconds=loop_seconds,
        )
        self._claims = ClaimManager(self._plugins.get_client, call_seconds, self._condition.notify_all)
        self._wiper = SliceWiper(wipe, wiping_seconds)

    def __repr__(self) -> str:
        state = f"running, start {self.starts}" if self.is_running else "stopped"
        refused = f"; last refused: {self.refused[-1].error}" if self.refused else ""
        drivers = self._plugins.describe_drivers()
        return f"<DraKubelet {state}; drivers: {drivers}; {len(self._claims)} claims{refused}>"

    async def start(self) -> None:
        """Start: watch the directory of registration sockets, and register the drivers that are there."""
        if self.is_running:
            raise RuntimeError("the kubelet is already running; stop it first, or call restart()")
        self.registry.mkdir(parents=True, exist_ok=True, mode=0o755)
        self.starts += 1
        self._plugins.start(self.starts)
        self._wiper.wipe_node()
        self._condition.notify_all()

    async def stop(self) -> None:
        """End at once, as a kubelet that stops or crashes: connections end, and no file is removed.

        The checkpoint keeps the claims with their pods and devices, but not whether they are prepared.
        An internal error of the stand-in is raised.
        """
        if not self.is_running:
            return
        await asyncio.gather(self._plugins.stop(), self._wiper.stop())
        self._claims.restore()
        self._condition.notify_all()
        if self._plugins.failures:
            raise self._plugins.failures[0]

    async def restart(self, *, lose_checkpoint: bool = False) -> None:
        """Stop and start again. With ``lose_checkpoint`` (``dra_manager_state``), it knows no claim."""
        await self.stop()
        if lose_checkpoint:
            self._claims.clear()
        await self.start()

    @property
    def is_running(self) -> bool:
        """Whether the kubelet was started and has not ended."""
        return self._plugins.is_running

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    @property
    def registrations(self) -> tuple[DraRegistration, ...]:
        """All registrations that succeeded."""
        return tuple(self._plugins.registrations)

    @property
    def refused(self) -> tuple[RefusedRegistration, ...]:
        """All registrations that failed."""
        return tuple(self._plugins.refused)

    def refuse_registration(self, error: str) -> None:
        """Refuse every registration with an error, until the next call with an empty text.

        A kubelet tries such a socket again only when it was removed and created again.
        """
        self._plugins.refusal = error

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
            return [registration for registration in self._plugins.registrations if registration.driver == driver]

        await self.wait_for(lambda: len(list_registrations()) >= times and self.is_connected(driver), timeout)
        return list_registrations()[-1]

    def is_connected(self, driver: str) -> bool:
        """Return whether the service of a registered driver is connected."""
        return self._plugins.is_connected(driver)

    def plugin(self, driver: str) -> DriverClient:
        """Return the connection to a driver that the kubelet uses, for calls from the test.

        Raises:
            LookupError: the driver is not registered.
        """
        return self._plugins.get_client(driver)

    async def prepare(self, pod: str, *claims: PodClaim) -> None:
        """Prepare the claims of a pod, as the kubelet does before it creates the sandbox of the pod.

        There is one call for each driver, with the claims that are not prepared yet.

        Raises:
            DraError: a claim was not prepared; ``events`` has the same message.
        """
        try:
            await self._claims.prepare(pod, claims)
        except DraError as error:
            self.events.append(str(error))
            self._condition.notify_all()
            raise

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
        await self._claims.unprepare(pod)

    def devices(self, claim: PodClaim) -> tuple[PreparedDevice, ...]:
        """Return the devices of a claim as the kubelet knows them; a restart of the kubelet keeps them."""
        return self._claims.devices(claim)

    def cdi_devices(self, claim: PodClaim, request: str = "") -> tuple[str, ...]:
        """Return the names of the CDI devices of a container that uses a claim, or one request of it."""
        return self._claims.cdi_devices(claim, request)

    @property
    def claim_uses(self) -> tuple[ClaimUse, ...]:
        """The pods whose claims were prepared, each with the namespace and the name of a claim, and its devices.

        A device is its driver, its pool and its name.
        """
        return self._claims.uses

    def is_prepared(self, claim: PodClaim) -> bool:
        """Return whether the kubelet would not call NodePrepareResources for another pod with the claim."""
        return self._claims.is_prepared(claim)

    def _on_connection(self, driver: str) -> None:
        if self.is_connected(driver):
            self._wiper.cancel(driver)
        elif self.is_running:
            self._wiper.schedule(driver)
        self._condition.notify_all()
