"""Polls which devices pods use that can be given in two ways: under several names, or by another API.

Devices with aliases are withheld under their other names. Devices of resources that Dynamic Resource Allocation serves
may still be in use by pods that got them by the device plugin API (:meth:`AliasPools.users`), and the reverse: an agent
that does not have the records of prepared claims learns from the kubelet which devices claims hold. Usage is known from
Allocate requests and from the pod-resources API of the kubelet.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from genplug.agent.settings import Settings
from genplug.agent.usage_poller import FIRST_POLL_PATIENCE_SECONDS
from genplug.allocation.alias_pool import Holding, Pool, record_allocation, record_usage, without_held
from genplug.allocation.offer import ResourceOffer
from genplug.kubelet.client import CallError
from genplug.kubelet.pod_resources import DEADLINE_SECONDS, list_uses
from genplug.kubelet.reports import ClaimUse, DeviceUse, PodUses
from genplug.observe.events import Event, EventLog
from genplug.spec.model import Resource

ClaimName: TypeAlias = tuple[str, str]
"""The namespace and the name of a ResourceClaim."""

FIRST_POLL_SECONDS = 1.0
"""Seconds between two attempts to read the usage for the first time; until then, no device with aliases is offered."""
GRACE_POLLS = 3
"""Polls in succession that may miss a pod: after its allocation, or after a start of the kubelet."""
_STARTING_POD = "a pod that is starting"


class AliasPools:
    """The pools of a node; ``on_change`` is called with the names of the resources whose offers have changed.

    ``on_first_poll`` is called when no offer waits for the first poll any more.
    """

    def __init__(
        self,
        settings: Settings,
        event_log: EventLog,
        on_change: Callable[[Iterable[str]], None],
        on_first_poll: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._event_log = event_log
        self._on_change = on_change
        self._on_first_poll = on_first_poll
        self._names: Mapping[str, tuple[str, ...]] = {}
        """All names of a pool by each of its names, the configured name first."""
        self._pools: dict[str, Pool] = {}
        self._pods: dict[tuple[str, str], str] = {}
        """The pods that use grants of pools, by resource name and grant ID, as text."""
        self._recent: dict[tuple[str, str], float] = {}
        """The times of allocations that the kubelet may not report yet: a resource can become a pool after them."""
        self.on_claims_changed: Callable[[], None] = lambda: None
        """Called when :meth:`find_claims` returns something else."""
        self._list_recorded: Callable[[], frozenset[ClaimName]] | None = None
        """Returns the claims of which the driver has records; None before it has read them."""
        self._claims_end = float("inf")
        """When other claims are not followed any more unless one holds a device, in monotonic seconds."""
        self._recorded: set[ClaimName] = set()
        """The claims of which the driver has had records until then."""
        self._claimed: Pool | None = None
        """The devices that claims without records hold, by pool and device; None before the first response."""
        self._claims: dict[tuple[str, str], ClaimName] = {}
        """The claims that hold these devices."""
        self._wakeup = asyncio.Event()
        self._polling = asyncio.Lock()
        self._polled_at = float("-inf")
        """When the last poll with a response started, in monotonic seconds."""
        self._error = ""
        self._is_first_poll_due = True
        """Whether the first poll has not ended: nothing is served before :meth:`run`."""
        self._has_polled = False

    def update_resources(self, resources: Iterable[Resource], published: Iterable[Resource] = ()) -> None:
        """Set the resources; those with aliases are tracked, and those that Dynamic Resource Allocation serves."""
        tracked = (*(resource for resource in resources if resource.aliases), *published)
        pools = [(resource.name, *resource.aliases) for resource in tracked]
        self._names = {name: names for names in pools for name in names}
        self._pools = {names[0]: self._pools[names[0]] for names in pools if names[0] in self._pools}
        self._wakeup.set()

    def is_pending(self, name: str) -> bool:
        """Return whether the offer of a resource waits for the first poll."""
        names = self._names.get(name)
        return self._is_first_poll_due and names is not None and names[0] not in self._pools

    def remaining_offer(self, offer: ResourceOffer) -> ResourceOffer:
        """Return an offer in which devices in use under other names are unhealthy."""
        names = self._names.get(offer.resource.name)
        return offer if names is None else without_held(offer, self._pools.get(names[0]))

    def users(self, name: str) -> Mapping[str, str] | None:
        """Return the pods that use grants of a tracked resource by the device plugin API, as text by grant ID.

        None means that the kubelet has not reported them yet.
        """
        names = self._names.get(name)
        pool = self._pools.get(names[0]) if names is not None else None
        if pool is None:
            return None
        return {key[1]: self._pods.get(key, _STARTING_POD) for key in pool}

    def list_used_names(self, name: str) -> tuple[str, ...]:
        """Return the names under which pods use devices of a tracked resource."""
        names = self._names.get(name)
        pool = self._pools.get(names[0]) if names is not None else None
        return tuple(dict.fromkeys(used for used, _ in pool or ()))

    async def read_claims(self) -> None:
        """Read from the kubelet which devices claims without records hold.

        Raises:
            CallError: the kubelet did not respond, or responded with an error.
        """
        if self._follows_claims:
            recorded = self._get_recorded()
            uses, kubelet = await self._list_uses()
            self._record_claims(uses.claims, recorded, None, kubelet)

    @property
    def claims(self) -> Mapping[tuple[str, str], ClaimName]:
        """The claims without records that hold devices, by pool and device, as the kubelet reports them.

        The kubelet does not report whether a claim has admin access, so that devices of such a claim are included.
        """
        return self._claims

    def find_claims(self, names: Iterable[str]) -> Mapping[str, str]:
        """Return these claims that hold devices of a resource with these names, as text by the ID of the grant."""
        if not self._claims:
            return {}
        # Imported here: an agent without claims does not load the module.
        from genplug.allocation.slices import pool_name  # noqa: PLC0415

        # All pools of pods of this node have its name.
        ends = tuple(pool_name("", name) for name in names)
        return {
            device: f"the ResourceClaim {'/'.join(claim)}"
            for (pool, device), claim in self._claims.items()
            if pool.endswith(ends)
        }

    def exclude_claims(self, list_recorded: Callable[[], frozenset[ClaimName]]) -> None:
        """Follow only claims of which the driver has no record; ``list_recorded`` returns those with a record.

        A record can be lost while pods run. All claims that are prepared from now on have records, so that other claims
        are followed only until the kubelet has reported all pods from before, and none of them holds a device.
        """
        self._list_recorded, self._claims_end = list_recorded, time.monotonic() + self._grace_seconds
        self._wakeup.set()

    def forget_claim(self, namespace: str, name: str) -> None:
        """Forget a claim that the driver has prepared or unprepared, before the kubelet reports that."""
        if not self._follows_claims:
            return
        self._recorded.add((namespace, name))
        self._set_claims(
            {key: held for key, held in (self._claimed or {}).items() if self._claims[key] != (namespace, name)}
        )

    @property
    def _follows_claims(self) -> bool:
        """Whether the kubelet may report claims without records."""
        return self._claimed is None or bool(self._claimed) or time.monotonic() < self._claims_end

    def _get_recorded(self) -> frozenset[ClaimName]:
        return self._list_recorded() if self._list_recorded is not None else frozenset()

    def record_allocation(self, name: str, ids: Iterable[str]) -> None:
        """Record an Allocate response, before the next request is answered."""
        ids, now = tuple(ids), time.monotonic()
        expired = now - self._grace_seconds
        # Entries are in the order of time.
        while self._recent and (oldest := next(iter(self._recent.items())))[1] < expired:
            del self._recent[oldest[0]]
        for grant in ids:
            self._recent.pop((name, grant), None)
            self._recent[name, grant] = now
        if (names := self._names.get(name)) is not None and names[0] in self._pools:
            self._pools[names[0]] = record_allocation(self._pools[names[0]], name, ids, now)
            self._on_change(other for other in names if other != name)
            self._wakeup.set()

    async def refresh(self) -> None:
        """Poll pod-resources, so that the pods of tracked resources are those of a response from after this call.

        Raises:
            CallError: the kubelet did not respond, or responded with an error.
        """
        called_at = time.monotonic()
        async with self._polling:
            # The kubelet limits the rate of requests: calls that wait share a response.
            if self._polled_at < called_at:
                # The next poll can follow soon, so this poll does not count as a miss.
                await self._poll(max_misses=None)

    async def run(self) -> None:
        """Poll pod-resources while a device of a pool is in use, until cancelled."""
        self._is_first_poll_due = not self._has_polled
        while True:
            interval = self._poll_interval()
            self._wakeup.clear()
            try:
                async with asyncio.timeout(interval):
                    await self._wakeup.wait()
                if interval is not None:
                    # A device allocated a moment ago is not in the response of the kubelet yet.
                    await asyncio.sleep(interval)
            except TimeoutError:
                pass
            if self._names or self._needs_claims():
                patience = asyncio.get_running_loop().call_later(FIRST_POLL_PATIENCE_SECONDS, self._end_first_poll)
                try:
                    async with self._polling:
                        await self._poll(max_misses=GRACE_POLLS)
                except CallError as error:
                    self._report_error(str(error))
                else:
                    self._error = ""
                finally:
                    patience.cancel()
                    self._end_first_poll()

    @property
    def _grace_seconds(self) -> float:
        return GRACE_POLLS * self._settings.drain_seconds

    def _list_recent(self, names: tuple[str, ...]) -> Pool:
        """Return the recent allocations of a resource that was not tracked when they were answered."""
        return {key: Holding(since, is_confirmed=False) for key, since in self._recent.items() if key[0] in names}

    def _end_first_poll(self) -> None:
        self._has_polled = True
        if self._is_first_poll_due:
            self._is_first_poll_due = False
            self._on_first_poll()

    def _needs_claims(self) -> bool:
        """Return whether a poll is needed for claims."""
        return self._claimed is None or bool(self._claimed) or self._awaits_claims

    def _poll_interval(self) -> float | None:
        """Return the seconds until the next poll; None if no poll is needed."""
        if any(names[0] not in self._pools for names in self._names.values()):
            return FIRST_POLL_SECONDS if self._error else 0.0
        if self._claimed is None:
            return self._settings.poll_seconds
        is_needed = any(self._pools.values()) or self._claimed or self._awaits_claims
        return self._settings.drain_seconds if is_needed else None

    @property
    def _awaits_claims(self) -> bool:
        """Whether a kubelet that has started may not have reported all claims without records yet."""
        return self._list_recorded is not None and time.monotonic() < self._claims_end

    def _report_error(self, error: str) -> None:
        if self._names and error != self._error:
            self._error = error
            text = (
                "cannot read which devices pods use, so devices with aliases, and those of resources with "
                f"'serve: dra', are not offered until the kubelet responds: {error}"
            )
            self._event_log.emit(Event.POD_RESOURCES_UNAVAILABLE, text)

    async def _poll(self, max_misses: int | None) -> None:
        started_at, recorded = time.monotonic(), self._get_recorded()
        uses, kubelet = await self._list_uses()
        self._polled_at = started_at
        if self._follows_claims:
            self._record_claims(uses.claims, recorded, max_misses, kubelet)
        self._record_uses(uses.devices, max_misses, kubelet)

    async def _list_uses(self) -> tuple[PodUses, Hashable]:
        """Return what containers use, and what identifies the process of the kubelet, None if it is not known.

        Each process creates the socket again.
        """
        before = _identify(self._settings.pod_resources)
        uses = await list_uses(self._settings.pod_resources, DEADLINE_SECONDS)
        return uses, before if before == _identify(self._settings.pod_resources) else None

    def _record_claims(
        self, uses: Iterable[ClaimUse], recorded: frozenset[ClaimName], max_misses: int | None, kubelet: Hashable
    ) -> None:
        """Record the claims that a response has, except those with records before or after the request."""
        known = recorded | self._get_recorded() | self._recorded
        is_ended = time.monotonic() >= self._claims_end
        held = {
            key: (use.namespace, use.claim)
            for use in uses
            if (use.namespace, use.claim) not in known
            for device in use.devices
            for key in [(device.pool, device.device)]
            if device.driver == self._settings.dra_driver and (not is_ended or key in self._claims)
        }
        if is_ended:
            self._recorded.clear()
        used: dict[str, set[str]] = {}
        for pool, device in held:
            used.setdefault(pool, set()).add(device)
        previous = self._claimed or {}
        after = record_usage(previous, used, used, time.monotonic(), self._grace_seconds, max_misses, kubelet)
        self._claims |= held
        self._set_claims(after)

    def _set_claims(self, after: Pool) -> None:
        previous = self._claimed or {}
        self._claimed, self._claims = after, {key: self._claims[key] for key in after}
        if after.keys() != previous.keys():
            self.on_claims_changed()

    def _record_uses(self, uses: Iterable[DeviceUse], max_misses: int | None, kubelet: Hashable) -> None:
        used: dict[str, set[str]] = {}
        pods: dict[tuple[str, str], str] = {}
        for use in uses:
            if use.resource in self._names:
                used.setdefault(use.resource, set()).update(use.ids)
                pod = f"the pod {use.namespace}/{use.pod}"
                pods.update(((use.resource, grant), pod) for grant in use.ids)
        # A holding that this response does not have keeps its pod.
        held = {key for pool in self._pools.values() for key in pool}
        self._pods = {key: pod for key, pod in self._pods.items() if key in held} | pods
        for names in set(self._names.values()):
            before = self._pools.get(names[0])
            known = self._list_recent(names) if before is None else before
            after = record_usage(known, names, used, time.monotonic(), self._grace_seconds, max_misses, kubelet)
            self._pools[names[0]] = after
            if before is None or before.keys() != after.keys():
                self._on_change(names)


def _identify(socket: Path) -> Hashable:
    """Return what identifies a socket, None if it does not exist or cannot be read."""
    try:
        status = socket.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns
