"""Measures how long the event loop is blocked: what blocks it delays everything that runs in it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

_PERIOD_SECONDS = 0.01
MAX_BLOCKED_SECONDS = 1.0
"""Seconds by which a busy machine does not delay the loop more than a thread; what hangs in the tests hangs longer."""


class Lateness(Struct):
    """The longest delays of a task in the loop and of a thread beside it, in seconds."""

    loop: float = 0.0
    thread: float = 0.0

    @property
    def blocked(self) -> float:
        """How long something blocked the loop, and not the whole process as a busy machine does."""
        return self.loop - self.thread


@asynccontextmanager
async def measured_loop() -> AsyncIterator[Lateness]:
    """Measure the running loop while the context is open."""
    lateness, is_over = Lateness(), threading.Event()

    async def beat() -> None:
        while True:
            due = time.monotonic() + _PERIOD_SECONDS
            await asyncio.sleep(_PERIOD_SECONDS)
            lateness.loop = max(lateness.loop, time.monotonic() - due)

    def beat_beside() -> None:
        while not is_over.is_set():
            due = time.monotonic() + _PERIOD_SECONDS
            is_over.wait(_PERIOD_SECONDS)
            lateness.thread = max(lateness.thread, time.monotonic() - due)

    thread = threading.Thread(target=beat_beside)
    thread.start()
    beating = asyncio.create_task(beat())
    try:
        yield lateness
    finally:
        beating.cancel()
        is_over.set()
        thread.join()
