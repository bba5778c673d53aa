"""A pool for requests that wait for other programs: commands, URLs, sockets.

A worker runs them concurrently in threads, and each request ends by itself at its timeout.
A call that does not end keeps its thread, and its place of :data:`MAX_CALLS`, until it returns.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from genplug.hardware.host import Host
from genplug.health.status import PoolStatus
from genplug.health.workers.places import Places
from genplug.health.workers.pool import CRASHED, STILL_HUNG, Deliver, WorkerPool, cannot_start, timed_out
from genplug.health.workers.process import WorkerDiedError, WorkerProcess, WorkerStartError
from genplug.health.workers.protocol import ProbeRequest, ProbeResponse, ResourceRequest
from genplug.spec.limits import MAX_CALLS, MAX_CALLS_PER_RESOURCE

_RESERVED_CALLS = 16
"""Places for the first calls of resources, however many calls of other resources are slow."""
_WAIT_SECONDS = 30.0
"""Time for which a call waits for a place; then the lack of places is its error."""
_GRACE_SECONDS = 1.0
"""Time after its timeout in which a call can still end by itself."""
_START_SECONDS = 10.0
"""Time within which a worker has to start; its calls begin after that."""
_START_CHECK_SECONDS = 0.25
"""Interval in which a call checks whether its worker has started."""


class CallPool(WorkerPool):
    """One worker with many threads."""

    def __init__(self, host: Host, on_change: Callable[[], None]) -> None:
        super().__init__(host, on_change)
        self._worker: WorkerProcess | None = None
        self._receiving: asyncio.Task[None] | None = None
        self._calls = 0
        self._running: dict[int, tuple[str, asyncio.Future[ProbeResponse]]] = {}
        """Calls that have a place, with their resources: they were sent and have not returned."""
        self._overdue: dict[int, ProbeRequest] = {}
        """The calls that hang."""
        self._places = Places(MAX_CALLS, MAX_CALLS_PER_RESOURCE, _RESERVED_CALLS)

    def __repr__(self) -> str:
        running, hung = len(self._running) - len(self._overdue), len(self._overdue)
        return f"<CallPool [calls: {running} running, {hung} hung | workers: {int(self._worker is not None)}]>"

    @property
    def status(self) -> PoolStatus:
        """The current status."""
        return PoolStatus(
            workers=int(self._worker is not None),
            hung=len(self._overdue),
            is_exhausted=len(self._overdue) >= MAX_CALLS,
            failed_starts=self._failed_starts,
            start_error=self._start_error,
        )

    async def run_each(self, requests: Sequence[ResourceRequest], deliver: Deliver) -> None:
        """Run requests, and deliver each response within its timeout, without waiting for slower requests."""

        async def run(index: int, request: ResourceRequest) -> None:
            deliver({index: await self._run_one(request)})

        async with asyncio.TaskGroup() as tasks:
            for index, request in enumerate(requests):
                tasks.create_task(run(index, request))

    def stop_idle(self) -> None:
        """Stop the worker if it runs no request, because no requests are expected."""
        if self._worker is not None and not self._running:
            self._drop_worker(self._worker)

    def close(self) -> None:
        """Kill the worker without waiting for calls that hang."""
        if self._receiving is not None:
            self._receiving.cancel()
        super().close()

    async def _run_one(self, pool_request: ResourceRequest) -> ProbeResponse:
        request, seconds, resource = pool_request.request, pool_request.timeout, pool_request.resource
        if request in self._hung:
            return STILL_HUNG
        if len(self._overdue) >= MAX_CALLS:
            return ProbeResponse(error=f"{len(self._overdue)} other calls hang; not run until one of them returns")
        if not await self._places.wait(resource, _WAIT_SECONDS):
            reason = self._places.shortage(resource, "calls")
            return ProbeResponse(error=f"not run for {_WAIT_SECONDS:g} s: {reason}")
        self._calls += 1
        number = self._calls
        call: asyncio.Future[ProbeResponse] = asyncio.get_running_loop().create_future()
        self._running[number] = (resource, call)
        worker: WorkerProcess | None = None
        try:
            worker = self._worker or self._start()
            await worker.send(number, [(request, seconds)])
        except WorkerStartError as error:
            self._finish(number, cannot_start(str(error)))
        except WorkerDiedError:
            self._finish(number, CRASHED)
        except BaseException:
            self._finish(number, CRASHED)
            raise
        if call.done() or worker is None or await _returns(call, worker, seconds + _GRACE_SECONDS):
            return call.result()
        # The thread is still busy: the place is released when it has finished.
        self._hung.add(request)
        self._overdue[number] = request
        self._on_change()
        return timed_out(seconds)

    def _start(self) -> WorkerProcess:
        worker = self._worker = self._start_worker(MAX_CALLS)
        self._receiving = asyncio.ensure_future(self._receive(worker))
        return worker

    async def _receive(self, worker: WorkerProcess) -> None:
        while True:
            try:
                results = await worker.receive(None)
            except WorkerDiedError:
                break
            self._record_answer()
            for number, _, response in results or ():
                if response is not None:
                    self._finish(number, ProbeResponse(*response))
        reason = self._record_death(worker)
        self._worker = None
        for number in list(self._running):
            self._finish(number, cannot_start(reason) if reason else CRASHED)

    def _drop_worker(self, worker: WorkerProcess) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
        self._end_worker(worker)
        self._worker = None

    def _finish(self, number: int, response: ProbeResponse) -> None:
        """Set the response of a call and release its place, unless the call has finished already."""
        if number not in self._running:
            return
        resource, call = self._running.pop(number)
        self._places.release(resource)
        if not call.done():
            call.set_result(response)
        if (request := self._overdue.pop(number, None)) is not None:
            self._hung.discard(request)
            self._on_change()


async def _returns(call: asyncio.Future[ProbeResponse], worker: WorkerProcess, limit: float) -> bool:
    """Return whether a call returns within ``limit`` seconds after it was sent and its worker has started."""
    sent = time.monotonic()
    end = sent + limit
    while (left := end - time.monotonic()) > 0:
        if (await asyncio.wait({call}, timeout=left))[0]:
            return True
        if worker.is_closed:
            return False
        started = worker.progress.started_at
        end = started + limit if started else min(time.monotonic() + _START_CHECK_SECONDS, sent + _START_SECONDS)
    return False
