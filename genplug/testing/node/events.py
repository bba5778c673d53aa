"""How tests and the demo wait for what an agent writes into its journal: by event, never by time."""
# ruff: noqa: ASYNC109 - who waits says how long

import asyncio

from genplug.agent import Agent
from genplug.observe.events import Entry, Event


def heard(agent: Agent) -> "asyncio.Queue[Entry]":
    """Return what the agent writes into its journal from now on."""
    entries: asyncio.Queue[Entry] = asyncio.Queue()
    agent.journal.listen(entries.put_nowait)
    return entries


async def told(
    entries: "asyncio.Queue[Entry]", event: Event, words: str = "", times: int = 1, timeout: float = 10
) -> Entry:
    """Return the next entry of an event with these words in its text, or the one after so many.

    Raises:
        TimeoutError: not within ``timeout`` seconds.
    """
    async with asyncio.timeout(timeout):
        while times:
            entry = await entries.get()
            times -= entry.event is event and words in entry.text
    return entry
