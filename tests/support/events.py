"""Recorded events of an agent; genplug.testing.node.events records them and waits for the next."""

import asyncio

from genplug.observe.events import Event, LogEvent


def drain_events(entries: "asyncio.Queue[LogEvent]") -> list[Event]:
    """Return the events that are recorded so far, and remove them from the queue."""
    return [entries.get_nowait().event for _ in range(entries.qsize())]
