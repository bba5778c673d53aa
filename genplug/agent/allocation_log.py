"""Logs allocations some time after their responses: the kubelet often calls again at once, and must not wait for it."""

import asyncio
from collections import deque

from genplug.kubelet.reports import CallAnswered
from genplug.observe.events import EventLog
from genplug.observe.messages import log_report

DELAY_SECONDS = 0.05
"""Seconds between a response and its line in the log."""
MAX_WAITING = 256
"""Allocations that wait for their lines. After a further allocation, all of them are logged at once."""
_LINES_OF_A_TURN = 16
"""Lines that are logged in a turn of the event loop. Each takes about 25 µs, and a call may wait for it."""


class AllocationLog:
    """Logs allocations in their order. It is used in the event loop of the agent."""

    def __init__(self, event_log: EventLog) -> None:
        self._event_log = event_log
        self._waiting: deque[CallAnswered] = deque()

    def __repr__(self) -> str:
        return f"<AllocationLog [{len(self._waiting)} waiting]>"

    def add(self, report: CallAnswered) -> None:
        """Log an allocation soon."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(DELAY_SECONDS, self._log_some)
        self._waiting.append(report)
        if len(self._waiting) > MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        """Log what waits now: what is logged next comes after it."""
        while self._waiting:
            log_report(self._event_log, self._waiting.popleft())

    def _log_some(self) -> None:
        for _ in range(min(_LINES_OF_A_TURN, len(self._waiting))):
            log_report(self._event_log, self._waiting.popleft())
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._log_some)
