"""How tests wait for what an agent writes into its journal."""

import asyncio

from genplug.agent import Agent
from genplug.observe.journal import Entry, Event


def heard(agent: Agent) -> "asyncio.Queue[Entry]":
    """What the agent writes into its journal from now on."""
    entries: asyncio.Queue[Entry] = asyncio.Queue()
    agent.journal.listen(entries.put_nowait)
    return entries


async def told(entries: "asyncio.Queue[Entry]", event: Event, words: str = "", times: int = 1) -> Entry:
    """The next entry of an event with these words in its text, or the one after so many."""
    async with asyncio.timeout(10):
        while times:
            entry = await entries.get()
            times -= entry.event is event and words in entry.text
    return entry
