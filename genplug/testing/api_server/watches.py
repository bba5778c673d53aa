"""Watches of the stand-in: streams of the changes of selected objects."""

import asyncio
import json
from functools import partial

from genplug.testing.api_server.connection import Exchange
from genplug.testing.api_server.kinds import Kind
from genplug.testing.api_server.statuses import ApiStatusError
from genplug.testing.api_server.store import Document, Selector, Store
from genplug.testing.condition import Condition

_WATCH_SECONDS = 1800.0
"""How long a watch lasts without ``timeoutSeconds``; the API server chooses 30 to 60 minutes."""


class Watches:
    """The open watches of a store. ``condition`` is notified after each change of the store and of the watches."""

    def __init__(self, store: Store, condition: Condition) -> None:
        self.count = 0
        """The number of open watches."""
        self._store, self._condition = store, condition
        self._ended_watches = 0
        self._bookmarks = 0

    def end_all(self) -> None:
        """End all open watches, as a server does after some minutes."""
        self._ended_watches += 1
        self._condition.notify_all()

    def send_bookmarks(self) -> None:
        """Send a bookmark to all open watches that accept bookmarks."""
        self._bookmarks += 1
        self._condition.notify_all()

    async def serve(self, exchange: Exchange, selector: Selector) -> bool:
        """Send the changes of the selected objects; return whether the connection continues.

        Without a resource version, and after the version 0, the objects are sent first as created.
        """
        query = exchange.request.query
        seconds = float(query.get("timeoutSeconds") or _WATCH_SECONDS)
        requested = int(query.get("resourceVersion") or 0)
        version, initial = requested or self._store.version, [] if requested else self._store.select(selector)
        await exchange.start_stream()
        self.count += 1
        self._condition.notify_all()
        closed = asyncio.ensure_future(exchange.wait_closed())
        sending = asyncio.ensure_future(self._send_changes(exchange, selector, version, initial))
        try:
            await asyncio.wait((closed, sending), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if closed.done():
                return False
        finally:
            for task in (closed, sending):
                task.cancel()
            await asyncio.gather(closed, sending, return_exceptions=True)
            self.count -= 1
            self._condition.notify_all()
        if query.get("allowWatchBookmarks") == "true":
            await exchange.send_part(self._encode_bookmark(selector.target.kind))
        await exchange.end_stream()
        return True

    async def _send_changes(
        self, exchange: Exchange, selector: Selector, version: int, initial: list[Document]
    ) -> None:
        query = exchange.request.query
        ended, bookmarks = self._ended_watches, self._bookmarks
        for document in initial:
            await exchange.send_part(_encode_event("ADDED", document))
        while ended == self._ended_watches:
            seen = self._state
            try:
                changes = self._store.changes_after(version)
            except ApiStatusError as error:
                await exchange.send_part(_encode_event("ERROR", error.document))
                return
            for change in changes:
                version = change.version
                if selector.matches(change.kind, change.document):
                    await exchange.send_part(_encode_event(change.type, change.document))
            if bookmarks != self._bookmarks:
                bookmarks = self._bookmarks
                if query.get("allowWatchBookmarks") == "true":
                    await exchange.send_part(self._encode_bookmark(selector.target.kind))
            await self._condition.wait_for(partial(self._has_changed, seen))

    @property
    def _state(self) -> tuple[int, int, int]:
        """The state on which watches depend."""
        return self._store.version, self._ended_watches, self._bookmarks

    def _has_changed(self, seen: tuple[int, int, int]) -> bool:
        return seen != self._state

    def _encode_bookmark(self, kind: Kind) -> bytes:
        metadata = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        return _encode_event("BOOKMARK", {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata})


def _encode_event(event: str, document: Document) -> bytes:
    return json.dumps({"type": event, "object": document}).encode() + b"\n"
