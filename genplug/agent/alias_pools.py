"""The pools of a node: who has what of devices with several names, followed by answers and by pod-resources."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from genplug.agent.settings import Settings
from genplug.allocation.alias_pool import Pool, record_allocation, record_usage, without_held
from genplug.allocation.offer import ResourceOffer
from genplug.kubelet.client import CallError
from genplug.kubelet.pod_resources import list_devices_in_use
from genplug.observe.events import Event, EventLog
from genplug.spec.model import Resource

FIRST_LOOK = 1.0
"""Seconds between two tries to hear of a pool for the first time: until then nothing of it is given."""
LOOKS_OF_GRACE = 3
"""So many looks may miss a pod that was given something."""


class AliasPools:
    """Follows the pools; ``changed`` is called with the names of resources whose offers are others now."""

    def __init__(self, settings: Settings, event_log: EventLog, changed: Callable[[Iterable[str]], None]) -> None:
        self._settings = settings
        self._event_log = event_log
        self._changed = changed
        self._names: Mapping[str, tuple[str, ...]] = {}
        """Every name of a pool to all names of it, the configuration's own first."""
        self._pools: dict[str, Pool] = {}
        self._news = asyncio.Event()
        self._trouble = ""

    def update_resources(self, resources: Iterable[Resource]) -> None:
        """Take note of which resources have several names."""
        pools = [(one.name, *one.aliases) for one in resources if one.aliases]
        self._names = {name: names for names in pools for name in names}
        self._pools = {names[0]: self._pools[names[0]] for names in pools if names[0] in self._pools}
        self._news.set()

    def remaining_offer(self, offer: ResourceOffer) -> ResourceOffer:
        """Return what is left of an offer for others."""
        names = self._names.get(offer.resource.name)
        return offer if names is None else without_held(offer, self._pools.get(names[0]))

    def record_allocation(self, name: str, ids: Iterable[str]) -> None:
        """Take note of an answer to Allocate, before anything else is answered."""
        if (names := self._names.get(name)) is not None and names[0] in self._pools:
            self._pools[names[0]] = record_allocation(self._pools[names[0]], name, ids, time.monotonic())
            self._changed(other for other in names if other != name)
            self._news.set()

    async def run(self) -> None:
        """Ask for the devices of pods while somebody has any of a pool, until cancelled."""
        while True:
            waiting = self._waiting()
            self._news.clear()
            try:
                async with asyncio.timeout(waiting):
                    await self._news.wait()
                if waiting is not None:
                    # What was given a moment ago is not in the kubelet's answer yet.
                    await asyncio.sleep(waiting)
            except TimeoutError:
                pass
            if self._names:
                await self._poll()

    def _waiting(self) -> float | None:
        """Return how long nothing can have changed that only a look would tell; None for ever."""
        if any(names[0] not in self._pools for names in self._names.values()):
            return FIRST_LOOK if self._trouble else 0.0
        return self._settings.drain if any(self._pools.values()) else None

    async def _poll(self) -> None:
        try:
            used = await list_devices_in_use(self._settings.pod_resources)
        except CallError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                text = f"cannot tell under which name pods have the devices of aliases, so no other gets them: {error}"
                self._event_log.emit(Event.POD_RESOURCES_UNAVAILABLE, text)
            return
        self._trouble = ""
        for names in set(self._names.values()):
            before = self._pools.get(names[0])
            after = record_usage(before or {}, names, used, time.monotonic(), LOOKS_OF_GRACE * self._settings.drain)
            self._pools[names[0]] = after
            if before is None or before.keys() != after.keys():
                self._changed(names)
