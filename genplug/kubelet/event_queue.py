"""The queue of the events of one endpoint."""

import asyncio
import time

from genplug.kubelet.endpoint_events import Event, TimePassed
from genplug.kubelet.endpoint_state import Seconds


class EventQueue:
    """Events in the order in which they happened. Use it from one event loop."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[tuple[int | None, Event] | None] = asyncio.Queue()

    def put(self, event: Event, generation: int | None = None) -> None:
        """Add an event. It concerns the generation with this number, or any generation without a number."""
        self._items.put_nowait((generation, event))

    def close(self) -> None:
        """End the queue after the events that it contains."""
        self._items.put_nowait(None)

    async def get(self, generation: int, due: Seconds | None) -> Event | None:
        """Return the next event that concerns a generation; None at the end of the queue.

        Events of other generations are dropped: for example, a stream of a retired server can end late. If no event has
        happened by ``due`` (monotonic seconds), the result is :class:`TimePassed`.
        """
        timeout = None if due is None else max(due - time.monotonic(), 0)
        try:
            async with asyncio.timeout(timeout):
                while (item := await self._items.get()) is not None:
                    number, event = item
                    if number in (None, generation):
                        return event
        except TimeoutError:
            return TimePassed()
        return None
