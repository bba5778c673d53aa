"""Work after a response that waits for later: the kubelet often calls again at once, and must not wait for it."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

DELAY_SECONDS = 0.05
"""Seconds between an item and its work."""
TURN_SECONDS = 0.001
"""Seconds between two turns of work: a call that arrives meanwhile waits for one or two turns."""
MAX_WAITING = 100
"""Items that wait. With a further item, the oldest does not wait."""

Item = TypeVar("Item")


class DelayedWork(Generic[Item]):
    """Calls ``work`` with items in their order, with some of them in each turn. It is used in one event loop."""

    def __init__(self, work: Callable[[Item], None], items_of_a_turn: int) -> None:
        self._work = work
        self._items_of_a_turn = items_of_a_turn
        self._waiting: deque[Item] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<DelayedWork [{len(self._waiting)} waiting]>"

    def add(self, item: Item) -> None:
        """Do the work of an item after a pause."""
        self._waiting.append(item)
        if len(self._waiting) > MAX_WAITING:
            self._work(self._waiting.popleft())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self._take_turn)

    def flush(self) -> None:
        """Do the work of all items now: what follows comes after it."""
        while self._waiting:
            self._work(self._waiting.popleft())

    def _take_turn(self) -> None:
        due = [self._waiting.popleft() for _ in range(min(self._items_of_a_turn, len(self._waiting)))]
        # First, so that an error does not keep the other items from their work.
        self._timer = asyncio.get_running_loop().call_later(TURN_SECONDS, self._take_turn) if self._waiting else None
        for item in due:
            self._work(item)
