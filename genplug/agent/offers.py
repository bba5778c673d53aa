"""Offers: what each resource of the newest snapshot offers, less what pods hold under its other names."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from genplug.agent.alias_pools import AliasPools
from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.bounded_state import BoundedState
from genplug.agent.cdi_offers import CdiOffers
from genplug.agent.endpoints import Endpoints
from genplug.agent.settings import Settings
from genplug.agent.snapshot import Snapshot
from genplug.allocation.offer import ResourceOffer, build_offer, count_grants, share_grants
from genplug.allocation.resource_state import ResourceState
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from genplug.kubelet.reports import CallAnswered, Report
from genplug.observe.events import EventLog
from genplug.observe.health_history import HealthHistory
from genplug.observe.messages import log_offer_change, log_report
from genplug.observe.status import ListChange, Refusal, ResourceStatus
from genplug.observe.status_builder import (
    build_list_change,
    build_refusal,
    build_resource_status,
    build_template_status,
    build_unreported_status,
    build_unscanned_status,
    build_unwritten_status,
    collect_notes,
)


class Offers:
    """Makes offers of snapshots, and gives them to ``endpoints``."""

    def __init__(self, settings: Settings, host: Host, paths: HungPaths, event_log: EventLog) -> None:
        self._host = host
        self._event_log = event_log
        self.health_history = HealthHistory()
        self._has_readers = settings.listen is not None
        """Whether a client can read the history."""
        self._snapshot: Snapshot | None = None
        self._notes: dict[str, tuple[str, ...]] = {}
        self._names: frozenset[str] = frozenset()
        """The names under which the resources of the snapshot are offered, aliases included."""
        self._refusals: dict[str, Refusal] = {}
        """The last refused Allocate request of each resource."""
        self._changes: dict[str, ListChange] = {}
        """The last change of the device list of each resource."""
        self._shares: dict[str, int] = {}
        """The number of entries in the lists of each resource."""
        self._supply: dict[str, ResourceOffer] = {}
        """What each resource would offer if no pod held anything under its other names."""
        self.on_allocation: Callable[[str, Iterable[str]], None] = lambda _resource, _ids: None
        """Called with the name of a resource and the device IDs of an allocation, before its response is sent."""
        self._calls = BlockingCalls(paths, on_return=self._retry)
        self.pools = AliasPools(settings, event_log, self._refresh, self._offer_pending)
        self.cdi = CdiOffers(settings, host, self._calls, event_log, self._on_cdi_ready)
        self.endpoints = Endpoints(settings, event_log, self._build_backend, self._on_report, self.cdi.remove)

    def __repr__(self) -> str:
        return f"<Offers [{self.endpoints!r} | {self.cdi!r} | {self._calls!r}]>"

    def update(self, snapshot: Snapshot, previous: Snapshot | None) -> None:
        """Offer what a snapshot has; touch only what differs from the previous one."""
        self._snapshot = snapshot
        self._notes = collect_notes(snapshot.inventory, snapshot.health)
        resources = snapshot.health.resources
        self._names = frozenset(
            offered for name, resource in resources.items() for offered in (name, *resource.aliases)
        )
        self.pools.update_resources(resources.values())
        devices = snapshot.health.devices
        counts = {name: count_grants(resource, devices[name]) for name, resource in resources.items()}
        shares, self._shares = self._shares, share_grants(counts)
        for name, resource in resources.items():
            is_changed = previous is None or not _is_unchanged(name, previous, snapshot)
            # Another resource may have taken or left a part of the limit.
            share = self._shares[name]
            is_changed |= share < counts[name] and shares.get(name) != share
            is_changed |= share == counts[name] and self._is_limited(name)
            max_grants = share // (1 + len(resource.aliases))
            for offered_name in (name, *resource.aliases):
                self.endpoints.keep(offered_name)
                if is_changed or offered_name not in self.endpoints.offers:
                    renamed = resource if offered_name == name else replace(resource, name=offered_name, aliases=())
                    self._offer(build_offer(renamed, devices[name], max_grants))
        for name in self.endpoints.offers.keys() - self._names:
            if not self.endpoints.is_removed(name):
                self._supply.pop(name, None)
                self._refusals.pop(name, None)
                self._changes.pop(name, None)
                self.endpoints.remove(self.endpoints.offers[name].resource)

    def statuses(self) -> tuple[ResourceStatus, ...]:
        """Return the status of every resource, including removed resources that wait for their last pod."""
        snapshot, offers = self._snapshot, dict(self.endpoints.offers)
        if snapshot is None:
            return ()
        without_instances = snapshot.resources_without_instances
        return (
            *map(build_unscanned_status, snapshot.scan.unscanned),
            *(build_template_status(name, self._notes.get(name, ())) for name in without_instances),
            *(
                build_unreported_status(name) if self.pools.is_pending(name) else build_unwritten_status(name)
                for name in sorted(self._names - offers.keys())
            ),
            *(
                replace(
                    build_resource_status(
                        offer,
                        self.endpoints.status(name),
                        is_removed=self.endpoints.is_removed(name),
                        notes=self._notes_of(offer),
                        last_refusal=self._refusals.get(name),
                    ),
                    last_change=self._changes.get(name),
                )
                for name, offer in offers.items()
            ),
        )

    def _offer(self, offer: ResourceOffer) -> None:
        if offer.resource.allocate.injects_by_cdi:
            self.cdi.request(offer)
        else:
            self._set_supply(offer)

    def _on_cdi_ready(self, offer: ResourceOffer) -> None:
        if offer.resource.name in self._names:
            self._set_supply(offer)

    def _set_supply(self, offer: ResourceOffer) -> None:
        self._supply[offer.resource.name] = offer
        self._refresh((offer.resource.name,))

    def _refresh(self, names: Iterable[str]) -> None:
        """Offer what pods have left of resources."""
        for name in names:
            # An endpoint that exists continues with its offer.
            is_pending = self.pools.is_pending(name) and name not in self.endpoints.offers
            if name in self._supply and not is_pending:
                offer = self.pools.remaining_offer(self._supply[name])
                previous = self.endpoints.offers.get(name)
                log_offer_change(self._event_log, previous, offer, self._notes_of(offer))
                if previous is None or previous.listed != offer.listed:
                    self._changes[name] = build_list_change(previous, offer)
                    if self._has_readers:
                        self.health_history.record(previous, offer)
                self.endpoints.publish(offer)

    def _offer_pending(self) -> None:
        self._refresh(sorted(self._names - self.endpoints.offers.keys()))

    def _notes_of(self, offer: ResourceOffer) -> Sequence[str]:
        names = dict.fromkeys((offer.resource.name, offer.resource.configured_name))
        notes = (note for name in names for note in self._notes.get(name, ()))
        return tuple(filter(None, (offer.omission, *notes)))

    def _is_limited(self, name: str) -> bool:
        return name in self._supply and bool(self._supply[name].omission)

    def _build_backend(self, offer: ResourceOffer) -> BoundedState:
        return BoundedState(ResourceState(offer, self._host, self.cdi.restore), self._calls)

    def _on_report(self, report: Report) -> None:
        if not isinstance(report, CallAnswered):
            log_report(self._event_log, report)
            return
        if report.method == "Allocate" and report.error:
            self._refusals[report.resource] = build_refusal(report.error)
        elif report.method == "Allocate":
            self.pools.record_allocation(report.resource, report.ids)
            self.on_allocation(report.resource, report.ids)
        # The event loop calls this after it has sent the response, which does not have to wait for the log.
        asyncio.get_running_loop().call_soon(log_report, self._event_log, report)

    def _retry(self) -> None:
        self.cdi.retry()


def _is_unchanged(name: str, previous: Snapshot, snapshot: Snapshot) -> bool:
    """Return whether a resource offers the same in two snapshots; what did not change is the same object."""
    known, resource = previous.health.resources.get(name), snapshot.health.resources[name]
    if known is None or (known is not resource and known != resource):
        return False
    return previous.health.devices[name] == snapshot.health.devices[name]
