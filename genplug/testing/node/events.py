"""How tests and the demo wait for what an agent writes into its event_log: by event, never by time."""
# ruff: noqa: ASYNC109 - who waits says how long

import asyncio

from genplug.agent import Agent
from genplug.observe.events import Event, LogEvent


def record_events(agent: Agent) -> "asyncio.Queue[LogEvent]":
    """Return what the agent writes into its event_log from now on."""
    entries: asyncio.Queue[LogEvent] = asyncio.Queue()
    agent.event_log.listen(entries.put_nowait)
    return entries


async def next_event(
    entries: "asyncio.Queue[LogEvent]", event: Event, words: str = "", times: int = 1, timeout: float = 10
) -> LogEvent:
    """Return the next entry of an event with these words in its text, or the one after so many.

    Raises:
        TimeoutError: not within ``timeout`` seconds.
    """
    async with asyncio.timeout(timeout):
        while times:
            entry = await entries.get()
            times -= entry.event is event and words in entry.text
    return entry
