"""Follows the resources that Dynamic Resource Allocation (DRA) serves, and runs its driver while it is needed.

The modules of the driver are imported with the first such resource: most agents do not have any. The driver is needed
until no resource is served by DRA, its ResourceSlices are deleted and no claim is prepared, because the kubelet ends
the pods of a claim only after the driver has unprepared it.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from genplug.agent.alias_pools import AliasPools
from genplug.agent.driver_hooks import RETRY_SECONDS, DriverHooks
from genplug.agent.settings import Settings
from genplug.agent.usage_poller import FIRST_POLL_PATIENCE_SECONDS
from genplug.allocation.offer import ResourceOffer, build_offer, count_grants, share_grants
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from genplug.health.verdict import DeviceHealth
from genplug.kubelet.client import CallError
from genplug.observe.events import Event, EventLog
from genplug.spec.model import Resource

if TYPE_CHECKING:
    from genplug.agent.driver_service import DriverService
    from genplug.observe.dra_status import DraStatus

_NO_NODE_NAME = "the name of the node is not known, which the names of pools contain: pass --node-name"


class DriverFollower:
    """Starts and ends the driver. ``pools`` knows which devices pods hold by the device plugin API."""

    def __init__(
        self, settings: Settings, host: Host, paths: HungPaths, event_log: EventLog, pools: AliasPools
    ) -> None:
        self.hooks = DriverHooks()
        self.error = ""
        """Why the claims of earlier processes are not known, empty if they are."""
        self._settings = settings
        self._host = host
        self._paths = paths
        self._event_log = event_log
        self._pools = pools
        self._offers: dict[str, ResourceOffer] = {}
        self._service: DriverService | None = None
        self._records = settings.kubelet_dir / "plugins" / settings.dra_driver / "claims"
        self._is_restored = not _has_records(self._records)
        self._is_complete: bool | None = None
        """Whether all resources of DRA have been scanned; None before the first configuration."""
        self._wakeup = asyncio.Event()

    def __repr__(self) -> str:
        return f"<DriverFollower [{len(self._offers)} resources | {self._service!r}]>"

    @property
    def offers(self) -> Mapping[str, ResourceOffer]:
        """The offers of the resources that DRA serves."""
        return self._offers

    @property
    def is_restored(self) -> bool:
        """Whether the claims of earlier processes are known."""
        return self._is_restored

    @property
    def status(self) -> "DraStatus | None":
        """The status of the driver, None if there is no resource of DRA and no prepared claim."""
        return self._service.status if self._service is not None else None

    @property
    def failures(self) -> tuple[str, ...]:
        """The tasks of the driver that failed by an internal error and are started again."""
        return self._service.failures if self._service is not None else ()

    def describe(self, name: str) -> str:
        """Return why the devices of a resource of DRA are not published, empty if they are."""
        if self._settings.node_name is None:
            return _NO_NODE_NAME
        if self._service is None:
            return "the driver has not started yet"
        return self._service.describe(name)

    def update(
        self,
        resources: Mapping[str, Resource],
        devices: Mapping[str, tuple[DeviceHealth, ...]],
        *,
        is_complete: bool,
    ) -> None:
        """Publish the devices of these resources from now on.

        It ``is_complete`` if the first scan of all resources of DRA has finished.
        """
        self._is_complete = is_complete
        if not resources and not self._offers and self._service is None:
            return
        shares = share_grants({name: count_grants(resource, devices[name]) for name, resource in resources.items()})
        self._offers = {
            name: build_offer(resource, devices[name], shares[name], self._offers.get(name))
            for name, resource in resources.items()
        }
        self.update_holders()

    def update_holders(self) -> None:
        """Publish what pods have left: the pods that hold devices have changed, or the devices have."""
        if self._service is not None:
            self._service.update(self._offers, is_complete=self._is_complete)
        self._wakeup.set()

    def find_claims(self, names: Iterable[str]) -> Mapping[str, str]:
        """Return the claims that hold devices of a resource with these names, as text by grant ID."""
        unrecorded = self._pools.find_claims(names)
        return unrecorded if self._service is None else {**unrecorded, **self._service.find_claims(names)}

    def list_held(self) -> Mapping[str, frozenset[str]]:
        """Return the IDs of the devices that claims hold, by resource."""
        held = self._service.list_held() if self._service is not None else {}
        unrecorded: dict[str, set[str]] = {}
        for pool, device in self._pools.claims:
            # The name of a pool ends with that of its resource, unless that is not a DNS name.
            resource = "/".join(pool.rsplit("/", 2)[1:])
            unrecorded.setdefault(resource, set()).add(device)
        return {name: held.get(name, frozenset()) | unrecorded.get(name, set()) for name in held.keys() | unrecorded}

    def on_claims_reported(self) -> None:
        """Withhold the devices of claims without records, as the kubelet has reported them."""
        if self._service is not None:
            self._service.on_claims_reported()
        else:
            self._wakeup.set()
            self.hooks.on_claims_changed()

    async def restore(self) -> None:
        """Return when the claims of earlier processes are known. The directory of the kubelet is locked.

        Nothing may be offered before, because a resource that the device plugin API serves now can have devices that
        claims hold.
        """
        if self._settings.node_name is not None and (self._service is not None or _has_records(self._records)):
            while error := await self._create_service().restore():
                self.error = error
                await asyncio.sleep(RETRY_SECONDS)
            self.error = ""
        # Records can be lost, and an agent whose resources were served by claims before can be without their directory.
        # If the kubelet does not respond, the pools poll again.
        with suppress(CallError, TimeoutError):
            async with asyncio.timeout(FIRST_POLL_PATIENCE_SECONDS):
                await self._pools.read_claims()
        self._is_restored = True
        self.hooks.on_restored()

    async def run(self) -> None:
        """Run the driver while it is needed, until cancelled."""
        while True:
            self._wakeup.clear()
            if self._settings.node_name is not None and (
                self._offers or self._service is not None or self._has_unrecorded_claims()
            ):
                service = self._create_service()
                service.update(self._offers, is_complete=self._is_complete)
                if await service.run():
                    self._service = None
                    text = (
                        f"the driver {self._settings.dra_driver} has ended: no resource has 'serve: dra', and no claim "
                        "is prepared"
                    )
                    self._event_log.emit(Event.DRA_ENDED, text, driver=self._settings.dra_driver)
            else:
                await self._wakeup.wait()

    def _has_unrecorded_claims(self) -> bool:
        """Return whether there are claims that only the driver can unprepare, and a directory for its socket.

        The pods of a claim end only after the driver has unprepared it. Without resources of DRA, the agent may have no
        directory for the driver.
        """
        return bool(self._pools.claims) and self._records.parent.is_dir()

    def _create_service(self) -> "DriverService":
        if self._service is None:
            # Imported here: an agent without resources of DRA does not load the modules.
            from genplug.agent.driver_service import DriverService  # noqa: PLC0415

            self._service = DriverService(
                self._settings, self._host, self._paths, self._event_log, self._pools, self.hooks
            )
        return self._service


def _has_records(directory: Path) -> bool:
    try:
        return any(path.suffix == ".json" for path in directory.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        # The service reports the reason.
        return True
