"""Supervision: a task of the agent that fails by an internal error is started again, counted and reported."""

import asyncio
from collections.abc import Awaitable, Callable

from genplug.observe.events import EventLog

RESTART_SECONDS = 1.0
"""Seconds before a task is started again after its first failure; doubled after each further one."""
MAX_RESTART_SECONDS = 60.0


STEADY_SECONDS = 30.0
"""Seconds without a failure after which a restarted task counts as working."""


class Supervised:
    """A task that is started again when it fails.

    ``failure`` says how the task failed, empty while it works; ``restarts`` counts the failures.
    """

    def __init__(self, name: str, run: Callable[[], Awaitable[object]], log: EventLog) -> None:
        self.name = name
        self.failure = ""
        self.restarts = 0
        self._run = run
        self._log = log
        self._delay = RESTART_SECONDS

    def __repr__(self) -> str:
        return f"<Supervised {self.name} [{self.failure or 'running'}, {self.restarts} restarts]>"

    async def run(self) -> None:
        """Run the task until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            steady = loop.call_later(STEADY_SECONDS, self._recover)
            try:
                await self._run()
                error: Exception = RuntimeError("it ended")
            except Exception as failed:  # noqa: BLE001 - an internal error must not end the agent
                error = failed
            finally:
                steady.cancel()
            self.restarts += 1
            self.failure = f"the {self.name} failed and is started again: {error!r}"
            self._log.emit_failure(f"{self.failure}. This is an internal error; please report it", error)
            await asyncio.sleep(self._delay)
            self._delay = min(2 * self._delay, MAX_RESTART_SECONDS)

    def _recover(self) -> None:
        self.failure, self._delay = "", RESTART_SECONDS
