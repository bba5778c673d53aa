"""Watches the device-plugins directory, manages one endpoint per resource and drains removed resources."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import evolve

from genplug.agent.alias_pools import AliasPools
from genplug.agent.cdi_writer import CdiSpecWriter
from genplug.agent.settings import Settings
from genplug.agent.snapshot import Snapshot
from genplug.allocation.offer import ResourceOffer, build_offer
from genplug.allocation.resource_state import ResourceState
from genplug.hardware.host import Host
from genplug.hardware.inotify import DirectoryWatcher
from genplug.kubelet.client import CallError
from genplug.kubelet.endpoint import Endpoint
from genplug.kubelet.events import CallAnswered, Report
from genplug.kubelet.latest_value import LatestValue
from genplug.kubelet.plugin_dir import (
    KUBELET_SOCKET,
    SOCKET_PREFIX,
    PluginDir,
    PluginDirListing,
    PluginDirReplacedError,
    PluginDirUnusableError,
)
from genplug.kubelet.pod_resources import list_devices_in_use
from genplug.kubelet.registration import Registrar
from genplug.kubelet.servicer import ResourceBackend as EndpointAnswers
from genplug.observe.events import Event, EventLog
from genplug.observe.messages import log_device_changes, log_offer_change, log_report
from genplug.observe.status import ResourceStatus
from genplug.observe.status_builder import (
    build_resource_status,
    build_template_status,
    build_unscanned_status,
    collect_notes,
)
from genplug.spec.model import Resource

LOCK_INTERVAL = 1.0
"""Seconds between two tries to take the directory from another genplug."""


class KubeletController:
    """Follows the kubelet's directory and serves what is published. One task group owns all endpoints."""

    def __init__(self, settings: Settings, host: Host, watch: DirectoryWatcher, event_log: EventLog) -> None:
        self.error = "its directory has not been looked at yet"
        self._settings = settings
        self._host = host
        self._watch = watch
        self._event_log = event_log
        self._tasks = asyncio.TaskGroup()
        self._news = asyncio.Event()
        self._directory: PluginDirListing | None = None
        self._registrar: Registrar | None = None
        self._snapshot: Snapshot | None = None
        self._whole: dict[str, ResourceOffer] = {}
        """What each resource would offer if pods had nothing of it under other names."""
        self._offers: dict[str, ResourceOffer] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._draining: dict[str, asyncio.Task[None]] = {}
        self._pools = AliasPools(settings, event_log, self._refresh_offers)
        self._cdi = CdiSpecWriter(host.locate(settings.cdi_dir), host, event_log)

    def statuses(self) -> tuple[ResourceStatus, ...]:
        """Return the status of every resource, removed ones that still wait for their pods included."""
        notes = collect_notes(self._snapshot.inventory) if self._snapshot else {}
        nameless = self._snapshot.resources_without_instances if self._snapshot else ()
        unscanned = self._snapshot.scan.unscanned if self._snapshot else ()
        without_endpoint = (
            *map(build_unscanned_status, unscanned),
            *(build_template_status(name, notes.get(name, ())) for name in nameless),
        )
        return without_endpoint + tuple(
            build_resource_status(
                offer,
                self._endpoints[name].status if name in self._endpoints else None,
                is_removed=name in self._draining,
                notes=(*notes.get(name, ()), *self._notes_as_written(offer, notes)),
            )
            for name, offer in tuple(self._offers.items())
        )

    def _notes_as_written(self, offer: ResourceOffer, notes: Mapping[str, Sequence[str]]) -> Sequence[str]:
        written = offer.resource.configured_name
        return notes.get(written, ()) if written != offer.resource.name else ()

    def publish(self, snapshot: Snapshot, before: Snapshot | None) -> None:
        """Bring what every endpoint answers up to a snapshot; touch only what differs."""
        self._snapshot = snapshot
        log_device_changes(self._event_log, before.health if before else None, snapshot.health)
        notes = collect_notes(snapshot.inventory)
        resources = snapshot.health.resources
        self._pools.update_resources(resources.values())
        for name, resource in resources.items():
            is_changed = before is None or not _is_unchanged(name, before, snapshot)
            for one in (name, *resource.aliases):
                if is_changed or one not in self._offers:
                    under = resource if one == name else evolve(resource, name=one, aliases=())
                    self._whole[one] = build_offer(under, snapshot.health.devices[name])
                    self._refresh_offers((one,), notes.get(name, ()))
                if (drain := self._draining.pop(one, None)) is not None:
                    drain.cancel()
        wanted = {one for name, resource in resources.items() for one in (name, *resource.aliases)}
        for name in self._offers.keys() - wanted - self._draining.keys():
            self._remove(self._offers[name].resource)

    async def run(self) -> None:
        """Serve until cancelled; then end every endpoint in order.

        Raises:
            PluginDirReplacedError: the directory was replaced on the host; nothing served here can be seen by a kubelet
            again.
        """
        held = await self._hold_directory()
        try:
            async with self._tasks:
                beside = [
                    self._tasks.create_task(self._pools.run(), name="pools"),
                    self._tasks.create_task(self._cdi.remove_stale_files(self._settings), name="CDI files"),
                ]
                try:
                    await self._follow_directory(held)
                finally:
                    for task in beside:
                        task.cancel()
        finally:
            held.close()

    async def _hold_directory(self) -> PluginDir:
        """Return the directory once it is usable and ours alone."""
        path = self._settings.plugins_dir
        while True:
            try:
                held = PluginDir(path)
            except PluginDirUnusableError as error:
                await self._wait_for_directory(Event.PLUGIN_DIR_UNUSABLE, str(error), self._settings.poll)
                continue
            try:
                held.check_writable()
                if held.lock():
                    leftovers = held.remove_leftovers()
                    self._event_log.emit(Event.PLUGIN_DIR_ACQUIRED, f"{path} is ours", leftovers=leftovers)
                    return held
                text = f"another genplug serves {path}; waiting for it to end (two would take each other's resources)"
                await self._wait_for_directory(Event.PLUGIN_DIR_LOCKED, text, LOCK_INTERVAL)
            except (PluginDirUnusableError, OSError) as error:
                await self._wait_for_directory(Event.PLUGIN_DIR_UNUSABLE, str(error), self._settings.poll)
            except PluginDirReplacedError:
                pass
            held.close()

    async def _wait_for_directory(self, event: Event, text: str, seconds: float) -> None:
        if text != self.error:
            self.error = text
            self._event_log.emit(event, text)
        await asyncio.sleep(seconds)

    async def _follow_directory(self, held: PluginDir) -> None:
        self._registrar = Registrar(held.path)
        self._watch.set("kubelet", {held.path}, self._directory_changed, contents=False)
        try:
            while True:
                self._news.clear()
                self._on_directory_listing(held.list_sockets())
                try:
                    async with asyncio.timeout(self._settings.poll):
                        await self._news.wait()
                except TimeoutError:
                    pass
                if self._cdi.has_error:
                    self._refresh_offers(tuple(self._whole))
        except asyncio.CancelledError:
            for drain in self._draining.values():
                drain.cancel()
            for endpoint in self._endpoints.values():
                endpoint.stop()
            # The task group now waits for the endpoints: streams closed, calls under way answered, sockets removed.

    def _directory_changed(self, _directory: Path, names: frozenset[str]) -> None:
        # The kubelet's checkpoint is rewritten here on every list and allocation: none of our business. No name at all
        # means that events were lost.
        if not names or any(name == KUBELET_SOCKET or name.startswith(SOCKET_PREFIX) for name in names):
            self._news.set()

    def _on_directory_listing(self, directory: PluginDirListing) -> None:
        before, self._directory = self._directory, directory
        if directory.kubelet is None:
            if before is None or before.kubelet is not None:
                self.error = f"{self._settings.plugins_dir / KUBELET_SOCKET} is not there: is the kubelet running?"
                self._event_log.emit(Event.KUBELET_SOCKET_MISSING, f"{self.error} Waiting for it")
        else:
            self.error = ""
            if before is not None and before.kubelet != directory.kubelet:
                self._event_log.emit(Event.KUBELET_RESTARTED, "kubelet.sock is a new one: a kubelet started")
        for endpoint in self._endpoints.values():
            endpoint.on_directory_listing(directory)
        for name, offer in self._offers.items():
            if name not in self._endpoints:
                self._serve(offer)

    def _refresh_offers(self, names: Iterable[str], notes: Sequence[str] = ()) -> None:
        """Offer what is left of resources."""
        for name in names:
            if name in self._whole:
                offer = self._cdi.write_spec(self._pools.remaining_offer(self._whole[name]))
                log_offer_change(self._event_log, self._offers.get(name), offer, notes)
                self._publish_offer(offer)

    def _publish_offer(self, offer: ResourceOffer) -> None:
        name = offer.resource.name
        if self._offers.get(name) == offer:
            return
        self._offers[name] = offer
        if name in self._endpoints:
            self._endpoints[name].update(self._build_state(offer))
        else:
            self._serve(offer)

    def _serve(self, offer: ResourceOffer) -> None:
        if self._registrar is None or self._directory is None:
            return
        answers: LatestValue[EndpointAnswers] = LatestValue(self._build_state(offer))
        name = offer.resource.name
        endpoint = Endpoint(name, answers, self._registrar, self._on_report)
        self._endpoints[name] = endpoint
        self._tasks.create_task(endpoint.run(self._directory), name=f"endpoint {name}")

    def _build_state(self, offer: ResourceOffer) -> ResourceState:
        return ResourceState(offer, self._host, self._cdi.restore)

    def _on_report(self, report: Report) -> None:
        if isinstance(report, CallAnswered) and report.method == "Allocate" and not report.error:
            self._pools.record_allocation(report.resource, report.ids)
        log_report(self._event_log, report)

    def _remove(self, resource: Resource) -> None:
        text = f"{resource.name}: no longer configured; its list is empty, its endpoint stays until no pod uses it"
        self._event_log.emit(Event.RESOURCE_REMOVED, text, resource=resource.name)
        self._whole.pop(resource.name, None)
        self._publish_offer(build_offer(resource, ()))
        if self._registrar is None:
            del self._offers[resource.name]
        else:
            self._draining[resource.name] = self._tasks.create_task(self._drain(resource.name))

    async def _drain(self, name: str) -> None:
        trouble = ""
        while True:
            # Not at once: a pod admitted a moment ago is not in the kubelet's answer yet.
            await asyncio.sleep(self._settings.drain)
            try:
                used = await list_devices_in_use(self._settings.pod_resources)
            except CallError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    text = f"{name}: cannot tell whether a pod still uses it, so its endpoint stays: {trouble}"
                    self._event_log.emit(Event.POD_RESOURCES_UNAVAILABLE, text, resource=name)
                continue
            if not used.get(name):
                break
        self._event_log.emit(Event.RESOURCE_DRAINED, f"{name}: no pod uses it; its endpoint ends", resource=name)
        self._endpoints.pop(name).stop()
        self._cdi.remove(name)
        del self._offers[name], self._draining[name]


def _is_unchanged(name: str, before: Snapshot, after: Snapshot) -> bool:
    """Say whether a resource offers the same in two snapshots; what did not change is the very same object."""
    known = before.health.resources.get(name)
    if known is None or (known is not after.health.resources[name] and known != after.health.resources[name]):
        return False
    return before.health.devices[name] == after.health.devices[name]
