"""The CDI files of a node: written whole or not at all, restored where somebody removed them, removed when unused.

Container runtimes read the directory's ``*.json`` whenever it changes and whenever they miss a name (contract 8).
"""

import asyncio
import os
from pathlib import Path

from genplug.agent.settings import Settings
from genplug.allocation.allocate import allocate_edits
from genplug.allocation.cdi_spec import file_name, is_ours, spec_text
from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.allocation.offer import Grant, ResourceOffer
from genplug.hardware.host import Host
from genplug.kubelet.client import CallError
from genplug.kubelet.pod_resources import list_devices_in_use
from genplug.observe.events import Event, EventLog


class CdiUnwritableError(Exception):
    """A CDI file cannot be written; the text says which and what to do."""


class CdiSpecWriter:
    """Writes and removes genplug's CDI files, one for each resource that is injected by CDI."""

    def __init__(self, directory: Path, host: Host, event_log: EventLog) -> None:
        self._directory = directory
        self._host = host
        self._event_log = event_log
        self._edits: dict[str, dict[str, tuple[Grant, ContainerEdits]]] = {}
        self._texts: dict[str, str] = {}
        self._written: dict[str, tuple[str, int]] = {}
        self._trouble: dict[str, str] = {}

    def write_spec(self, offer: ResourceOffer) -> ResourceOffer:
        """Write the file of an offer that asks for one, and return what can be offered then."""
        name = offer.resource.name
        if not offer.resource.allocate.injects_by_cdi:
            return offer
        edits = self._edits_of(offer)
        text = spec_text(name, {one: known for one, (_, known) in edits.items()})
        if text is None:
            return offer
        self._texts[name] = text
        try:
            self._write(name, text)
        except CdiUnwritableError as error:
            if self._trouble.get(name) != str(error):
                self._trouble[name] = str(error)
                self._event_log.emit(
                    Event.CDI_UNWRITABLE, f"{error}. Its devices are not given until then", resource=name
                )
            return offer.mark_unhealthy(dict.fromkeys(offer.grants, str(error)))
        self._trouble.pop(name, None)
        return offer

    @property
    def has_error(self) -> bool:
        """Whether a file could not be written the last time."""
        return bool(self._trouble)

    def restore(self, resource: str) -> None:
        """Write a resource's file again if it is not there any more.

        Raises:
            Refusal: it cannot be written.
        """
        try:
            self._write(resource, self._texts[resource])
        except CdiUnwritableError as error:
            raise AllocationError(AllocationErrorCode.FAILED_PRECONDITION, str(error)) from None

    def remove(self, resource: str) -> None:
        """Remove a resource's file, if there is one."""
        self._edits.pop(resource, None)
        self._texts.pop(resource, None)
        self._written.pop(resource, None)
        self._trouble.pop(resource, None)
        self._remove(file_name(resource))

    async def remove_stale_files(self, settings: Settings) -> None:
        """Remove what an earlier process left and no pod uses; ask until that is known of all of it."""
        while leftovers := self._leftovers():
            try:
                used = {file_name(one) for one in await list_devices_in_use(settings.pod_resources)}
            except CallError:
                used = leftovers
            for name in sorted(leftovers - used):
                self._remove(name)
                text = f"{self._directory / name} of an earlier genplug is removed: no pod uses it"
                self._event_log.emit(Event.CDI_REMOVED, text)
            await asyncio.sleep(settings.drain)

    def _edits_of(self, offer: ResourceOffer) -> dict[str, tuple[Grant, ContainerEdits]]:
        """Return what is in the file: of a device that is not well what was there before, for it may be in use."""
        before = self._edits.get(offer.resource.name, {})
        edits = {}
        for one, grant in offer.grants.items():
            known = before.get(one)
            if known is not None and (known[0].devices == grant.devices or not grant.healthy):
                edits[one] = known
            elif grant.healthy:
                try:
                    edits[one] = (grant, allocate_edits(offer, [one], self._host))
                except AllocationError:
                    # The next scan finds what is wrong with it; Allocate refuses it until then.
                    continue
        self._edits[offer.resource.name] = edits
        return edits

    def _write(self, resource: str, text: str) -> None:
        path = self._directory / file_name(resource)
        if self._written.get(resource) == (text, _inode(path)):
            return
        # Another ending: a runtime that looks meanwhile does not take it for a spec.
        new = path.with_suffix(".new")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with new.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError as error:
            what = f"the CDI file {path} of {resource} cannot be written: {error.strerror}"
            advice = "let genplug write there (the chart's daemonset.cdiSpecDir), or write 'inject: nodes'"
            raise CdiUnwritableError(f"{what}; {advice}") from None
        self._written[resource] = (text, _inode(path))

    def _leftovers(self) -> set[str]:
        try:
            names = os.listdir(self._directory)  # noqa: PTH208 - names, not paths
        except OSError:
            return set()
        return {name for name in names if is_ours(name)} - {file_name(one) for one in self._texts}

    def _remove(self, name: str) -> None:
        try:
            (self._directory / name).unlink(missing_ok=True)
        except OSError as error:
            text = f"the CDI file {self._directory / name} of nobody cannot be removed: {error.strerror}"
            self._event_log.emit(Event.CDI_UNWRITABLE, text)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
