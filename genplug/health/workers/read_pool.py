"""A pool for requests that block in the kernel: reads of files, opening of device nodes.

Each worker runs one request after the other.
A read that waits in the kernel cannot be ended. A worker whose request is slow is left alone with it, and another
worker continues with the other requests, until :data:`~genplug.spec.limits.MAX_HUNG_WORKERS` wait. No resource can take
all of these places.
A request in which a worker hangs is not run again until that worker returns.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest

from msgspec import Struct

from genplug.hardware.host import Host
from genplug.health.status import PoolStatus
from genplug.health.workers.places import Places
from genplug.health.workers.pool import CRASHED, STILL_HUNG, Deliver, WorkerPool, cannot_start, timed_out
from genplug.health.workers.process import WorkerDiedError, WorkerProcess, WorkerStartError
from genplug.health.workers.protocol import PoolRequest, ProbeResponse
from genplug.spec.limits import MAX_HUNG_WORKERS, MAX_HUNG_WORKERS_PER_RESOURCE

READ_WORKERS = 2
"""Workers that run requests at the same time, besides those that wait for a slow request."""
PATIENCE_SECONDS = 0.5
"""Time after which a request is slow."""
_RESERVED_PLACES = 2
"""Places for the first slow requests of resources, however many requests of other resources are slow."""
_BATCH_SECONDS = 0.5
"""Time that a batch should take: another resource waits for it."""
_MIN_BATCH = 8
_START_SECONDS = 30.0
"""Time within which a started worker has to begin its first request, and a busy worker to send its results."""
_SPARE_SECONDS = 60.0
"""Time after which an idle worker is stopped, except the last worker."""


class _Slow(Struct, frozen=True):
    """A request that is slow: its index among all requests, its index in the batch of its worker, and its start."""

    index: int
    worker: WorkerProcess
    batch: int
    index_in_batch: int
    is_last: bool
    since: float


class ReadPool(WorkerPool):
    """Workers that run one request after the other; the shared page shows the request in which a worker hangs."""

    batch_size = 400

    def __init__(self, host: Host, on_change: Callable[[], None]) -> None:
        super().__init__(host, on_change)
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._slow: set[WorkerProcess] = set()
        self._stuck: dict[WorkerProcess, asyncio.Task[None]] = {}
        self._places = Places(MAX_HUNG_WORKERS, MAX_HUNG_WORKERS_PER_RESOURCE, _RESERVED_PLACES)
        self._slots = asyncio.Semaphore(READ_WORKERS)
        self._size = self.batch_size
        self._batches = 0

    def __repr__(self) -> str:
        working = len(self._busy) + len(self._slow)
        return f"<ReadPool [workers: {len(self._idle)} idle, {working} working, {len(self._stuck)} hung]>"

    @property
    def status(self) -> PoolStatus:
        """The current status."""
        hung = len(self._stuck)
        return PoolStatus(
            workers=len(self._idle) + len(self._busy) + len(self._slow) + hung,
            hung=hung,
            is_exhausted=hung >= MAX_HUNG_WORKERS and not self._idle and not self._busy,
            failed_starts=self._failed_starts,
            start_error=self._start_error,
        )

    async def run_each(self, requests: Sequence[PoolRequest], deliver: Deliver) -> None:
        """Run requests, and deliver each response within its timeout, without waiting for slower requests."""
        waiting = list(_take_turns(requests))
        async with asyncio.TaskGroup() as followers:
            while waiting:
                async with self._slots:
                    # Without a slow request, there is no reason to refuse any.
                    if self._hung or self._places.used:
                        refused = {index: reason for index in waiting if (reason := self._refusal(requests[index]))}
                        deliver(refused)
                        waiting = [index for index in waiting if index not in refused]
                    if not waiting:
                        break
                    try:
                        worker = self._take_worker()
                    except WorkerStartError as error:
                        deliver(dict.fromkeys(waiting, cannot_start(str(error))))
                        break
                    batch = waiting[: self._size]
                    done, slow = await self._run_batch(worker, requests, batch, deliver)
                if slow is not None:
                    done |= {slow.index}
                    followers.create_task(self._follow(slow, requests[slow.index], deliver))
                waiting = [index for index in waiting if index not in done]

    def prepare(self) -> None:
        """Start a worker, which waits for requests, unless there is one; a failure is reported at the next request."""
        if not self._workers:
            with suppress(WorkerStartError):
                self._keep_idle(self._start_worker(1))

    def stop_idle(self) -> None:
        """Stop workers that run no request, because no requests are expected."""
        while self._idle:
            self._end_worker(self._idle.pop())

    def close(self) -> None:
        """Kill every worker without waiting for those that hang."""
        for task in self._stuck.values():
            task.cancel()
        super().close()

    def _refusal(self, request: PoolRequest) -> ProbeResponse | None:
        """Return the response to a request that is not run, or None."""
        if request.request in self._hung:
            return STILL_HUNG
        if len(self._stuck) >= MAX_HUNG_WORKERS:
            reason = f"{len(self._stuck)} reads of other files hang; not run until one of them returns"
            return ProbeResponse(error=reason)
        if not self._places.is_free(request.resource):
            return ProbeResponse(error=f"not run: {self._places.shortage(request.resource, 'slow reads')}")
        return None

    def _take_worker(self) -> WorkerProcess:
        """Return a worker that is now busy.

        Raises:
            WorkerStartError: a worker cannot be started.
        """
        worker = self._idle.pop() if self._idle else self._start_worker(1)
        self._busy.add(worker)
        return worker

    async def _run_batch(
        self, worker: WorkerProcess, requests: Sequence[PoolRequest], batch: Sequence[int], deliver: Deliver
    ) -> tuple[set[int], _Slow | None]:
        """Run requests on a worker until one of them is slow, or the worker dies; return those with a response."""
        self._batches += 1
        number, started = self._batches, time.monotonic()
        done: set[int] = set()
        slow: _Slow | None = None
        is_reusable = False

        def collect(results: dict[int, ProbeResponse]) -> None:
            done.update(batch[index] for index in results)
            deliver({batch[index]: response for index, response in results.items()})

        try:
            timed = [requests[index][:2] for index in batch]
            await worker.send(number, timed)
            slow_at = await _collect_responses(worker, number, [timeout for _, timeout in timed], collect)
            if slow_at is not None:
                at, since = slow_at
                slow = _Slow(batch[at], worker, number, at, at == len(batch) - 1, since)
                self._slow.add(worker)
                self._places.take(requests[slow.index].resource)
            is_reusable = slow is None
            self._record_answer()
        except WorkerDiedError:
            its_batch, index, _ = worker.progress.read()
            if reason := self._record_death(worker):
                rest = [index for index in batch if index not in done]
                deliver(dict.fromkeys(rest, cannot_start(reason)))
                return set(batch), None
            # The request that was running may have crashed the worker: it is not run again.
            at = index if its_batch == number and index < len(batch) else 0
            if batch[at] not in done:
                collect({at: CRASHED})
        except asyncio.CancelledError:
            self._end_worker(worker)
            raise
        finally:
            self._busy.discard(worker)
            if is_reusable:
                self._keep_idle(worker)
            else:
                self._on_change()
        self._adapt_size(len(done), time.monotonic() - started)
        return done, slow

    def _adapt_size(self, count: int, seconds: float) -> None:
        """Choose the size of the next batches so that they take about :data:`_BATCH_SECONDS`."""
        fitting = int(count * _BATCH_SECONDS / max(seconds, 0.001))
        self._size = min(max(fitting, _MIN_BATCH, self._size // 2), 2 * self._size, self.batch_size)

    def _keep_idle(self, worker: WorkerProcess) -> None:
        worker.idle_since = time.monotonic()
        self._idle.append(worker)
        if len(self._idle) > 1:
            asyncio.get_running_loop().call_later(_SPARE_SECONDS, self._stop_spare)

    def _stop_spare(self) -> None:
        # The worker that became idle last is used first, so the first worker in the list is not needed.
        if len(self._idle) > 1 and time.monotonic() - self._idle[0].idle_since >= _SPARE_SECONDS:
            self._end_worker(self._idle.pop(0))

    async def _follow(self, slow: _Slow, request: PoolRequest, deliver: Deliver) -> None:
        """Deliver the response to a slow request; at its timeout, leave the worker alone until it returns."""
        worker = slow.worker
        try:
            response = await _receive_response(slow, slow.since + request.timeout)
        except WorkerDiedError:
            self._record_death(worker)
            response = CRASHED
        except asyncio.CancelledError:
            self._forget_slow(worker, request)
            self._end_worker(worker)
            raise
        if response is None:
            self._slow.discard(worker)
            self._hung.add(request.request)
            self._stuck[worker] = asyncio.ensure_future(self._wait_for_return(worker, request))
            self._on_change()
            deliver({slow.index: timed_out(request.timeout)})
            return
        self._forget_slow(worker, request)
        if response is not CRASHED and slow.is_last:
            self._keep_idle(worker)
        elif response is not CRASHED:
            # It runs the rest of its batch, which another worker runs, too.
            self._end_worker(worker)
        self._on_change()
        deliver({slow.index: response})

    def _forget_slow(self, worker: WorkerProcess, request: PoolRequest) -> None:
        self._slow.discard(worker)
        self._places.release(request.resource)

    async def _wait_for_return(self, worker: WorkerProcess, request: PoolRequest) -> None:
        """Wait without a limit until a hung worker returns, then end it."""
        with suppress(WorkerDiedError):
            await worker.receive(None)
        self._hung.discard(request.request)
        self._places.release(request.resource)
        del self._stuck[worker]
        self._end_worker(worker)
        self._on_change()


def _take_turns(requests: Sequence[PoolRequest]) -> Iterator[int]:
    """Yield the indices of requests so that resources take turns: slow requests of one do not come first."""
    by_resource: dict[str, list[int]] = defaultdict(list)
    for index, request in enumerate(requests):
        by_resource[request.resource].append(index)
    if len(by_resource) == 1:
        yield from range(len(requests))
        return
    for turn in zip_longest(*by_resource.values()):
        yield from (index for index in turn if index is not None)


async def _receive_response(slow: _Slow, deadline: float) -> ProbeResponse | None:
    """Return the response to a slow request, or None if there is none at the deadline (monotonic seconds).

    Raises:
        WorkerDiedError: the worker ended.
    """
    while (remaining := deadline - time.monotonic()) > 0:
        for batch, index, (answer, error) in await slow.worker.receive(remaining) or ():
            if (batch, index) == (slow.batch, slow.index_in_batch):
                return ProbeResponse(answer, error)
    return None


async def _collect_responses(
    worker: WorkerProcess,
    number: int,
    timeouts: Sequence[float],
    collect: Callable[[dict[int, ProbeResponse]], None],
) -> tuple[int, float] | None:
    """Collect the responses to a batch; return the index and the start of a request that is slow.

    Raises:
        WorkerDiedError: the worker ended, or does not begin its work.
    """
    sent = time.monotonic()
    missing = set(range(len(timeouts)))
    while missing:
        index, since, limit = _current_request(worker, number, timeouts, sent)
        remaining = since + limit - time.monotonic()
        if remaining <= 0:
            if index is None:
                raise WorkerDiedError
            if index in missing:
                return index, since
        # In short steps: the worker may finish this request immediately, and hang in the next request.
        results = await worker.receive(min(max(remaining, 0), limit / 4, PATIENCE_SECONDS))
        found = {at: ProbeResponse(*response) for batch, at, response in results or () if batch == number}
        if found:
            missing -= found.keys()
            collect(found)
    return None


def _current_request(
    worker: WorkerProcess, number: int, timeouts: Sequence[float], sent: float
) -> tuple[int | None, float, float]:
    """Return the request of a batch that a worker runs (index or None), its start, and its limit (seconds)."""
    batch, index, since = worker.progress.read()
    if batch != number:
        return None, sent, _START_SECONDS
    if index >= len(timeouts):
        return None, since, _START_SECONDS
    return index, since, min(timeouts[index], PATIENCE_SECONDS)
