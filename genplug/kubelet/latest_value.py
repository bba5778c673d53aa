"""The newest of a value that changes: one writer, any number of readers, no queue.

A reader gets what is there when it looks; what came and went while it was busy, it never sees. So a stream whose
kubelet does not read costs nothing, and a second stream shares no state with the first.
"""

import asyncio
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LatestValue(Generic[Value]):
    """A value and the news that it changed; for one event loop."""

    def __init__(self, value: Value) -> None:
        self._value = value
        self._changed = asyncio.Event()

    @property
    def value(self) -> Value:
        """The newest value."""
        return self._value

    def set(self, value: Value) -> None:
        """Replace the value and wake whoever waits."""
        self._value = value
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def changed(self) -> asyncio.Event:
        """The event of the next change. Take it before the value, and no change in between is missed."""
        return self._changed
