"""Offers of resources that are injected by CDI: a device is offered once the file that defines it is written."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.cdi_writer import CdiSpec, CdiUnwritableError, CdiWriter, compose_spec
from genplug.agent.settings import Settings
from genplug.allocation.cdi_spec import file_name
from genplug.allocation.errors import failed_precondition
from genplug.allocation.offer import ResourceOffer
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError
from genplug.kubelet.client import CallError
from genplug.kubelet.pod_resources import list_devices_in_use
from genplug.observe.events import Event, EventLog

WRITE_SECONDS = 5.0
"""Seconds after which a write counts as hanging. It includes an fsync."""
RETRY_SECONDS = 1.0
"""Seconds after which a file is written again that could not be written, or that could not define a device because its
node had just changed. The file system reports no event when it can be written again."""


class CdiOffers:
    """Writes the files of offers. ``ready`` gets each offer when its file is written, or cannot be.

    The devices of an offer whose file cannot be written are unhealthy; the write is tried again.
    """

    def __init__(
        self,
        settings: Settings,
        host: Host,
        calls: BlockingCalls,
        event_log: EventLog,
        ready: Callable[[ResourceOffer], None],
    ) -> None:
        self._settings = settings
        self._host = host
        self._calls = calls
        self._event_log = event_log
        self._ready = ready
        self._writer = CdiWriter(settings.cdi_dir, host)
        self._offers: dict[str, ResourceOffer] = {}
        self._pending: dict[str, None] = {}
        self._incomplete: set[str] = set()
        """Resources whose files do not define all of their healthy devices."""
        self._errors: dict[str, str] = {}
        self._is_changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<CdiOffers [{len(self._offers)} | pending: {list(self._pending)} | errors: {self._errors}]>"

    def request(self, offer: ResourceOffer) -> None:
        """Write the file of an offer, and make the offer ready then."""
        self._offers[offer.resource.name] = offer
        self._pending[offer.resource.name] = None
        self._is_changed.set()

    def retry(self) -> None:
        """Try again to write the files that could not be written."""
        self._pending |= dict.fromkeys((*self._errors, *sorted(self._incomplete)))
        self._is_changed.set()

    def restore(self, offer: ResourceOffer, ids: Sequence[str]) -> None:
        """Ensure that the file of a resource exists and defines the devices of an offer with these IDs. For a thread.

        Raises:
            AllocationError: it cannot be written, or does not define a device.
            HangError: the file system of the directory does not respond.
        """
        name = offer.resource.name
        try:
            spec = self._writer.restore(name)
        except CdiUnwritableError as error:
            raise failed_precondition(str(error)) from None
        for device_id in ids:
            if spec is None or not spec.defines(device_id, offer.grants[device_id]):
                reason = "its CDI file does not define it as it is now; the file is written again within a second"
                raise failed_precondition(f"{name} device {device_id} cannot be allocated to a container: {reason}")

    async def remove(self, resource: str) -> None:
        """Remove the file of a resource, if there is one."""
        for known in (self._offers, self._pending, self._errors):
            known.pop(resource, None)
        self._incomplete.discard(resource)
        if self._writer.written_spec(resource) is not None:
            self._writer.forget(resource)
            await self._remove(file_name(resource))

    async def run(self) -> None:
        """Write files, and remove those of earlier processes, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write_pending())
            tasks.create_task(self._remove_stale_files())

    async def _write_pending(self) -> None:
        while True:
            while self._pending:
                name = next(iter(self._pending))
                del self._pending[name]
                if name in self._offers:
                    await self._write(self._offers[name])
            try:
                async with asyncio.timeout(self._retry_seconds):
                    await self._is_changed.wait()
            except TimeoutError:
                self.retry()
            self._is_changed.clear()

    async def _remove_stale_files(self) -> None:
        """Remove the files of earlier processes that no pod uses; return when none is left."""
        while (stale := await self._stale_files()) != frozenset():
            try:
                used = {file_name(resource) for resource in await list_devices_in_use(self._settings.pod_resources)}
            except CallError:
                used = set(stale or ())
            for name in sorted((stale or frozenset()) - used):
                await self._remove(name)
                text = f"{self._settings.cdi_dir}/{name} of an earlier genplug process is removed: no pod uses it"
                self._event_log.emit(Event.CDI_REMOVED, text)
            await asyncio.sleep(self._settings.drain_seconds)

    async def _write(self, offer: ResourceOffer) -> None:
        name = offer.resource.name
        try:
            spec = await self._calls.run(
                partial(self._compose_and_write, offer), WRITE_SECONDS, f"the write of the CDI file of {name}"
            )
        except (CdiUnwritableError, HangError) as error:
            self._report(name, str(error))
            ready = offer.mark_unhealthy(dict.fromkeys(offer.grants, str(error)))
        else:
            self._errors.pop(name, None)
            self._incomplete.discard(name)
            if spec.errors:
                self._incomplete.add(name)
            ready = offer.mark_unhealthy(spec.errors)
        if self._offers.get(name) is offer:
            self._ready(ready)

    def _compose_and_write(self, offer: ResourceOffer) -> CdiSpec:
        spec = compose_spec(offer, self._writer.written_spec(offer.resource.name), self._host)
        self._writer.write(spec)
        return spec

    @property
    def _retry_seconds(self) -> float | None:
        """The pause before the next attempt to write files, None if no write is to be repeated."""
        is_due = self._incomplete or self._errors
        return min(RETRY_SECONDS, self._settings.poll_seconds) if is_due else None

    def _report(self, resource: str, error: str) -> None:
        if self._errors.get(resource) != error:
            self._errors[resource] = error
            text = f"{resource}: {error}. Its devices are unhealthy until the file is written"
            self._event_log.emit(Event.CDI_UNWRITABLE, text, resource=resource)

    async def _stale_files(self) -> frozenset[str] | None:
        """Return the names of files that no offer has; None if that is not known."""
        try:
            found = await self._calls.run(self._writer.list_files, WRITE_SECONDS, "listing the CDI files")
        except HangError:
            return None
        return found - {file_name(resource) for resource in self._offers}

    async def _remove(self, name: str) -> None:
        try:
            await self._calls.run(partial(self._writer.remove, name), WRITE_SECONDS, f"the removal of {name}")
        except CdiUnwritableError as error:
            self._event_log.emit(Event.CDI_UNWRITABLE, str(error))
        except HangError as error:
            self._event_log.emit(Event.CDI_UNWRITABLE, f"the unused CDI file {name} cannot be removed: {error}")
