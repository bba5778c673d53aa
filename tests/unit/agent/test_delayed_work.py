"""Work that waits: its order, and when it is done."""

import asyncio

import pytest

from genplug.agent import delayed_work
from genplug.agent.delayed_work import MAX_WAITING, DelayedWork


class Works:
    """Works of three items in each turn. An item below 0 is an error."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.waiting = DelayedWork(self._work, 3)
        self._changed = asyncio.Event()

    def add(self, *items: int) -> None:
        for item in items:
            self.waiting.add(item)

    def _work(self, item: int) -> None:
        self.done.append(item)
        self._changed.set()
        if item < 0:
            raise ValueError(item)

    async def wait_for(self, count: int) -> list[int]:
        """Return the numbers of finished items after each turn, until all are finished."""
        counts = []
        async with asyncio.timeout(10):
            while len(self.done) < count:
                self._changed.clear()
                await self._changed.wait()
                counts.append(len(self.done))
        return counts


async def test_items_are_finished_later_in_their_order_a_few_in_each_turn() -> None:
    works = Works()
    works.add(*range(10))
    assert works.done == []
    assert await works.wait_for(10) == [3, 6, 9, 10]
    assert works.done == list(range(10))
    works.add(10)
    assert works.done == list(range(10))
    await works.wait_for(11)


async def test_flush_finishes_all_items_at_once() -> None:
    works = Works()
    works.add(0, 1, 2, 3)
    works.waiting.flush()
    assert works.done == [0, 1, 2, 3]
    works.add(4)
    assert works.done == [0, 1, 2, 3]
    await works.wait_for(5)


async def test_oldest_item_does_not_wait_if_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delayed_work, "DELAY_SECONDS", 60.0)
    works = Works()
    works.add(*range(MAX_WAITING))
    assert works.done == []
    works.add(MAX_WAITING, MAX_WAITING + 1)
    assert works.done == [0, 1]
    works.waiting.flush()
    assert works.done == list(range(MAX_WAITING + 2))


async def test_error_does_not_keep_later_items_from_their_work() -> None:
    works = Works()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    works.add(-1, 1, 2, 3)
    await works.wait_for(2)
    assert works.done == [-1, 3]
