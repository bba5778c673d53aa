"""The events of the status page: the sections that changed, for each page that is open.

Nothing runs while no page is open. A change is noticed by an event of the agent, or by a poll; the state is built once
for all pages, at most once per :data:`MIN_SECONDS`. A page that reads slowly gets the newest state only.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from msgspec import Struct

from genplug.observe.page.content import Clock, Entries, build_sections, build_title, describe_changes
from genplug.observe.page.document import read_code
from genplug.observe.page.elements import render_json
from genplug.observe.status import Status

MAX_PAGES = 4
"""Pages with events at the same time; each of them has a connection of the server."""
MIN_SECONDS = 1.0
"""The shortest time between two states."""
POLL_SECONDS = 5.0
"""The time after which the state is built without an event: no event reports that a pod has ended."""
HEARTBEAT_SECONDS = 15.0
"""The time after which an event without content shows the page that the connection works."""
_RETRY_MILLISECONDS = 3000


class _State(Struct, frozen=True):
    """A state of the page: its sections as JSON, and the number of the last change that it can contain."""

    status: Status
    sections: dict[str, str]
    title: str
    change: int
    built_at: float


class LivePages:
    """Builds the events of all open pages. Used in the event loop of the HTTP server."""

    def __init__(self, read: Callable[[], Awaitable[tuple[Status, Entries]]]) -> None:
        """``read`` returns the current status and history."""
        self._read = read
        self._pages = 0
        self._state: _State | None = None
        self._lock = asyncio.Lock()
        self._change = 0
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether a page is open. Any thread may read this."""
        return self._pages > 0

    def open_page(self) -> "LivePage | None":
        """Return the events of a new page, or None if there are too many pages. The caller must close them."""
        if self._pages >= MAX_PAGES:
            return None
        self._pages += 1
        return LivePage(self)

    def mark_changed(self) -> None:
        """Build a new state soon, because an event was emitted."""
        self._change += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def close_page(self) -> None:
        """Count a page that is closed; without any, the state is freed."""
        self._pages -= 1
        if not self._pages:
            self._state = None

    async def wait_change(self, change: int) -> None:
        """Return when there is a change after ``change``, or it is time to poll."""
        if self._change == change:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._changed.wait()

    async def build_state(self, previous: _State | None) -> _State:
        """Return a state that is newer than ``previous``; another page may have built it already.

        A change since it was built ends :meth:`wait_change` at once.
        """
        async with self._lock:
            state = self._state
            if state is not None and state is not previous:
                return state
            if state is not None:
                await asyncio.sleep(state.built_at + MIN_SECONDS - time.monotonic())
            change = self._change
            status, entries = await self._read()
            now = time.monotonic()
            sections = build_sections(status, entries, Clock(time.time(), now))
            texts = {section_id: render_json(section) for section_id, section in sections}
            self._state = _State(status, texts, build_title(status), change, now)
            return self._state


class LivePage:
    """The events of an open page."""

    def __init__(self, pages: LivePages) -> None:
        self._pages = pages
        self._is_closed = False

    def close(self) -> None:
        """Make room for another page."""
        if not self._is_closed:
            self._is_closed = True
            self._pages.close_page()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield events: all sections first, then those that change, and heartbeats."""
        state: _State | None = None
        yield f"retry: {_RETRY_MILLISECONDS}\n\n".encode()
        sent_at = time.monotonic()
        while True:
            previous, state = state, await self._pages.build_state(state)
            if event := _encode_update(previous, state):
                yield event
                sent_at = time.monotonic()
            elif time.monotonic() - sent_at >= HEARTBEAT_SECONDS:
                yield b"event: alive\ndata: {}\n\n"
                sent_at = time.monotonic()
            await self._pages.wait_change(state.change)


def _encode_update(previous: _State | None, current: _State) -> bytes:
    """Return the event that turns a page into the current state; empty if it has the state already."""
    known = previous.sections if previous is not None else {}
    changed = {name: text for name, text in current.sections.items() if known.get(name) != text}
    if not changed and list(known) == list(current.sections):
        return b""
    fields = {
        "page": read_code().checksum,
        "title": current.title,
        "order": list(current.sections),
        "news": describe_changes(previous.status, current.status) if previous is not None else "",
    }
    sections = ",".join(f"{json.dumps(name)}:{text}" for name, text in changed.items())
    # JSON in ASCII has no newline, which would end the event.
    return f'event: update\ndata: {json.dumps(fields)[:-1]},"sections":{{{sections}}}}}\n\n'.encode("ascii")
