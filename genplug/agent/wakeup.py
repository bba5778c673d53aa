"""A wake-up call for a task that sleeps until its next work is due."""

import asyncio
import time


class Wakeup:
    """Ends the sleep of one task early. For one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake the task, or keep it from sleeping if it is awake."""
        self._event.set()

    async def sleep_until(self, due: float) -> None:
        """Sleep until a monotonic time, or until :meth:`set` was called since the end of the previous sleep."""
        try:
            async with asyncio.timeout(None if due == float("inf") else max(due - time.monotonic(), 0)):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()
