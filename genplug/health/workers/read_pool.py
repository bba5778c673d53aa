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
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from genplug.hardware.host import Host
from genplug.health.status import PoolStatus
from genplug.health.workers.kept_batch import KeptBatch
from genplug.health.workers.places import Places
from genplug.health.workers.pool import CRASHED, STILL_HUNG, Deliver, WorkerPool, cannot_start, timed_out
from genplug.health.workers.process import WorkerDiedError, WorkerProcess, WorkerStartError
from genplug.health.workers.protocol import ProbeResponse, ResourceRequest
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


Confirm: TypeAlias = Callable[[Collection[int]], None]
"""Called with the indices of requests that have been run, and whose responses have not changed."""


class _KeptRun(NamedTuple):
    """A run of a batch that a worker keeps."""

    batch: KeptBatch
    confirm: Confirm


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

    async def run_each(self, requests: Sequence[ResourceRequest], deliver: Deliver) -> None:
        """Run requests, and deliver each response within its timeout, without waiting for slower requests."""
        await self._run(requests, deliver, None)

    async def run_kept(
        self, kept: KeptBatch, requests: Sequence[ResourceRequest], deliver: Deliver, confirm: Confirm
    ) -> None:
        """Run the requests of a batch as :meth:`run_each` does, but confirm responses that have not changed.

        ``deliver`` must have received the last responses of this batch with its key.
        """
        await self._run(requests, deliver, _KeptRun(kept, confirm))

    async def _run(self, requests: Sequence[ResourceRequest], deliver: Deliver, kept: "_KeptRun | None") -> None:
        holder: WorkerProcess | None = None
        if kept is not None:
            # Until all responses are known, no worker has reported them.
            holder, kept.batch.holder = kept.batch.holder, None
        waiting = list(_take_turns(requests)) if kept is None or holder is None else kept.batch.order
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
                        worker = self._take_worker(holder)
                    except WorkerStartError as error:
                        deliver(dict.fromkeys(waiting, cannot_start(str(error))))
                        break
                    batch = waiting[: self._size]
                    if len(batch) < len(requests):
                        # Some are refused, the batch is too large now, or this is the rest after a slow request.
                        kept = None
                    is_known = kept is not None and worker is holder
                    done, slow = await self._run_batch(worker, requests, batch, deliver, kept, is_known=is_known)
                    kept = None
                if slow is not None:
                    done |= {slow.index}
                    followers.create_task(self._follow(slow, requests[slow.index], deliver))
                waiting = [index for index in waiting if index not in done] if len(done) < len(waiting) else []

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

    def _refusal(self, request: ResourceRequest) -> ProbeResponse | None:
        """Return the response to a request that is not run, or None."""
        if request.request in self._hung:
            return STILL_HUNG
        if len(self._stuck) >= MAX_HUNG_WORKERS:
            reason = f"{len(self._stuck)} reads of other files hang; not run until one of them returns"
            return ProbeResponse(error=reason)
        if not self._places.is_free(request.resource):
            return ProbeResponse(error=f"not run: {self._places.shortage(request.resource, 'slow reads')}")
        return None

    def _take_worker(self, preferred: WorkerProcess | None) -> WorkerProcess:
        """Return a worker that is now busy.

        Raises:
            WorkerStartError: a worker cannot be started.
        """
        if preferred is not None and preferred in self._idle:
            self._idle.remove(preferred)
            worker = preferred
        else:
            worker = self._idle.pop() if self._idle else self._start_worker(1)
        self._busy.add(worker)
        return worker

    async def _run_batch(  # noqa: PLR0913 - a batch and its worker
        self,
        worker: WorkerProcess,
        requests: Sequence[ResourceRequest],
        batch: list[int],
        deliver: Deliver,
        kept: "_KeptRun | None",
        *,
        is_known: bool,
    ) -> tuple[set[int], _Slow | None]:
        """Run requests on a worker until one of them is slow, or the worker dies; return those with a response.

        ``is_known`` is whether the worker keeps the batch and has reported its last responses.
        """
        self._batches += 1
        number, started = self._batches, time.monotonic()
        done: set[int] = set()
        slow: _Slow | None = None
        is_reusable = False

        def collect(results: dict[int, ProbeResponse], unchanged: Collection[int] = ()) -> None:
            if unchanged and kept is not None:
                same = [batch[index] for index in unchanged]
                done.update(same)
                kept.confirm(same)
            if results:
                done.update(batch[index] for index in results)
                deliver({batch[index]: response for index, response in results.items()})

        try:
            timed = None if is_known else [(requests[index].request, requests[index].timeout) for index in batch]
            await worker.send(number, timed, kept.batch.key if kept is not None else 0)
            slow_at = await _collect_responses(worker, number, [requests[index] for index in batch], collect)
            if slow_at is not None:
                at, since = slow_at
                slow = _Slow(batch[at], worker, number, at, at == len(batch) - 1, since)
                self._slow.add(worker)
                self._places.take(requests[slow.index].resource)
            is_reusable = slow is None
            if kept is not None and is_reusable:
                kept.batch.holder, kept.batch.order = worker, batch
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

    async def _follow(self, slow: _Slow, request: ResourceRequest, deliver: Deliver) -> None:
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

    def _forget_slow(self, worker: WorkerProcess, request: ResourceRequest) -> None:
        self._slow.discard(worker)
        self._places.release(request.resource)

    async def _wait_for_return(self, worker: WorkerProcess, request: ResourceRequest) -> None:
        """Wait without a limit until a hung worker returns, then end it."""
        with suppress(WorkerDiedError):
            await worker.receive(None)
        self._hung.discard(request.request)
        self._places.release(request.resource)
        del self._stuck[worker]
        self._end_worker(worker)
        self._on_change()


