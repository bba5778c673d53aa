"""The kubelet's side: holds its folder, keeps one endpoint per resource, and lets removed resources go when unused."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import evolve

from genplug.agent.alias_pools import Pools
from genplug.agent.cdi_writer import CdiFiles
from genplug.agent.node import Snapshot
from genplug.agent.settings import Settings
from genplug.allocation.offer import ResourceOffer
from genplug.allocation.offers import offered
from genplug.allocation.resource_state import Answers
from genplug.hardware.host import Host
from genplug.hardware.inotify import FolderWatch
from genplug.kubelet.client import CallError
from genplug.kubelet.endpoint import Endpoint
from genplug.kubelet.events import Allocated, Report
from genplug.kubelet.latest_value import Latest
from genplug.kubelet.plugin_dir import KUBELET_SOCKET, PREFIX, Folder, FolderGoneError, FolderUnusableError, HeldFolder
from genplug.kubelet.pod_resources import devices_in_use
from genplug.kubelet.registration import Registrar
from genplug.kubelet.servicer import Answers as EndpointAnswers
from genplug.observe.events import Event, Journal
from genplug.observe.messages import (
    nameless_status,
    offer_notes,
    resource_status,
    tell_devices,
    tell_offer,
    tell_report,
)
from genplug.observe.status import ResourceStatus
from genplug.spec.model import Resource

LOCK_INTERVAL = 1.0
"""Seconds between two tries to take the folder from another genplug."""


class KubeletFollower:
    """Follows the kubelet's folder and serves what is published. One task group owns all endpoints."""

    def __init__(self, settings: Settings, host: Host, watch: FolderWatch, journal: Journal) -> None:
        self.trouble = "its folder has not been looked at yet"
        self._settings = settings
        self._host = host
        self._watch = watch
        self._journal = journal
        self._tasks = asyncio.TaskGroup()
        self._news = asyncio.Event()
        self._folder: Folder | None = None
        self._registrar: Registrar | None = None
        self._snapshot: Snapshot | None = None
        self._whole: dict[str, ResourceOffer] = {}
        """What each resource would offer if pods had nothing of it under other names."""
        self._offers: dict[str, ResourceOffer] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._draining: dict[str, asyncio.Task[None]] = {}
        self._pools = Pools(settings, journal, self._offer_again)
        self._cdi = CdiFiles(host.place(settings.cdi_dir), host, journal)

    def statuses(self) -> tuple[ResourceStatus, ...]:
        """Return the status of every resource, removed ones that still wait for their pods included."""
        notes = offer_notes(self._snapshot.inventory) if self._snapshot else {}
        nameless = self._snapshot.nameless if self._snapshot else ()
        return tuple(nameless_status(name, notes.get(name, ())) for name in nameless) + tuple(
            resource_status(
                name,
                self._endpoints[name].generation if name in self._endpoints else None,
                offer,
                is_removed=name in self._draining,
                notes=(*notes.get(name, ()), *self._notes_as_written(offer, notes)),
            )
            for name, offer in tuple(self._offers.items())
        )

    def _notes_as_written(self, offer: ResourceOffer, notes: Mapping[str, Sequence[str]]) -> Sequence[str]:
        written = offer.resource.written_name
        return notes.get(written, ()) if written != offer.resource.name else ()

    def publish(self, snapshot: Snapshot, before: Snapshot | None) -> None:
        """Bring what every endpoint answers up to a snapshot; touch only what differs."""
        self._snapshot = snapshot
        tell_devices(self._journal, before.judgement if before else None, snapshot.judgement)
        notes = offer_notes(snapshot.inventory)
        resources = snapshot.judgement.resources
        self._pools.follow(resources.values())
        for name, resource in resources.items():
            is_changed = before is None or not _is_alike(name, before, snapshot)
            for one in (name, *resource.aliases):
                if is_changed or one not in self._offers:
                    under = resource if one == name else evolve(resource, name=one, aliases=())
                    self._whole[one] = offered(under, snapshot.judgement.devices[name])
                    self._offer_again((one,), notes.get(name, ()))
                if (drain := self._draining.pop(one, None)) is not None:
                    drain.cancel()
        wanted = {one for name, resource in resources.items() for one in (name, *resource.aliases)}
        for name in self._offers.keys() - wanted - self._draining.keys():
            self._remove(self._offers[name].resource)

    async def run(self) -> None:
        """Serve until cancelled; then end every endpoint in order.

        Raises:
            FolderGoneError: the folder was replaced on the host; nothing served here can be seen by a kubelet again.
        """
        held = await self._hold_folder()
        try:
            async with self._tasks:
                beside = [
                    self._tasks.create_task(self._pools.run(), name="pools"),
                    self._tasks.create_task(self._cdi.clean(self._settings), name="CDI files"),
                ]
                try:
                    await self._follow_folder(held)
                finally:
                    for task in beside:
                        task.cancel()
        finally:
            held.close()

    async def _hold_folder(self) -> HeldFolder:
        """Return the folder once it is usable and ours alone."""
        path = self._settings.plugins_dir
        while True:
            try:
                held = HeldFolder(path)
            except FolderUnusableError as error:
                await self._wait_for_folder(Event.FOLDER_UNUSABLE, str(error), self._settings.poll)
                continue
            try:
                held.check_writable()
                if held.lock():
                    leftovers = held.remove_leftovers()
                    self._journal.write(Event.FOLDER_HELD, f"{path} is ours", leftovers=leftovers)
                    return held
                text = f"another genplug serves {path}; waiting for it to end (two would take each other's resources)"
                await self._wait_for_folder(Event.FOLDER_LOCKED, text, LOCK_INTERVAL)
            except (FolderUnusableError, OSError) as error:
                await self._wait_for_folder(Event.FOLDER_UNUSABLE, str(error), self._settings.poll)
            except FolderGoneError:
                pass
            held.close()

    async def _wait_for_folder(self, event: Event, text: str, seconds: float) -> None:
        if text != self.trouble:
            self.trouble = text
            self._journal.write(event, text)
        await asyncio.sleep(seconds)

    async def _follow_folder(self, held: HeldFolder) -> None:
        self._registrar = Registrar(held.path)
        self._watch.set("kubelet", {held.path}, self._folder_changed, contents=False)
        try:
            while True:
                self._news.clear()
                self._see(held.look())
                try:
                    async with asyncio.timeout(self._settings.poll):
                        await self._news.wait()
                except TimeoutError:
                    pass
                if self._cdi.has_trouble:
                    self._offer_again(tuple(self._whole))
        except asyncio.CancelledError:
            for drain in self._draining.values():
                drain.cancel()
            for endpoint in self._endpoints.values():
                endpoint.stop()
            # The task group now waits for the endpoints: streams closed, calls under way answered, sockets removed.

    def _folder_changed(self, _folder: Path, names: frozenset[str]) -> None:
        # The kubelet's checkpoint is rewritten here on every list and allocation: none of our business. No name at all
        # means that events were lost.
        if not names or any(name == KUBELET_SOCKET or name.startswith(PREFIX) for name in names):
            self._news.set()

    def _see(self, folder: Folder) -> None:
        before, self._folder = self._folder, folder
        if folder.kubelet is None:
            if before is None or before.kubelet is not None:
                self.trouble = f"{self._settings.plugins_dir / KUBELET_SOCKET} is not there: is the kubelet running?"
                self._journal.write(Event.KUBELET_GONE, f"{self.trouble} Waiting for it")
        else:
            self.trouble = ""
            if before is not None and before.kubelet != folder.kubelet:
                self._journal.write(Event.KUBELET_RESTARTED, "kubelet.sock is a new one: a kubelet started")
        for endpoint in self._endpoints.values():
            endpoint.see(folder)
        for name, offer in self._offers.items():
            if name not in self._endpoints:
                self._serve(offer)

    def _offer_again(self, names: Iterable[str], notes: Sequence[str] = ()) -> None:
        """Offer what is left of resources."""
        for name in names:
            if name in self._whole:
                offer = self._cdi.written(self._pools.left(self._whole[name]))
                tell_offer(self._journal, self._offers.get(name), offer, notes)
                self._offer(offer)

    def _offer(self, offer: ResourceOffer) -> None:
        name = offer.resource.name
        if self._offers.get(name) == offer:
            return
        self._offers[name] = offer
        if name in self._endpoints:
            self._endpoints[name].update(self._answers(offer))
        else:
            self._serve(offer)

    def _serve(self, offer: ResourceOffer) -> None:
        if self._registrar is None or self._folder is None:
            return
        answers: Latest[EndpointAnswers] = Latest(self._answers(offer))
        name = offer.resource.name
        endpoint = Endpoint(name, answers, self._registrar, self._reported)
        self._endpoints[name] = endpoint
        self._tasks.create_task(endpoint.run(self._folder), name=f"endpoint {name}")

    def _answers(self, offer: ResourceOffer) -> Answers:
        return Answers(offer, self._host, self._cdi.restore)

    def _reported(self, report: Report) -> None:
        if isinstance(report, Allocated) and not report.refusal:
            self._pools.given(report.resource, report.ids)
        tell_report(self._journal, report)

    def _remove(self, resource: Resource) -> None:
        text = f"{resource.name}: no longer configured; its list is empty, its endpoint stays until no pod uses it"
        self._journal.write(Event.RESOURCE_REMOVED, text, resource=resource.name)
        self._whole.pop(resource.name, None)
        self._offer(offered(resource, ()))
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
                used = await devices_in_use(self._settings.pod_resources)
            except CallError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    text = f"{name}: cannot tell whether a pod still uses it, so its endpoint stays: {trouble}"
                    self._journal.write(Event.PODS_UNKNOWN, text, resource=name)
                continue
            if not used.get(name):
                break
        self._journal.write(Event.RESOURCE_DRAINED, f"{name}: no pod uses it; its endpoint ends", resource=name)
        self._endpoints.pop(name).stop()
        self._cdi.remove(name)
        del self._offers[name], self._draining[name]


def _is_alike(name: str, before: Snapshot, after: Snapshot) -> bool:
    """Say whether a resource offers the same in two snapshots; what did not change is the very same object."""
    known = before.judgement.resources.get(name)
    if known is None or (known is not after.judgement.resources[name] and known != after.judgement.resources[name]):
        return False
    return before.judgement.devices[name] == after.judgement.devices[name]
