"""Wait until a predicate holds. It is evaluated again after every change, never after a time."""
# ruff: noqa: ASYNC109 - a test passes its timeout with the wait

import asyncio
from collections.abc import Callable


class Condition:
    """A condition variable for one event loop."""

    def __init__(self) -> None:
        self._next_change = asyncio.Event()

    def notify_all(self) -> None:
        """Make all waiting callers evaluate their predicates again."""
        current, self._next_change = self._next_change, asyncio.Event()
        current.set()

    async def wait_for(
        self,
        predicate: Callable[[], bool],
        timeout: float | None = None,
        describe: Callable[[], str] = lambda: "the predicate does not hold",
    ) -> None:
        """Wait until a predicate holds; ``describe`` returns the state at the timeout, for the error.

        Raises:
            TimeoutError: the predicate did not hold within ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while not predicate():
                    await self._next_change.wait()
        except TimeoutError:
            raise TimeoutError(f"after {timeout} s: {describe()}") from None
