"""Who asks the questions: worker processes, a few, that are started when needed and given up when they hang.

A question that is not answered in its time is an error of that question alone. The worker that hangs on it is left to
hang, for nothing can make a read return that waits in the kernel; another takes its location, until so many hang that
no more are started. A question is not put again while a worker hangs on it, and a late answer ends that.
"""

import asyncio
import marshal
import os
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from genplug.hardware.host import Host
from genplug.health.status import PoolStatus
from genplug.health.workers.main import LENGTH, Progress
from genplug.health.workers.protocol import ProbeRequest, ProbeResponse

Timed: TypeAlias = tuple[ProbeRequest, float]
"""A question, and the seconds that an answer may take."""

READERS = 2
"""Workers that read at the same time."""
MAX_HUNG = 8
"""Workers that may hang before no other is started; each has some 10 MiB of memory of its own."""
CALLERS = 64
"""Calls (programs, URLs, sockets) that one worker has under way at the same time, hanging ones included."""
_START_TIMEOUT_SECONDS = 30.0
"""Seconds that a worker may take to start, or to send what it has."""
_SURPLUS_IDLE_SECONDS = 60.0
"""Seconds after which a worker that was not needed ends."""
_REAP_DELAY_SECONDS = 0.5
"""Seconds after which an ended worker is waited for: it is killed, and needs no more."""
_GRACE_SECONDS = 1.0
"""Seconds after its time in which a call can still end by itself."""
_PROGRESS_POLL_SECONDS = 0.5
"""Seconds after which a worker's progress is looked at again."""
_UNANSWERED = "did not answer within {:g} s"
_STILL_HANGING = ProbeResponse(error="does not answer, and is not asked again before it does")


class WorkerDiedError(Exception):
    """A worker ended in the midst of a question."""