def _take_turns(requests: Sequence[ResourceRequest]) -> Iterator[int]:
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
        for batch, index, response in await slow.worker.receive(remaining) or ():
            if response is not None and (batch, index) == (slow.batch, slow.index_in_batch):
                return ProbeResponse(*response)
    return None


async def _collect_responses(
    worker: WorkerProcess,
    number: int,
    requests: Sequence[ResourceRequest],
    collect: Callable[[dict[int, ProbeResponse], Collection[int]], None],
) -> tuple[int, float] | None:
    """Collect the responses to a batch, and the indices of responses that have not changed.

    Return the index and the start of a request that is slow.

    Raises:
        WorkerDiedError: the worker ended, or does not begin its work.
    """
    sent = time.monotonic()
    missing = set(range(len(requests)))
    while missing:
        index, since, limit = _current_request(worker, number, requests, sent)
        remaining = since + limit - time.monotonic()
        if remaining <= 0:
            if index is None:
                raise WorkerDiedError
            if index in missing:
                return index, since
        # In short steps: the worker may finish this request immediately, and hang in the next request.
        results = await worker.receive(min(max(remaining, 0), limit / 4, PATIENCE_SECONDS))
        own = [(at, response) for batch, at, response in results or () if batch == number]
        found = {at: ProbeResponse(*response) for at, response in own if response is not None}
        missing -= found.keys()
        stop = max((at for at, response in own if response is None), default=0)
        unchanged = missing.intersection(range(stop))
        missing -= unchanged
        collect(found, unchanged)
    return None


def _current_request(
    worker: WorkerProcess, number: int, requests: Sequence[ResourceRequest], sent: float
) -> tuple[int | None, float, float]:
    """Return the request of a batch that a worker runs (index or None), its start, and its limit (seconds)."""
    batch, index, since = worker.progress.read()
    if batch != number:
        return None, sent, _START_SECONDS
    if index >= len(requests):
        return None, since, _START_SECONDS
    return index, since, min(requests[index].timeout, PATIENCE_SECONDS)
