"""Waiting for a claim to become true, woken by whoever changes something and never by a clock."""
# ruff: noqa: ASYNC109 - a test says how long it waits where it waits

import asyncio
from collections.abc import Callable


class Condition:
    """Tells every waiter that something changed; for one event loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify_all(self) -> None:
        """Wake all waiters, to look again."""
        current, self._next = self._next, asyncio.Event()
        current.set()

    async def wait_for(
        self, claim: Callable[[], bool], timeout: float | None = None, missing: Callable[[], str] | None = None
    ) -> None:
        """Wait until a claim holds; ``missing`` says at the time what did not come, for the error.

        Raises:
            TimeoutError: it did not hold within ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while not claim():
                    await self._next.wait()
        except TimeoutError:
            raise TimeoutError(f"after {timeout} s: {missing() if missing else 'nothing changed'}") from None