class WorkerProcess:
    """A worker, its socket and its page of progress."""

    def __init__(self, host: Host, threads: int) -> None:
        ours, theirs = socket.socketpair()
        page = os.memfd_create("genplug-progress")
        os.ftruncate(page, os.sysconf("SC_PAGE_SIZE"))
        command = (sys.executable, "-m", "genplug.health.workers.main", os.fspath(host.root), str(int(host.stand_ins)))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MALLOC_ARENA_MAX": "1"}
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                (*command, str(threads), str(page)), stdin=theirs.fileno(), pass_fds=(page,), env=environment
            )
            self.progress = Progress(page)
        finally:
            theirs.close()
            os.close(page)
        self.is_closed = False
        self.idle_since = 0.0
        self._socket = ours
        self._opening = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._receiving: asyncio.Task[list[tuple[int, int, tuple[Any, str]]]] | None = None

    async def send(self, number: int, questions: Sequence[Timed]) -> None:
        """Send a batch of requests."""
        _, writer = await self._opened()
        body = marshal.dumps((number, list(questions)))
        writer.write(LENGTH.pack(len(body)) + body)

    async def received(self, patience: float | None) -> list[tuple[int, int, tuple[Any, str]]] | None:
        """Return the next message, None where there is none in so many seconds.

        Raises:
            DiedError: the worker ended.
        """
        if self._receiving is None:
            self._receiving = asyncio.ensure_future(self._receive())
        # Not cancelled by the end of patience: half a message would be lost.
        done, _ = await asyncio.wait({self._receiving}, timeout=patience)
        if not done:
            return None
        receiving, self._receiving = self._receiving, None
        return receiving.result()

    async def _receive(self) -> list[tuple[int, int, tuple[Any, str]]]:
        reader, _ = await self._opened()
        try:
            length = LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]
            return marshal.loads(await reader.readexactly(length))  # type: ignore[no-any-return] # noqa: S302 - our own
        except (asyncio.IncompleteReadError, ConnectionError):
            raise WorkerDiedError from None

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with self._opening:
            if self._streams is None:
                self._streams = await asyncio.open_unix_connection(sock=self._socket)
            return self._streams

    def close(self) -> None:
        """End the worker, and wait for nothing: one that hangs in the kernel ends when that lets it."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._receiving is not None:
            self._receiving.cancel()
        if self._streams is not None:
            self._streams[1].transport.abort()
        else:
            self._socket.close()
        self.progress.close()
        with suppress(ProcessLookupError):
            self.process.kill()


class WorkerPool(ABC):
    """Workers for one kind of questions. ``changed`` is called when :attr:`status` did."""

    share: int
    """Questions that one worker is given at once."""

    def __init__(self, host: Host, changed: Callable[[], None]) -> None:
        self._host = host
        self._changed = changed
        self._hanging: set[ProbeRequest] = set()
        """Questions that somebody hangs on."""
        self._all: set[WorkerProcess] = set()
        self._spent = 0.0

    @property
    @abstractmethod
    def status(self) -> PoolStatus:
        """How it stands with the crew."""

    @abstractmethod
    async def ask(self, questions: Sequence[Timed]) -> list[ProbeResponse]:
        """Return the replies in the order of the questions, each in its time."""

    @property
    def processes(self) -> tuple[int, ...]:
        """The process IDs of the workers."""
        return tuple(one.process.pid for one in self._all)

    @abstractmethod
    def stop_idle(self) -> None:
        """End what has nothing to do: nobody asks any more."""

    def close(self) -> None:
        """End every worker, at once; what hangs is not waited for."""
        for worker in self._all:
            worker.close()

    @property
    def cpu_seconds(self) -> float:
        """The processor time that the workers have taken so far (seconds)."""
        return self._spent + sum(map(_seconds, self.processes))

    def _begun(self, threads: int) -> WorkerProcess:
        worker = WorkerProcess(self._host, threads)
        self._all.add(worker)
        return worker

    def _end(self, worker: WorkerProcess) -> None:
        """End a worker, and see to it that nothing of it stays in the table of processes."""
        worker.close()
        asyncio.get_running_loop().call_later(_REAP_DELAY_SECONDS, self._reap)

    def _reap(self) -> None:
        for one in [one for one in self._all if one.is_closed]:
            # What has ended is gone from /proc once it is waited for: its time is noted before.
            seconds = _seconds(one.process.pid)
            if one.process.poll() is not None:
                self._spent += seconds
                self._all.discard(one)


class ReadPool(WorkerPool):
    """Workers that answer one question after the other; one that hangs is found out by its progress."""

    share = 400

    def __init__(self, host: Host, changed: Callable[[], None]) -> None:
        super().__init__(host, changed)
        self._idle: list[WorkerProcess] = []
        self._working = 0
        self._stuck: dict[WorkerProcess, asyncio.Task[None]] = {}
        self._number = 0
        self._turn = asyncio.Condition()

    @property
    def status(self) -> PoolStatus:
        """How it stands with the crew."""
        hung = len(self._stuck)
        is_exhausted = hung >= MAX_HUNG and not self._idle and not self._working
        return PoolStatus(len(self._idle) + self._working + hung, hung, is_exhausted)

    async def ask(self, questions: Sequence[Timed]) -> list[ProbeResponse]:
        """Return the replies in the order of the questions, each in its time."""
        replies: dict[int, ProbeResponse] = {}
        for index, (question, _) in enumerate(questions):
            if question in self._hanging:
                replies[index] = _STILL_HANGING
        while todo := [index for index in range(len(questions)) if index not in replies]:
            worker = await self._acquire_worker()
            if worker is None:
                hung = len(self._stuck)
                error = f"nobody is left to look: {hung} workers hang; presence is still told by events"
                replies |= dict.fromkeys(todo, ProbeResponse(error=error))
                break
            for location, reply in await self._answers(worker, [questions[index] for index in todo]):
                replies[todo[location]] = reply
        return [replies[index] for index in range(len(questions))]

    def close(self) -> None:
        """End every worker, at once; what hangs is not waited for."""
        for task in self._stuck.values():
            task.cancel()
        super().close()

    def stop_idle(self) -> None:
        """End what has nothing to do: nobody asks any more."""
        while self._idle:
            self._end(self._idle.pop())

    def _stop_surplus(self) -> None:
        """End a worker that the others have had no need of for long."""
        # The last one to rest is the first to be taken.
        if len(self._idle) > 1 and time.monotonic() - self._idle[0].idle_since >= _SURPLUS_IDLE_SECONDS:
            self._end(self._idle.pop(0))

    async def _acquire_worker(self) -> WorkerProcess | None:
        """Return a worker that has nothing to do; None where all that there may be hang."""
        async with self._turn:
            await self._turn.wait_for(lambda: self._idle or self._working < READERS)
            if not self._idle and len(self._stuck) >= MAX_HUNG:
                return None
            worker = self._idle.pop() if self._idle else self._begun(1)
            self._working += 1
            return worker

    async def _answers(self, worker: WorkerProcess, questions: Sequence[Timed]) -> list[tuple[int, ProbeResponse]]:
        """Let a worker answer, as far as it gets: what comes back has each question that need not be asked again."""
        self._number += 1
        number = self._number
        got: dict[int, ProbeResponse] = {}
        is_fit = False
        try:
            await worker.send(number, questions)
            hung = await _collect_batch(worker, number, questions, got)
            if hung is not None:
                question, timeout = questions[hung]
                got[hung] = ProbeResponse(error=_UNANSWERED.format(timeout))
                self._give_up(worker, question)
            is_fit = hung is None
        except WorkerDiedError:
            # Whatever it was at may have ended it, and would end the next.
            its, index, _ = worker.progress.read()
            at = index if its == number and index < len(questions) else 0
            got.setdefault(at, ProbeResponse(error="the worker that looked died"))
            self._end(worker)
        finally:
            async with self._turn:
                self._working -= 1
                if is_fit:
                    worker.idle_since = time.monotonic()
                    self._idle.append(worker)
                    if len(self._idle) > 1:
                        asyncio.get_running_loop().call_later(_SURPLUS_IDLE_SECONDS, self._stop_surplus)
                self._turn.notify_all()
            if not is_fit:
                self._changed()
        return list(got.items())

    def _give_up(self, worker: WorkerProcess, question: ProbeRequest) -> None:
        self._hanging.add(question)
        self._stuck[worker] = asyncio.ensure_future(self._waited_for(worker, question))

    async def _waited_for(self, worker: WorkerProcess, question: ProbeRequest) -> None:
        """Wait, for ever if need be, until a worker that hangs does not any more."""
        with suppress(WorkerDiedError):
            await worker.received(None)
        self._hanging.discard(question)
        del self._stuck[worker]
        self._end(worker)
        async with self._turn:
            self._turn.notify_all()
        self._changed()


class CallPool(WorkerPool):
    """One worker with many threads, for what waits for others: programs, URLs, sockets."""

    share = 1 << 20

    def __init__(self, host: Host, changed: Callable[[], None]) -> None:
        super().__init__(host, changed)
        self._worker: WorkerProcess | None = None
        self._receiving: asyncio.Task[None] | None = None
        self._number = 0
        self._waiting: dict[int, asyncio.Future[ProbeResponse]] = {}
        self._overdue: dict[int, ProbeRequest] = {}
        self._places = asyncio.Semaphore(CALLERS)

    @property
    def status(self) -> PoolStatus:
        """How it stands with the crew."""
        return PoolStatus(int(self._worker is not None), len(self._overdue), len(self._overdue) >= CALLERS)

    async def ask(self, questions: Sequence[Timed]) -> list[ProbeResponse]:
        """Return the replies in the order of the questions, each in its time."""
        return list(await asyncio.gather(*(self._asked(question, seconds) for question, seconds in questions)))

    def close(self) -> None:
        """End the worker, at once; what hangs is not waited for."""
        if self._receiving is not None:
            self._receiving.cancel()
        super().close()

    def stop_idle(self) -> None:
        """End what has nothing to do: nobody asks any more."""
        if self._worker is not None and self._receiving is not None and not self._waiting:
            self._receiving.cancel()
            self._end(self._worker)
            self._worker = None

    async def _asked(self, question: ProbeRequest, seconds: float) -> ProbeResponse:
        if question in self._hanging:
            return _STILL_HANGING
        if self.status.is_exhausted:
            return ProbeResponse(error=f"nobody is left to ask: {len(self._overdue)} calls hang")
        await self._places.acquire()
        self._number += 1
        number = self._number
        future: asyncio.Future[ProbeResponse] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        if self._worker is None:
            self._worker = self._begun(CALLERS)
            self._receiving = asyncio.ensure_future(self._receive(self._worker))
        await self._worker.send(number, [(question, seconds)])
        done, _ = await asyncio.wait({future}, timeout=seconds + _GRACE_SECONDS)
        if done:
            return future.result()
        # Its thread is still at it: the place is free again when that is over.
        self._hanging.add(question)
        self._overdue[number] = question
        self._changed()
        return ProbeResponse(error=_UNANSWERED.format(seconds))

    async def _receive(self, worker: WorkerProcess) -> None:
        while True:
            try:
                message = await worker.received(None)
            except WorkerDiedError:
                break
            for number, _, reply in message or ():
                self._on_response(number, ProbeResponse(*reply))
        self._end(worker)
        self._worker = None
        for number in list(self._waiting):
            self._on_response(number, ProbeResponse(error="the worker that looked died"))

    def _on_response(self, number: int, reply: ProbeResponse) -> None:
        self._places.release()
        future = self._waiting.pop(number)
        if not future.done():
            future.set_result(reply)
        if (question := self._overdue.pop(number, None)) is not None:
            self._hanging.discard(question)
            self._changed()


def _seconds(process: int) -> float:
    """Return the processor time of a process (proc_pid_stat(5): utime and stime), 0 where there is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _collect_batch(
    worker: WorkerProcess, number: int, questions: Sequence[Timed], got: dict[int, ProbeResponse]
) -> int | None:
    """Collect answers to a batch; return the index of a question that is not answered in its time.

    Raises:
        DiedError: the worker ended, or does not get to its work.
    """
    began = time.monotonic()
    while len(got) < len(questions):
        index, since, limit = _current_request(worker, number, questions, began)
        left = since + limit - time.monotonic()
        if left <= 0:
            if index is None:
                raise WorkerDiedError
            return index
        # Not all that is left: it may be done with this question in no time, and hang on the next.
        message = await worker.received(min(left, limit / 4, _PROGRESS_POLL_SECONDS))
        if message is not None:
            got |= {its_index: ProbeResponse(*reply) for its, its_index, reply in message if its == number}
    return None


def _current_request(
    worker: WorkerProcess, number: int, questions: Sequence[Timed], began: float
) -> tuple[int | None, float, float]:
    """Return which question of a batch a worker is at (None: at none), since when, and how long it may be."""
    its, index, since = worker.progress.read()
    if its != number:
        return None, began, _START_TIMEOUT_SECONDS
    if index >= len(questions):
        return None, since, _START_TIMEOUT_SECONDS
    return index, since, questions[index][1]
