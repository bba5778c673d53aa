"""Deletes ResourceSlices when a kubelet does, by a function of the test."""

import asyncio
from collections.abc import Awaitable, Callable

WIPING_SECONDS = 30.0
"""The time after which the slices of a driver that is not connected are deleted (``defaultWipingDelay``)."""


class SliceWiper:
    """Calls ``wipe`` with the name of a driver that was not connected for ``seconds``, or with None for all drivers."""

    def __init__(self, wipe: Callable[[str | None], Awaitable[None]] | None, seconds: float) -> None:
        self._wipe, self._seconds = wipe, seconds
        self._wipes: dict[str, asyncio.Task[None]] = {}

    def wipe_node(self) -> None:
        """Delete the slices of all drivers, as a starting kubelet does."""
        self._start(None, 0.0)

    def schedule(self, driver: str) -> None:
        """Delete the slices of a driver that is not connected, unless it connects within the time."""
        if driver not in self._wipes:
            self._start(driver, self._seconds)

    def cancel(self, driver: str) -> None:
        """Keep the slices of a driver that is connected."""
        if (task := self._wipes.pop(driver, None)) is not None:
            task.cancel()

    async def stop(self) -> None:
        """Cancel all deletions."""
        tasks = list(self._wipes.values())
        self._wipes.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, driver: str | None, seconds: float) -> None:
        if self._wipe is not None:
            self._wipes[driver or ""] = asyncio.create_task(self._wipe_later(self._wipe, driver, seconds))

    async def _wipe_later(
        self, wipe: Callable[[str | None], Awaitable[None]], driver: str | None, seconds: float
    ) -> None:
        await asyncio.sleep(seconds)
        await wipe(driver)
        self._wipes.pop(driver or "", None)
