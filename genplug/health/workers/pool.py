"""The base class of both pools of worker processes: starting, ending and accounting of workers.

``read_pool`` detects and abandons a hung read, ``call_pool`` a hung call.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from genplug.hardware.host import Host
from genplug.health.status import PoolStatus
from genplug.health.workers.process import WorkerProcess, WorkerStartError, cpu_seconds
from genplug.health.workers.protocol import ProbeRequest, ProbeResponse, ResourceRequest

STILL_HUNG = ProbeResponse(error="still hung from a previous run; not run again until that returns")
CRASHED = ProbeResponse(error="the probe worker crashed")

_REAP_SECONDS = 0.5
"""Time after which a killed worker is waited for."""


def timed_out(seconds: float) -> ProbeResponse:
    """Return the response to a request without an answer within its timeout."""
    return ProbeResponse(error=f"timed out after {seconds:g} s")


Deliver: TypeAlias = Callable[[Mapping[int, ProbeResponse]], None]
"""Called with responses by the index of their request, as soon as they are known."""


class WorkerPool(ABC):
    """Worker processes of one kind, started when needed. ``on_change`` is called when :attr:`status` has changed.

    A pool belongs to the event loop in which it is used.
    It does not depend on the probe monitor: any caller can use it for requests that may hang.
    """

    def __init__(self, host: Host, on_change: Callable[[], None]) -> None:
        self._host = host
        self._on_change = on_change
        self._hung: set[ProbeRequest] = set()
        """Requests in which a worker hangs."""
        self._workers: set[WorkerProcess] = set()
        """Every process that has not been waited for."""
        self._reaped_cpu_seconds = 0.0
        self._failed_starts = 0
        self._start_error = ""

    @property
    @abstractmethod
    def status(self) -> PoolStatus:
        """The current status."""

    async def run(self, requests: Sequence[ResourceRequest]) -> list[ProbeResponse]:
        """Return the responses in the order of the requests when all of them are known."""
        responses: dict[int, ProbeResponse] = {}
        await self.run_each(requests, responses.update)
        return [responses[index] for index in range(len(requests))]

    @abstractmethod
    async def run_each(self, requests: Sequence[ResourceRequest], deliver: Deliver) -> None:
        """Run requests, and deliver each response within its timeout, without waiting for slower requests.

        A timeout, a crash, a worker that cannot be started, or a resource without a place is the ``error`` of a
        response.
        """

    @abstractmethod
    def stop_idle(self) -> None:
        """Stop workers that run no request, because no requests are expected."""

    @property
    def processes(self) -> tuple[int, ...]:
        """The process IDs of the workers."""
        return tuple(worker.process.pid for worker in self._workers)

    @property
    def cpu_seconds(self) -> float:
        """The processor time that the workers have used so far."""
        return self._reaped_cpu_seconds + sum(map(cpu_seconds, self.processes))

    def close(self) -> None:
        """Kill every worker without waiting for those that hang."""
        for worker in self._workers:
            worker.close()

    def _start_worker(self, threads: int) -> WorkerProcess:
        """Start a worker.

        Raises:
            WorkerStartError: the worker cannot be started; the failure is counted and reported.
        """
        try:
            worker = WorkerProcess(self._host, threads)
        except WorkerStartError as error:
            self._record_failed_start(str(error))
            raise
        self._workers.add(worker)
        return worker

    def _record_failed_start(self, reason: str) -> None:
        self._failed_starts += 1
        self._start_error = reason
        self._on_change()

    def _record_answer(self) -> None:
        """Record that a worker has responded: workers can be started."""
        if self._start_error:
            self._start_error = ""
            self._on_change()

    def _record_death(self, worker: WorkerProcess) -> str:
        """End a worker that died; return the reason if it had not started yet, which counts as a failed start."""
        has_started = worker.progress.has_started
        self._end_worker(worker)
        if has_started:
            return ""
        status = worker.process.poll()
        reason = (
            f"it ended{'' if status is None else f' with status {status}'} while it started; see the agent's stderr"
        )
        self._record_failed_start(reason)
        return reason

    def _end_worker(self, worker: WorkerProcess) -> None:
        """Kill a worker, and wait for it later, so that it does not remain in the process table."""
        worker.close()
        asyncio.get_running_loop().call_later(_REAP_SECONDS, self._reap)

    def _reap(self) -> None:
        for worker in [worker for worker in self._workers if worker.is_closed and not worker.is_killing]:
            # An ended process is in /proc until it is waited for.
            seconds = cpu_seconds(worker.process.pid)
            if worker.process.poll() is not None:
                self._reaped_cpu_seconds += seconds
                self._workers.discard(worker)
        if any(worker.is_killing for worker in self._workers):
            asyncio.get_running_loop().call_later(_REAP_SECONDS, self._reap)


def cannot_start(reason: str) -> ProbeResponse:
    """Return the response for a worker that cannot be started."""
    return ProbeResponse(error=f"cannot start a probe worker: {reason}")
