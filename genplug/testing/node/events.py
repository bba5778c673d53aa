"""Wait for events in the log of an agent."""
# ruff: noqa: ASYNC109 - a test passes its timeout with the wait

import asyncio

from genplug.agent import Agent
from genplug.observe.events import Event, LogEvent

_MAX_SHOWN = 20


def record_events(agent: Agent) -> "asyncio.Queue[LogEvent]":
    """Return a queue of the events that the agent logs from now on."""
    entries: asyncio.Queue[LogEvent] = asyncio.Queue()
    agent.event_log.listen(entries.put_nowait)
    return entries


async def next_event(
    entries: "asyncio.Queue[LogEvent]", event: Event, words: str = "", times: int = 1, timeout: float = 30
) -> LogEvent:
    """Return the next entry of an event whose text contains ``words``; with ``times``, the entry with that number.

    Raises:
        TimeoutError: there was no such entry within ``timeout`` seconds. The message contains the last entries.
    """
    skipped: list[str] = []
    try:
        async with asyncio.timeout(timeout):
            while times:
                entry = await entries.get()
                times -= entry.event is event and words in entry.text
                skipped.append(f"{entry.event.code}: {entry.text}")
    except TimeoutError:
        found = "".join(f"\n  {line}" for line in skipped[-_MAX_SHOWN:]) or " none"
        expected = f"{event.code} with {words!r} in its text" if words else event.code
        raise TimeoutError(f"after {timeout} s: expected an event {expected}, found:{found}") from None
    return entry
