"""Hold the latest of a sequence of values, for one writer and any number of readers, without a queue.

A reader gets the value of the moment at which it reads, and misses the values that were replaced while it was busy.
A stream whose kubelet does not read therefore costs no memory, and two streams share no state.
"""

import asyncio
import time
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LatestValue(Generic[Value]):
    """A value and an event that marks its next change. Use it from one event loop."""

    def __init__(self, value: Value) -> None:
        self._value = value
        self._changed = asyncio.Event()
        self.changed_at = time.monotonic()
        """When the value was replaced last (monotonic seconds)."""

    @property
    def value(self) -> Value:
        """The latest value."""
        return self._value

    def set(self, value: Value) -> None:
        """Replace the value and wake all readers that wait for a change."""
        self._value, self.changed_at = value, time.monotonic()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def changed(self) -> asyncio.Event:
        """The event that the next change sets. Read it before ``value``, so that no change in between is missed."""
        return self._changed
