"""Offers: what each resource of the newest snapshot offers, less what pods hold under its other names."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from msgspec.structs import replace

from genplug.agent.alias_pools import AliasPools
from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.bounded_state import BoundedState
from genplug.agent.cdi_offers import CdiOffers
from genplug.agent.delayed_work import DelayedWork
from genplug.agent.device_lists import encode_offer
from genplug.agent.driver import DriverFollower
from genplug.agent.endpoints import REMOVED, Endpoints
from genplug.agent.settings import Settings
from genplug.agent.snapshot import Snapshot
from genplug.allocation.holders import find_held_grants
from genplug.allocation.offer import ResourceOffer, build_offer, compare_offers, count_grants, share_grants
from genplug.allocation.resource_state import ResourceState
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from genplug.kubelet.reports import CallAnswered, Report
from genplug.kubelet.wire import DeviceList
from genplug.observe.events import EventLog
from genplug.observe.health_history import HealthHistory
from genplug.observe.messages import log_offer_change, log_report
from genplug.observe.status import ListChange, Refusal, ResourceStatus
from genplug.observe.status_builder import (
    build_list_change,
    build_published_status,
    build_refusal,
    build_resource_status,
    build_template_status,
    build_unreported_status,
    build_unscanned_status,
    build_unwritten_status,
    collect_notes,
)
from genplug.spec.model import Resource, Serve

_LINES_OF_A_TURN = 4
"""Lines of allocations that are logged together; each takes about 25 µs."""
_BY_CLAIMS = "served by Dynamic Resource Allocation"
"""Why the endpoint of a resource ends that claims get from now on."""


class Offers:
    """Makes offers of snapshots, and gives them to ``endpoints``."""

    def __init__(self, settings: Settings, host: Host, paths: HungPaths, event_log: EventLog) -> None:
        self._host = host
        self._event_log = event_log
        self.health_history = HealthHistory()
        self._has_readers = settings.listen is not None
        """Whether a client can read the history."""
        self._snapshot: Snapshot | None = None
        self._notes: tuple[Snapshot, dict[str, tuple[str, ...]]] | None = None
        """Why devices of resources are not offered, with the snapshot that the reasons are from."""
        self._configured: dict[str, tuple[str, ...]] = {}
        """All names of the resource of each offered name."""
        self._claimed: set[str] = set()
        """The names of which a claim holds devices."""
        self._published: Mapping[str, Resource] = {}
        """The resources that Dynamic Resource Allocation serves."""
        self._moved: frozenset[str] = frozenset()
        """All names of these resources. Their endpoints are kept while pods use devices by the device plugin API."""
        self._names: frozenset[str] = frozenset()
        """The names under which the resources of the snapshot are offered, aliases included."""
        self._refusals: dict[str, Refusal] = {}
        """The last refused Allocate request of each resource."""
        self._changes: dict[str, ListChange] = {}
        """The last change of the device list of each resource."""
        self._built: dict[str, ResourceOffer] = {}
        """The offer of each name that the newest snapshot led to."""
        self._lists: dict[str, tuple[ResourceOffer, DeviceList]] = {}
        """The newest offer of each name that an endpoint serves, with its device list."""
        self._supply: dict[str, ResourceOffer] = {}
        """What each resource would offer if no pod held anything under its other names."""
        self.on_allocation: Callable[[str, Iterable[str]], None] = lambda _resource, _ids: None
        """Called with the name of a resource and the device IDs of an allocation, before its response is sent."""
        self.allocation_log = DelayedWork(partial(log_report, event_log), _LINES_OF_A_TURN)
        """The allocations whose lines are not in the log yet."""
        self._calls = BlockingCalls(paths, on_return=self._retry)
        self.pools = AliasPools(settings, event_log, self._on_usage_change, self._offer_pending)
        self.driver = DriverFollower(settings, host, paths, event_log, self.pools)
        self.pools.on_claims_changed = self.driver.on_claims_reported
        self.driver.hooks.on_claims_changed = self._on_claims_changed
        self.cdi = CdiOffers(settings, host, self._calls, event_log, self._on_cdi_ready)
        self.endpoints = Endpoints(settings, event_log, self._build_backend, self._on_report, self.cdi.remove)

    def __repr__(self) -> str:
        return f"<Offers [{self.endpoints!r} | {self.cdi!r} | {self._calls!r}]>"

    def update(self, snapshot: Snapshot) -> None:
        """Offer what a snapshot has; touch only what differs from the previous one."""
        self._snapshot = snapshot
        resources, published = split_by_api(snapshot.health.resources)
        self._configured = {
            offered: (name, *resource.aliases)
            for name, resource in resources.items()
            for offered in (name, *resource.aliases)
        }
        self._names = frozenset(self._configured)
        self._published = published
        self._moved = frozenset(name for resource in published.values() for name in (resource.name, *resource.aliases))
        self.pools.update_resources(resources.values(), published.values())
        devices = snapshot.health.devices
        shares = share_grants({name: count_grants(resource, devices[name]) for name, resource in resources.items()})
        for name, resource in resources.items():
            max_grants = shares[name] // (1 + len(resource.aliases))
            for offered_name in (name, *resource.aliases):
                self.endpoints.keep(offered_name)
                renamed = resource if offered_name == name else replace(resource, name=offered_name, aliases=())
                built = self._built.get(offered_name)
                offer = build_offer(renamed, devices[name], max_grants, built)
                if offer is not built or offered_name not in self.endpoints.offers:
                    self._offer(offer)
                    # Last, so that the next attempt makes an offer that could not be made.
                    self._built[offered_name] = offer
        for name in self.endpoints.offers.keys() - self._names:
            if not self.endpoints.is_removed(name):
                for known in (self._supply, self._refusals, self._changes):
                    known.pop(name, None)
                cause = _BY_CLAIMS if name in self._moved else REMOVED
                self.endpoints.remove(self.endpoints.offers[name].resource, cause)
        for name in self._built.keys() - self._names:
            del self._built[name]
        for name in self._lists.keys() - self._names - self.endpoints.offers.keys():
            del self._lists[name]
        self._claimed &= self._names
        # Last: the lists of resources that are served by claims from now on are empty.
        self.driver.update(published, devices, is_complete=_is_published_scanned(snapshot))

    def statuses(self) -> tuple[ResourceStatus, ...]:
        """Return the status of every resource, including removed resources that wait for their last pod."""
        snapshot, offers, published = self._snapshot, dict(self.endpoints.offers), dict(self.driver.offers)
        if snapshot is None:
            return ()
        without_instances = snapshot.resources_without_instances
        return (
            *map(build_unscanned_status, snapshot.scan.unscanned),
            *(
                replace(
                    build_published_status(offer, self.driver.describe(name), self._notes_of(offer)),
                    is_moved=name in offers,
                )
                for name, offer in published.items()
            ),
            *(build_template_status(name, self._collect_notes(snapshot).get(name, ())) for name in without_instances),
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
                    is_moved=name in self._moved,
                    last_change=self._changes.get(name),
                )
                for name, offer in offers.items()
                if name not in published
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
                offer = self._without_claimed(name, self.pools.remaining_offer(self._supply[name]))
                previous = self.endpoints.offers.get(name)
                change = compare_offers(previous, offer)
                log_offer_change(self._event_log, change, partial(self._notes_of, offer))
                if change.is_list_changed:
                    self._changes[name] = build_list_change(change)
                    if self._has_readers:
                        self.health_history.record(change)
                self.endpoints.publish(offer)

    def _without_claimed(self, name: str, offer: ResourceOffer) -> ResourceOffer:
        """Return an offer in which the devices that claims hold are unhealthy."""
        claims = self.driver.find_claims(self._configured.get(name, (name,)))
        held = find_held_grants(offer, claims) if claims else {}
        if held:
            self._claimed.add(name)
        else:
            self._claimed.discard(name)
        return offer.mark_unhealthy({grant: f"{claim} uses it" for grant, claim in held.items()})

    def _on_claims_changed(self) -> None:
        claimed = {name for name in self._supply if self.driver.find_claims(self._configured.get(name, (name,)))}
        self._refresh(sorted(claimed | self._claimed))

    def _on_usage_change(self, names: Iterable[str]) -> None:
        names = tuple(names)
        self._refresh(names)
        self._drain_published(names)
        if not self.driver.offers.keys().isdisjoint(names):
            self.driver.update_holders()

    def _drain_published(self, names: Iterable[str]) -> None:
        """Serve empty lists while pods use devices by an API that an earlier process has served.

        A kubelet refuses pods with a resource of which pods hold devices, and which has had no endpoint for 5 minutes
        (docs/internals/kubelet-contract.md §7.2).
        """
        for resource in filter(None, map(self._published.get, names)):
            for name in self.pools.list_used_names(resource.name):
                if name not in self._names and name not in self.endpoints.offers:
                    renamed = resource if name == resource.name else replace(resource, name=name, aliases=())
                    self.endpoints.remove(renamed, _BY_CLAIMS)

    def _offer_pending(self) -> None:
        self._refresh(sorted(self._names - self.endpoints.offers.keys()))

    def _notes_of(self, offer: ResourceOffer) -> Sequence[str]:
        collected = self._collect_notes(self._snapshot) if self._snapshot is not None else {}
        names = dict.fromkeys((offer.resource.name, offer.resource.configured_name))
        notes = (note for name in names for note in collected.get(name, ()))
        return tuple(filter(None, (offer.omission, *notes)))

    def _collect_notes(self, snapshot: Snapshot) -> Mapping[str, tuple[str, ...]]:
        """Return why devices of resources are not offered. Any thread may call this."""
        notes = self._notes
        if notes is None or notes[0] is not snapshot:
            # When they are read for the first time: few snapshots have readers.
            notes = self._notes = (snapshot, collect_notes(snapshot.inventory, snapshot.health))
        return notes[1]

    def _build_backend(self, offer: ResourceOffer) -> BoundedState:
        name = offer.resource.name
        device_list = encode_offer(offer, self._lists.get(name))
        self._lists[name] = (offer, device_list)
        return BoundedState(ResourceState(offer, self._host, self.cdi.restore), self._calls, device_list)

    def _on_report(self, report: Report) -> None:
        if isinstance(report, CallAnswered) and report.method == "Allocate" and not report.error:
            self.pools.record_allocation(report.resource, report.ids)
            self.on_allocation(report.resource, report.ids)
            self.allocation_log.add(report)
            return
        self.allocation_log.flush()
        if not isinstance(report, CallAnswered):
            log_report(self._event_log, report)
            return
        if report.method == "Allocate":
            self._refusals[report.resource] = build_refusal(report.error)
        # The event loop calls this after it has sent the response, which does not have to wait for the log.
        asyncio.get_running_loop().call_soon(log_report, self._event_log, report)

    def _retry(self) -> None:
        self.cdi.retry()


def _is_published_scanned(snapshot: Snapshot) -> bool:
    """Return whether the first scan of all resources of Dynamic Resource Allocation has finished."""
    resources = snapshot.config.resources
    return all(resources[name].serve is not Serve.DRA for name in snapshot.scan.unscanned)


def split_by_api(resources: Mapping[str, Resource]) -> tuple[dict[str, Resource], dict[str, Resource]]:
    """Return the resources that the device plugin API serves, and those of Dynamic Resource Allocation."""
    published = {name: resource for name, resource in resources.items() if resource.serve is Serve.DRA}
    return {name: resource for name, resource in resources.items() if name not in published}, published
