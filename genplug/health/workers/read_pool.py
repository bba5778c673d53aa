"""A pool for requests that block in the kernel: reads of files, opening of device nodes.

Each worker runs one request after the other.
A read that waits in the kernel cannot be ended. A worker that hangs is therefore abandoned and replaced, until
:data:`MAX_HUNG_WORKERS` hang.
A request in which a worker hangs is not run again until that worker returns.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from genplug.hardware.host import Host
from genplug.health.status import PoolStatus
from genplug.health.workers.pool import CRASHED, STILL_HUNG, WorkerPool, cannot_start, timed_out
from genplug.health.workers.process import WorkerDiedError, WorkerProcess, WorkerStartError
from genplug.health.workers.protocol import ProbeRequest, ProbeResponse, TimedRequest

READ_WORKERS = 2
"""Workers that run requests at the same time."""
MAX_HUNG_WORKERS = 8
"""The number of hung workers from which on no other is started; each uses about 10 MiB of memory."""
_START_SECONDS = 30.0
"""Time within which a started worker has to begin its first request, and a busy worker to send its results."""
_SPARE_SECONDS = 60.0
"""Time after which an idle worker is stopped, except the last worker."""
_PROGRESS_POLL_SECONDS = 0.5


class ReadPool(WorkerPool):
    """Workers that run one request after the other; the shared page shows the request in which a worker hangs."""

    batch_size = 400

    def __init__(self, host: Host, on_change: Callable[[], None]) -> None:
        super().__init__(host, on_change)
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._stuck: dict[WorkerProcess, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(READ_WORKERS)
        self._batches = 0

    def __repr__(self) -> str:
        return f"<ReadPool [workers: {len(self._idle)} idle, {len(self._busy)} working, {len(self._stuck)} hung]>"

    @property
    def status(self) -> PoolStatus:
        """The current status."""
        hung = len(self._stuck)
        return PoolStatus(
            workers=len(self._idle) + len(self._busy) + hung,
            hung=hung,
            is_exhausted=hung >= MAX_HUNG_WORKERS and not self._idle and not self._busy,
            failed_starts=self._failed_starts,
            start_error=self._start_error,
        )

    async def run(self, requests: Sequence[TimedRequest]) -> list[ProbeResponse]:
        """Return the responses in the order of the requests, each within its timeout."""
        responses = {index: STILL_HUNG for index, (request, _) in enumerate(requests) if request in self._hung}
        while remaining := [index for index in range(len(requests)) if index not in responses]:
            async with self._slots:
                try:
                    worker = self._take_worker()
                except WorkerStartError as error:
                    responses |= dict.fromkeys(remaining, cannot_start(str(error)))
                    break
                if worker is None:
                    reason = f"{len(self._stuck)} reads of other files hang; not run until one of them returns"
                    responses |= dict.fromkeys(remaining, ProbeResponse(error=reason))
                    break
                batch = await self._run_batch(worker, [requests[index] for index in remaining])
            responses |= {remaining[index]: response for index, response in batch.items()}
        return [responses[index] for index in range(len(requests))]

    def stop_idle(self) -> None:
        """Stop workers that run no request, because no requests are expected."""
        while self._idle:
            self._end_worker(self._idle.pop())

    def close(self) -> None:
        """Kill every worker without waiting for those that hang."""
        for task in self._stuck.values():
            task.cancel()
        super().close()

    def _take_worker(self) -> WorkerProcess | None:
        """Return a worker that is now busy, or None if :data:`MAX_HUNG_WORKERS` hang.

        Raises:
            WorkerStartError: a worker cannot be started.
        """
        if not self._idle and len(self._stuck) >= MAX_HUNG_WORKERS:
            return None
        worker = self._idle.pop() if self._idle else self._start_worker(1)
        self._busy.add(worker)
        return worker

    async def _run_batch(self, worker: WorkerProcess, requests: Sequence[TimedRequest]) -> dict[int, ProbeResponse]:
        """Run requests on a worker until it hangs or dies; return at least one response, by index."""
        self._batches += 1
        number = self._batches
        responses: dict[int, ProbeResponse] = {}
        is_reusable = False
        try:
            await worker.send(number, requests)
            hung = await _collect_responses(worker, number, requests, responses)
            if hung is not None:
                request, timeout = requests[hung]
                responses[hung] = timed_out(timeout)
                self._abandon(worker, request)
            is_reusable = hung is None
            self._record_answer()
        except WorkerDiedError:
            batch, index, _ = worker.progress.read()
            if reason := self._record_death(worker):
                return dict.fromkeys(range(len(requests)), cannot_start(reason))
            # The request that was running may have crashed the worker: it is not run again.
            responses.setdefault(index if batch == number and index < len(requests) else 0, CRASHED)
        except asyncio.CancelledError:
            self._end_worker(worker)
            raise
        finally:
            self._busy.discard(worker)
            if is_reusable:
                self._keep_idle(worker)
            else:
                self._on_change()
        return responses

    def _keep_idle(self, worker: WorkerProcess) -> None:
        worker.idle_since = time.monotonic()
        self._idle.append(worker)
        if len(self._idle) > 1:
            asyncio.get_running_loop().call_later(_SPARE_SECONDS, self._stop_spare)

    def _stop_spare(self) -> None:
        # The worker that became idle last is used first, so the first worker in the list is not needed.
        if len(self._idle) > 1 and time.monotonic() - self._idle[0].idle_since >= _SPARE_SECONDS:
            self._end_worker(self._idle.pop(0))

    def _abandon(self, worker: WorkerProcess, request: ProbeRequest) -> None:
        self._hung.add(request)
        self._stuck[worker] = asyncio.ensure_future(self._wait_for_return(worker, request))

    async def _wait_for_return(self, worker: WorkerProcess, request: ProbeRequest) -> None:
        """Wait without a limit until a hung worker returns, then end it."""
        with suppress(WorkerDiedError):
            await worker.receive(None)
        self._hung.discard(request)
        del self._stuck[worker]
        self._end_worker(worker)
        self._on_change()


async def _collect_responses(
    worker: WorkerProcess, number: int, requests: Sequence[TimedRequest], responses: dict[int, ProbeResponse]
) -> int | None:
    """Collect the responses to a batch; return the index of a request that exceeds its timeout.

    Raises:
        WorkerDiedError: the worker ended, or does not begin its work.
    """
    sent = time.monotonic()
    while len(responses) < len(requests):
        index, since, limit = _current_request(worker, number, requests, sent)
        remaining = since + limit - time.monotonic()
        if remaining <= 0:
            if index is None:
                raise WorkerDiedError
            return index
        # In short steps: the worker may finish this request immediately, and hang in the next request.
        results = await worker.receive(min(remaining, limit / 4, _PROGRESS_POLL_SECONDS))
        for batch, its_index, (answer, error) in results or ():
            if batch == number:
                responses[its_index] = ProbeResponse(answer, error)
    return None


def _current_request(
    worker: WorkerProcess, number: int, requests: Sequence[TimedRequest], sent: float
) -> tuple[int | None, float, float]:
    """Return the request of a batch that a worker runs (index or None), its start, and its limit (seconds)."""
    batch, index, since = worker.progress.read()
    if batch != number:
        return None, sent, _START_SECONDS
    if index >= len(requests):
        return None, since, _START_SECONDS
    return index, since, requests[index][1]
