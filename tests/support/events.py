"""Recorded events of an agent; genplug.testing.node.events records them and waits for the next."""

import asyncio
import time

from genplug.agent import Agent
from genplug.observe.events import Event, LogEvent


def drain_events(entries: "asyncio.Queue[LogEvent]") -> list[Event]:
    """Return the events that are recorded so far, and remove them from the queue."""
    return [entries.get_nowait().event for _ in range(entries.qsize())]


def record_times(agent: Agent, event: Event) -> list[float]:
    """Return a list of the monotonic times at which the agent logs an event from now on.

    Two of them are never closer than a pause of the agent, unlike the times at which another task receives something.
    """
    times: list[float] = []

    def add_time(entry: LogEvent) -> None:
        if entry.event is event:
            times.append(time.monotonic())

    agent.event_log.listen(add_time)
    return times
