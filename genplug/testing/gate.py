"""A gate blocks a call of a stand-in until the test opens it.

The test can wait until a call has reached the gate, so it needs no sleep to know that the call hangs.
"""
# ruff: noqa: ASYNC109 - a test passes its timeout with the wait

from typing import Self

from genplug.testing.condition import Condition


class Gate:
    """A gate at which calls wait. It opens for a number of calls, or for all of them when the context ends."""

    def __init__(self) -> None:
        self.arrived = 0
        """The number of calls that have reached the gate."""
        self._passes: float = 0
        self._condition = Condition()

    async def pass_through(self) -> None:
        """Wait until the gate is open for this call."""
        self.arrived += 1
        self._condition.notify_all()
        await self._condition.wait_for(lambda: self._passes > 0)
        self._passes -= 1

    async def wait_reached(self, times: int = 1, timeout: float = 30) -> None:
        """Wait until a number of calls have reached the gate.

        Raises:
            TimeoutError: fewer calls reached it within ``timeout`` seconds.
        """
        await self._condition.wait_for(
            lambda: self.arrived >= times, timeout, lambda: f"{self.arrived} of {times} calls have reached the gate"
        )

    def open(self, times: float = float("inf")) -> None:
        """Open the gate for a number of calls, including calls that arrive later; without a number, for all calls."""
        self._passes += times
        self._condition.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.open()
