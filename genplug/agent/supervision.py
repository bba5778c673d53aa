"""Supervision: a task of the agent that fails is started again, counted and reported.

A task fails by an internal error, or because the system refuses what it needs: a file descriptor, a thread, memory, or
access to a file. The second kind is not a defect of genplug, and ends when the system grants the resource again.
"""

import asyncio
from collections.abc import Awaitable, Callable

from genplug.observe.events import Event, EventLog

RESTART_SECONDS = 1.0
"""Seconds before a task is started again after its first failure; doubled after each further internal error."""
MAX_RESTART_SECONDS = 60.0
STEADY_SECONDS = 30.0
"""Seconds without a failure after which a restarted task counts as working."""
STEADY_AFTER_SYSTEM_ERROR_SECONDS = 3.0
"""The same after an error of the system."""


def is_system_error(error: BaseException) -> bool:
    """Return whether the system refused a resource or access, so that the same step can succeed later.

    ``threading`` raises RuntimeError if the system cannot start a thread. A group is such an error if all its members
    are.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_system_error, error.exceptions))
    if isinstance(error, RuntimeError):
        return "can't start new thread" in str(error)
    return isinstance(error, OSError | MemoryError)


def describe_error(error: BaseException) -> str:
    """Return an error of the system as a text: ``Too many open files: /dev``."""
    if isinstance(error, BaseExceptionGroup):
        return describe_error(error.exceptions[0])
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"{reason}: {error.filename}" if error.filename else reason
    if isinstance(error, MemoryError):
        return "Cannot allocate memory"
    return "no thread can be started; the limit of processes of the pod or the user is reached"


class Supervised:
    """A task that is started again when it fails.

    ``failure`` states how the task failed, empty while it works; ``restarts`` counts the failures. Errors of the types
    ``fatal`` end the task, and with it the agent.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[], Awaitable[object]],
        log: EventLog,
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        self.name = name
        self.failure = ""
        self.restarts = 0
        self._run = run
        self._log = log
        self._fatal = fatal
        self._delay = RESTART_SECONDS

    def __repr__(self) -> str:
        return f"<Supervised {self.name} [{self.failure or 'running'}, {self.restarts} restarts]>"

    async def run(self) -> None:
        """Run the task until cancelled.

        Raises:
            Exception: an error of a fatal type.
        """
        loop = asyncio.get_running_loop()
        steady_seconds = STEADY_SECONDS
        while True:
            steady = loop.call_later(steady_seconds, self._recover)
            try:
                await self._run()
                error: Exception = RuntimeError("it ended")
            except self._fatal:
                raise
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # The task awaited something that was cancelled; its own cancellation was not requested.
                error = RuntimeError("it was cancelled")
            except Exception as failed:  # noqa: BLE001 - no error may end the agent
                error = failed
            finally:
                steady.cancel()
            self.restarts += 1
            if is_system_error(error):
                steady_seconds = STEADY_AFTER_SYSTEM_ERROR_SECONDS
                self._report_system_error(error)
                await asyncio.sleep(RESTART_SECONDS)
                continue
            steady_seconds = STEADY_SECONDS
            self.failure = f"the {self.name} failed and is started again: {error!r}"
            self._log.emit_failure(f"{self.failure}. This is an internal error; please report it", error)
            await asyncio.sleep(self._delay)
            self._delay = min(2 * self._delay, MAX_RESTART_SECONDS)

    def _report_system_error(self, error: Exception) -> None:
        failure = f"the {self.name} waits for the system: {describe_error(error)}"
        if failure != self.failure:
            self.failure = failure
            self._log.emit(Event.SYSTEM_ERROR, f"{failure}; it is started again every second", task=self.name)

    def _recover(self) -> None:
        if self.failure:
            self._log.emit(Event.SYSTEM_RECOVERED, f"the {self.name} works again", task=self.name)
        self.failure, self._delay = "", RESTART_SECONDS
