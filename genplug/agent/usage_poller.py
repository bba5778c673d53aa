"""Asks the kubelet which device IDs pods use, when the answer decides which ID a device has."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from genplug.agent.settings import Settings
from genplug.agent.wakeup import Wakeup
from genplug.hardware.ledger import RELEASE_SECONDS
from genplug.kubelet.client import CallError
from genplug.kubelet.pod_resources import list_devices_in_use
from genplug.observe.events import Event, EventLog

RETRY_SECONDS = 1.0
"""Seconds between two attempts while the kubelet does not respond, and a device waits for it."""
FIRST_POLL_PATIENCE_SECONDS = 1.0
"""Seconds for which the first device lists wait for the first poll, so that they are complete after a restart."""


class UsagePoller:
    """Polls the pod-resources API. ``report`` gets the IDs in use by resource, and when they were requested.

    It polls once at the start, and then when :meth:`ask` is called.
    """

    def __init__(
        self, settings: Settings, event_log: EventLog, report: Callable[[Mapping[str, Iterable[str]], float], None]
    ) -> None:
        self._settings = settings
        self._event_log = event_log
        self._report = report
        self._due = 0.0
        self._is_needed = False
        self._wakeup = Wakeup()
        self._error = ""
        self._has_polled = asyncio.Event()

    def __repr__(self) -> str:
        return f"<UsagePoller [{'needed' if self._is_needed else 'idle'} | error: {self._error or 'none'}]>"

    def ask(self, *, is_urgent: bool) -> None:
        """Poll soon if something has changed, else after some time: a pod may have ended."""
        # A report releases a lost thing only if it is newer than the list without the thing.
        seconds = RELEASE_SECONDS if is_urgent else self._settings.drain_seconds
        self._is_needed = True
        self._due = min(self._due, time.monotonic() + seconds)
        self._wakeup.set()

    async def wait_first_poll(self) -> None:
        """Return when the first poll has ended, also without a response, or after a second."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_POLL_PATIENCE_SECONDS):
                await self._has_polled.wait()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            if self._due <= time.monotonic():
                await self._poll()
            await self._wakeup.sleep_until(self._due)

    async def _poll(self) -> None:
        is_needed, self._is_needed, self._due = self._is_needed, False, float("inf")
        requested_at = time.monotonic()
        try:
            used = await list_devices_in_use(self._settings.pod_resources)
        except CallError as error:
            self._is_needed |= is_needed
            retry_seconds = RETRY_SECONDS if self._is_needed else self._settings.poll_seconds
            self._due = min(self._due, time.monotonic() + retry_seconds)
            if is_needed and str(error) != self._error:
                self._error = str(error)
                text = (
                    "cannot read which device IDs pods use, so devices whose ID depends on it are withheld until the "
                    f"kubelet responds: {error}"
                )
                self._event_log.emit(Event.POD_RESOURCES_UNAVAILABLE, text)
        else:
            self._error = ""
            self._report(used, requested_at)
        self._has_polled.set()
