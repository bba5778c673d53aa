"""Serves a node by Dynamic Resource Allocation: prepared claims, the driver at the kubelet, and published devices.

This module is imported only if a resource is served by Dynamic Resource Allocation, or a claim is prepared.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping

from msgspec import Struct

from genplug import __version__
from genplug.agent.alias_pools import AliasPools
from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.claim_files import ClaimFiles, ClaimRecord, ClaimStorageError, read_boot_id
from genplug.agent.claim_inputs import ClaimInputs
from genplug.agent.claim_source import ApiClaimSource
from genplug.agent.claims import Claims
from genplug.agent.driver_hooks import RETRY_SECONDS, DriverHooks
from genplug.agent.publisher import Publisher
from genplug.agent.publisher_state import UNSUPPORTED_KUBELET, Phase, Registration
from genplug.agent.publisher_status import PoolStatus, PublisherStatus
from genplug.agent.settings import Settings
from genplug.agent.supervision import Supervised
from genplug.agent.usage_poller import FIRST_POLL_PATIENCE_SECONDS
from genplug.agent.wakeup import Wakeup
from genplug.allocation.claims import ClaimPool, DeviceHolding, find_former_holdings
from genplug.allocation.holders import find_held_grants
from genplug.allocation.offer import ResourceOffer
from genplug.allocation.published import PublishedResource, ResourcePublisher
from genplug.allocation.results import ClaimReference
from genplug.allocation.slices import pool_name
from genplug.cluster.account import Account
from genplug.cluster.http import HttpClient
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError, HungPaths
from genplug.kubelet.client import CallError
from genplug.kubelet.driver import PLUGINS, Driver
from genplug.kubelet.pod_resources import DEADLINE_SECONDS, list_claims_in_use, list_uses
from genplug.kubelet.reports import (
    ClaimAnswered,
    ClaimForgotten,
    DriverNotServing,
    DriverRefused,
    DriverRegistered,
    DriverReport,
    DriverStatus,
)
from genplug.observe.dra_status import ClaimedDevice, ClaimStatus, DeviceNote, DraStatus, PublishedStatus
from genplug.observe.events import EventLog
from genplug.observe.messages import log_driver_report

DRAIN_CHECK_SECONDS = 1.0
"""Seconds between two checks whether the driver is needed, while no resource is served by it."""
FIRST_SCAN_SECONDS = 10.0
"""Seconds for which the first publication waits for devices that hang. The kubelet deletes slices after 30 s."""
DRAIN_SECONDS = 60.0
"""Seconds for which slices that cannot be deleted keep the driver. The kubelet deletes those of a driver that ends."""
_NO_HANDLER = "no handler registered"
"""A part of the refusal of a kubelet without handler for drivers (pkg/kubelet/pluginmanager/operationexecutor)."""
_UNKNOWN_USERS = "the kubelet has not reported yet which devices pods use by the device plugin API"


class _Evaluation(Struct, frozen=True):
    """The published devices of the offers by resource, and the pools that claims refer to, by name.

    ``used`` has the pods that use devices by the device plugin API, by resource and grant ID. ``inputs`` has what the
    pools were computed from, in addition to the offers: pods, claims, and whether taints are kept.
    """

    published: dict[str, PublishedResource] = {}
    used: dict[str, Mapping[str, str]] = {}
    pools: dict[str, ClaimPool] = {}
    inputs: dict[str, tuple[Mapping[str, str] | None, Mapping[str, ClaimReference], bool]] = {}


class DriverService:
    """Serves the resources of :meth:`update` until there are none and nothing is left of them."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of the agent that it connects
        self,
        settings: Settings,
        host: Host,
        paths: HungPaths,
        event_log: EventLog,
        pools: AliasPools,
        hooks: DriverHooks,
    ) -> None:
        self._settings = settings
        self._name = settings.dra_driver
        self._node = settings.node_name or ""
        self._host = host
        self._event_log = event_log
        self._users = pools
        self._hooks = hooks
        self._calls = BlockingCalls(paths)
        self._http = HttpClient(
            Account(directory=settings.account_dir),
            f"genplug/{__version__}",
            self._count_request,
        )
        self._claims: Claims | None = None
        self._restore_error = ""
        """Why the claims of earlier processes cannot be read, empty if they can be."""
        self._driver: Driver | None = None
        self._publisher: Publisher | None = None
        self._reported: set[str] = set()
        """The UIDs of the claims whose devices were reported, which are prepared."""
        self._registration = Registration.WAITING
        self._registered_at: float | None = None
        self._offers: Mapping[str, ResourceOffer] = {}
        self._publishers: dict[str, ResourcePublisher] = {}
        self._evaluation = _Evaluation()
        """The newest evaluation, which is replaced as a whole: the HTTP server reads it in a thread."""
        self._keeps_taints = True
        self._is_complete: bool | None = None
        self._updated, self._offers_changed = Wakeup(), Wakeup()
        self._supervised: tuple[Supervised, ...] = ()

    def __repr__(self) -> str:
        return f"<DriverService [{self._driver!r} | {self._claims!r}]>"

    @property
    def failures(self) -> tuple[str, ...]:
        """The tasks that failed by an internal error and are started again."""
        return tuple(task.failure for task in self._supervised if task.failure)

    @property
    def status(self) -> DraStatus:
        """The status of the driver, the published resources and the claims."""
        driver, publisher = self._get_driver_status(), self._get_publisher_status()
        pools = {pool.resource: pool for pool in publisher.pools} if publisher is not None else {}
        evaluation, claims = self._evaluation, self._claims
        # A thread may read the status: the records are copied at once.
        records = tuple(claims.records.values()) if claims is not None else ()
        return DraStatus(
            driver=driver.name,
            is_registered=driver.is_registered,
            registered_at=self._registered_at if driver.is_registered else None,
            error=driver.error,
            phase=publisher.phase.value if publisher is not None else Phase.WAIT_KUBELET.value,
            publish_error=publisher.error if publisher is not None else "",
            retry_seconds=publisher.retry_seconds if publisher is not None else 0.0,
            keeps_taints=self._keeps_taints,
            resources=tuple(
                self._build_published(published, evaluation.used[name], pools.get(name))
                for name, published in evaluation.published.items()
            ),
            claims=tuple(map(_build_claim, records)),
            damaged=claims.damaged if claims is not None else 0,
        )

    def _build_published(
        self, published: PublishedResource, used: Mapping[str, str], pool: PoolStatus | None
    ) -> PublishedStatus:
        return PublishedStatus(
            resource=published.resource,
            pool=pool_name(self._node, published.resource),
            slices=pool.slices if pool is not None else 0,
            devices=pool.devices if pool is not None else 0,
            tainted=pool.tainted if pool is not None else 0,
            left_out=tuple(DeviceNote(entry.device_id, entry.reason) for entry in published.left_out),
            withheld=tuple(DeviceNote(grant, user) for grant, user in used.items()),
            refusal=pool.refusal if pool is not None else "",
        )

    def describe(self, name: str) -> str:
        """Return why the devices of a resource are not published, empty if they are."""
        if self._users.users(name) is None:
            return _UNKNOWN_USERS
        driver = self._get_driver_status()
        if self._registration is Registration.UNSUPPORTED:
            return UNSUPPORTED_KUBELET
        if not driver.is_registered:
            return f"the driver {self._name} is not registered: {driver.error or 'it has not started yet'}"
        publisher = self._get_publisher_status()
        if publisher is None:
            return "the publisher of ResourceSlices has not started yet"
        pool = next((pool for pool in publisher.pools if pool.resource == name), None)
        if pool is not None and pool.refusal:
            return f"its ResourceSlices are refused: {pool.refusal}"
        if self._publisher is not None and self._publisher.is_ready:
            # The devices were published once: an API server that is away later does not make the node unready.
            return ""
        return f"its devices are not published ({publisher.phase}){publisher.error and f': {publisher.error}'}"

    def update(self, offers: Mapping[str, ResourceOffer], *, is_complete: bool | None) -> None:
        """Publish these offers from now on, less what pods hold by the device plugin API.

        It ``is_complete`` if the first scan of all resources has finished, and None before the first configuration.
        """
        self._offers, self._is_complete = dict(offers), is_complete
        self._evaluate()
        self._updated.set()
        self._offers_changed.set()
        if self._publisher is not None:
            self._publisher.mark_changed()

    def find_claims(self, names: Iterable[str]) -> Mapping[str, str]:
        """Return the claims that hold devices of a resource with these names, as text by grant ID."""
        pools = {pool_name(self._node, name) for name in names}
        return {held.device: f"the ResourceClaim {held.claim}" for held in self._holdings if held.pool in pools}

    def on_claims_reported(self) -> None:
        """Withhold the devices of claims without records, as the kubelet has reported them."""
        self._on_claims_changed()

    @property
    def _holdings(self) -> tuple[DeviceHolding, ...]:
        return (*(self._claims.holdings if self._claims is not None else ()), *self._list_unrecorded())

    def _list_unrecorded(self) -> tuple[DeviceHolding, ...]:
        """Return the devices of claims that only the kubelet knows, without their UIDs."""
        return tuple(
            DeviceHolding(ClaimReference(namespace, name, ""), pool, device)
            for (pool, device), (namespace, name) in self._users.claims.items()
        )

    def list_held(self) -> Mapping[str, frozenset[str]]:
        """Return the IDs of the devices that claims hold, by resource."""
        return self._claims.devices if self._claims is not None else {}

    async def restore(self) -> str:
        """Read the claims of earlier processes, unless they are known; return the error, empty if there is none."""
        if self._claims is not None:
            return ""
        directory = self._settings.kubelet_dir / PLUGINS / self._name / "claims"
        try:
            files = ClaimFiles(self._name, directory, self._settings.cdi_dir, self._host, read_boot_id())
            inputs = ClaimInputs(
                ApiClaimSource(self._http),
                self._list_uses,
                lambda: self._evaluation.pools,
                self._users.refresh,
                lambda: bool(self._is_complete),
                self._hooks.on_reserved,
                self._list_unrecorded,
            )
            claims = Claims(files, self._calls, inputs, self._on_report)
            await claims.restore(keeps_unknown=True)
            await self._remove_unknown_cdi(claims)
        except (ClaimStorageError, HangError) as error:
            if str(error) != self._restore_error:
                self._restore_error = str(error)
                log_driver_report(self._event_log, DriverNotServing(self._name, str(error), RETRY_SECONDS))
            return str(error)
        self._claims, self._reported = claims, set(claims.records)
        self._users.exclude_claims(self._list_recorded)
        self._on_claims_changed()
        return ""

    async def _remove_unknown_cdi(self, claims: Claims) -> None:
        """Remove the CDI files without a record, unless a container that needs such a file may be restarted."""
        try:
            async with asyncio.timeout(FIRST_POLL_PATIENCE_SECONDS):
                uses = await list_uses(self._settings.pod_resources, DEADLINE_SECONDS)
        except (CallError, TimeoutError):
            return
        reported = {
            (use.namespace, use.claim) for use in uses.claims if any(used.driver == self._name for used in use.devices)
        }
        if reported <= claims.names:
            await claims.remove_unknown_cdi()

    def _list_recorded(self) -> frozenset[tuple[str, str]]:
        records = self._claims.records.values() if self._claims is not None else ()
        return frozenset((record.claim.namespace, record.claim.name) for record in records)

    async def run(self) -> bool:
        """Serve until no resource is left, its slices are deleted, and no claim is prepared.

        Return False if the claims of earlier processes cannot be read; call it again then.
        """
        await self.restore()
        if (claims := self._claims) is None:
            await asyncio.sleep(RETRY_SECONDS)
            return False
        self._supervised = (
            Supervised("driver of claims", lambda: self._run_driver(claims), self._event_log),
            Supervised("keeper of claims", claims.run, self._event_log),
            Supervised("publisher of ResourceSlices", self._run_publisher, self._event_log),
        )
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(task.run(), name=task.name) for task in self._supervised]
            try:
                await self._wait_drained()
            finally:
                # The driver finishes calls in progress and removes its sockets; slices and records remain.
                for task in running:
                    task.cancel()
        self._supervised = ()
        return True

    async def _wait_drained(self) -> None:
        empty_since: float | None = None
        while True:
            # Without a wakeup while there are resources, which is nearly always.
            due = float("inf") if self._offers else time.monotonic() + DRAIN_CHECK_SECONDS
            await self._offers_changed.sleep_until(due)
            has_claims = self._claims is None or not self._claims.is_empty or bool(self._users.claims)
            if self._offers or self._is_complete is None or has_claims:
                empty_since = None
                continue
            empty_since = time.monotonic() if empty_since is None else empty_since
            status = self._get_publisher_status()
            is_idle = status is not None and status.phase is Phase.IDLE
            if is_idle or time.monotonic() - empty_since >= DRAIN_SECONDS:
                return

    async def _run_driver(self, claims: Claims) -> None:
        self._set_registration(Registration.WAITING)
        self._driver = Driver(self._name, self._settings.kubelet_dir, claims, self._on_report)
        await self._driver.run()

    async def _run_publisher(self) -> None:
        await self._wait_known()
        # An earlier process may have published resources that are not served any more.
        self._publisher = Publisher(
            self._http, self._name, self._node, self._list_published, self._event_log, may_have_slices=True
        )
        self._publisher.set_registration(self._registration)
        await self._publisher.run()

    async def _wait_known(self) -> None:
        """Wait until the devices are known: those that are not would lose their slices after a restart of the agent."""
        deadline = float("inf")
        while not (self._is_complete and None not in map(self._users.users, self._offers)):
            if time.monotonic() >= deadline:
                return
            if self._is_complete is not None and deadline == float("inf"):
                deadline = time.monotonic() + FIRST_SCAN_SECONDS
            await self._updated.sleep_until(deadline)

    def _list_published(self, keeps_taints: bool) -> tuple[PublishedResource, ...] | None:  # noqa: FBT001 - a callback
        if keeps_taints != self._keeps_taints:
            self._keeps_taints = keeps_taints
            self._evaluate()
        return tuple(self._evaluation.published.values()) if self._offers else None

    def _on_claims_changed(self) -> None:
        previous = self._evaluation.published
        self._evaluate()
        if self._evaluation.published != previous and self._publisher is not None:
            self._publisher.mark_changed()
        self._hooks.on_claims_changed()

    def _evaluate(self) -> None:
        """Compute what is published of the offers, and the pools that claims refer to."""
        self._publishers = {name: self._publishers.get(name) or ResourcePublisher() for name in self._offers}
        previous, evaluation = self._evaluation, _Evaluation()
        holdings = self._holdings
        for name, offer in self._offers.items():
            users = self._users.users(name)
            aliases = (pool_name(self._node, alias) for alias in offer.resource.aliases)
            pool_id = pool_name(self._node, name)
            held = find_former_holdings(offer, pool_id, aliases, holdings)
            inputs = evaluation.inputs[name] = (users, held, self._keeps_taints)
            known = previous.pools.get(pool_id)
            if known is not None and known.offer is offer and previous.inputs.get(name) == inputs:
                # Most changes concern another resource.
                evaluation.published[name], evaluation.used[name] = known.published, known.used
                evaluation.pools[pool_id] = known
                continue
            used = find_held_grants(offer, users or {})
            withheld = dict.fromkeys(offer.grants, _UNKNOWN_USERS) if users is None else _describe_users(used, held)
            published = self._publishers[name].publish(offer, keeps_taints=self._keeps_taints, withheld=withheld)
            evaluation.published[name], evaluation.used[name] = published, used
            evaluation.pools[pool_id] = ClaimPool(offer, published, used, held)
        self._evaluation = evaluation

    def _on_report(self, report: DriverReport) -> None:
        log_driver_report(self._event_log, report)
        if isinstance(report, ClaimAnswered) and report.code is None:
            self._users.forget_claim(report.claim.namespace, report.claim.name)
        match report:
            case DriverRegistered():
                self._set_registration(Registration.REGISTERED, time.time())
            case DriverRefused(_, error, _):
                is_unsupported = _NO_HANDLER in error
                self._set_registration(Registration.UNSUPPORTED if is_unsupported else Registration.WAITING)
            case DriverNotServing():
                # The kubelet deletes the slices: the scheduler must not use a node whose driver cannot be called.
                self._set_registration(Registration.WAITING)
            case ClaimAnswered(_, "NodePrepareResources", claim) if report.code is None and self._claims is not None:
                self._report_prepared(self._claims.records.get(claim.uid))
                self._on_claims_changed()
            case ClaimAnswered() | ClaimForgotten():
                self._reported &= self._claims.records.keys() if self._claims is not None else set()
                self._on_claims_changed()
            case _:
                pass

    def _report_prepared(self, record: ClaimRecord | None) -> None:
        """Report the devices of a claim that is prepared now; the kubelet can repeat a call."""
        if record is None or record.claim.uid in self._reported:
            return
        self._reported.add(record.claim.uid)
        devices: dict[str, list[str]] = {}
        for device in record.devices:
            devices.setdefault(device.resource, []).append(device.device)
        for resource, ids in devices.items():
            self._hooks.on_prepared(resource, ids)

    def _set_registration(self, registration: Registration, registered_at: float | None = None) -> None:
        self._registration = registration
        self._registered_at = registered_at
        if self._publisher is not None:
            self._publisher.set_registration(registration)

    def _get_driver_status(self) -> DriverStatus:
        return self._driver.status if self._driver is not None else DriverStatus(self._name)

    def _get_publisher_status(self) -> PublisherStatus | None:
        return self._publisher.status if self._publisher is not None else None

    def _count_request(self, verb: str, code: str) -> None:
        self._hooks.count_request(verb, code)

    async def _list_uses(self) -> frozenset[tuple[str, str]]:
        return await list_claims_in_use(self._settings.pod_resources)


def _build_claim(record: ClaimRecord) -> ClaimStatus:
    claim = record.claim
    devices = (
        ClaimedDevice(device.request, device.resource, device.device, device.admin_access) for device in record.devices
    )
    return ClaimStatus(claim.namespace, claim.name, claim.uid, tuple(devices))


def _describe_users(used: Mapping[str, str], held: Mapping[str, ClaimReference]) -> dict[str, str]:
    """Return why grants are withheld from publication."""
    pods = {
        grant: f"{user} uses it by the device plugin API; it is published when that pod has ended"
        for grant, user in used.items()
    }
    claims = {
        grant: f"the ResourceClaim {claim} has it by a former configuration; it is published when that claim is "
        "unprepared"
        for grant, claim in held.items()
    }
    return claims | pods
