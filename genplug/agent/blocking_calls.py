"""Blocking calls: functions that touch file systems run in daemon threads, and the event loop never waits for them.

Nothing ends a system call that waits in the kernel. A call that does not return in its time is given up: its thread is
lost until the call returns, and the number of lost threads is limited. The reasons for threads are in
docs/explanation/decisions/0018-bounded-discovery.md.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from genplug.hardware.hung_paths import HangError, HungPaths, Operation
from genplug.spec.limits import MAX_SCAN_SECONDS

MAX_HUNG_CALLS = 32
"""Calls that may hang before no further call is started. Each costs a thread, 16 KiB of memory."""
MAX_CALL_SECONDS = float(MAX_SCAN_SECONDS)
"""Seconds after which a function that still makes progress is stopped at its next file operation."""
RETRY_SECONDS = 1.0
"""Seconds after which ``on_return`` is called if the system could not start a thread."""
IDLE_SECONDS = 10.0
"""Seconds after which a thread without work ends."""

Result = TypeVar("Result")


class NoThreadError(HangError):
    """The system cannot start a thread, so that a function cannot run now."""


class BlockingCall(Generic[Result]):
    """A function in a thread. ``done`` gets its result; ``operation`` is what the thread is doing now."""

    def __init__(self, function: Callable[[], Result], paths: HungPaths) -> None:
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.started = time.monotonic()
        self.hung_operation: Operation | None = None
        self.has_returned = False
        self._function = function
        self._paths = paths
        self._thread: int | None = None

    @property
    def operation(self) -> Operation | None:
        """The file operation that the thread began last, None before the first."""
        return self._paths.current(self._thread) if self._thread is not None and not self.has_returned else None

    def __repr__(self) -> str:
        if self.has_returned:
            state = "done"
        else:
            operation = self.operation
            state = f"running for {time.monotonic() - self.started:.1f} s"
            state += f", {operation.access.name} {operation.path}" if operation else ""
        return f"<BlockingCall [{state}]>"

    def stop(self) -> None:
        """End the function at its next file operation: its result is not wanted."""
        if self._thread is not None:
            self._paths.stop(self._thread)

    async def wait(self, seconds: float) -> bool:
        """Return whether the function has returned, after ``seconds`` at the latest."""
        await asyncio.wait({self.done}, timeout=seconds)
        return self.done.done()

    def perform(self) -> tuple[Result | None, BaseException | None]:
        """Run the function in this thread, and return its result or its error."""
        self._thread = threading.get_ident()
        self._paths.begin(MAX_CALL_SECONDS)
        try:
            return self._function(), None
        except BaseException as error:  # noqa: BLE001 - the waiting task gets the error
            return None, error
        finally:
            self._paths.end()
            self.has_returned = True


class BlockingCalls:
    """Runs functions in daemon threads. For one event loop; ``on_return`` is called there when a hung call returns."""

    def __init__(
        self, paths: HungPaths, max_hung: int = MAX_HUNG_CALLS, on_return: Callable[[], None] = lambda: None
    ) -> None:
        self._paths = paths
        self._max_hung = max_hung
        self._on_return = on_return
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[BlockingCall[Any]] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()
        self._hung: set[BlockingCall[Any]] = set()
        self._is_retry_due = False

    def __repr__(self) -> str:
        return f"<BlockingCalls [{len(self._hung)} of at most {self._max_hung} hang, {self._idle} threads idle]>"

    @property
    def hung(self) -> int:
        """The number of calls that were given up and have not returned."""
        return len(self._hung)

    def start(self, function: Callable[[], Result]) -> BlockingCall[Result]:
        """Start a function in a thread.

        Raises:
            HangError: too many calls hang already.
            NoThreadError: the system cannot start a thread now (cgroup limit pids.max, RLIMIT_NPROC).
        """
        if len(self._hung) >= self._max_hung:
            raise HangError(f"{len(self._hung)} file operations hang, and no further thread is started")
        call = BlockingCall(function, self._paths)
        with self._lock:
            is_thread_free = self._idle > 0
            self._idle -= is_thread_free
        if not is_thread_free:
            self._start_thread()
        # After the start of the thread, so that a call without a thread is not in the queue.
        self._queue.put(call)
        return call

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="genplug-blocking", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._is_retry_due:
                self._is_retry_due = True
                self._loop.call_later(RETRY_SECONDS, self._retry)
            text = "no thread can be started; the limit of processes of the pod or the user is reached"
            raise NoThreadError(text) from None

    def _retry(self) -> None:
        self._is_retry_due = False
        self._on_return()

    async def run(self, function: Callable[[], Result], seconds: float, what: str) -> Result:
        """Return what a function returns in a thread. ``what`` names it in the error, for example "the write of x".

        Raises:
            HangError: it has not returned within ``seconds``, or it needs a path on which another thread hangs.
        """
        call = self.start(function)
        expiry = self._loop.call_later(seconds, self._expire, call, seconds, what)
        try:
            # Shielded: a cancelled caller does not end the thread, which must be counted if it hangs.
            return await asyncio.shield(call.done)
        finally:
            if call.done.done():
                expiry.cancel()

    def give_up(self, call: BlockingCall[Any], seconds: float) -> Operation | None:
        """Stop waiting for a call, and return its file operation if that has lasted for at least ``seconds``.

        Such an operation hangs, and is refused to other threads until it returns.
        """
        if call.has_returned or call in self._hung:
            return call.hung_operation
        self._hung.add(call)
        operation = call.operation
        call.stop()
        if operation is not None and time.monotonic() - operation.started >= seconds:
            call.hung_operation = operation
            self._paths.add(operation)
        return call.hung_operation

    def abandon(self, call: BlockingCall[Any], seconds: float) -> None:
        """Ignore the result of a call, which counts as hung if it has not returned after ``seconds``."""
        call.stop()
        self._loop.call_later(seconds, self.give_up, call, seconds / 2)

    def _expire(self, call: BlockingCall[Any], seconds: float, what: str) -> None:
        if call.has_returned:
            return
        operation = self.give_up(call, seconds / 2)
        late = HangError(f"{what} has not returned within {seconds:g} s", call.started)
        call.done.set_exception(operation.error if operation else late)
        # The caller may have been cancelled: then nothing retrieves the exception.
        call.done.exception()

    def _work(self) -> None:
        while True:
            try:
                call = self._queue.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    # A call that was queued at this moment counts on this thread.
                    if not self._idle:
                        continue
                    self._idle -= 1
                return
            outcome = call.perform()
            with self._lock:
                self._idle += 1
            # The loop may be closed by now: the process ends, and nothing waits for the result.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._finish, call, *outcome)

    def _finish(self, call: BlockingCall[Any], result: object, error: BaseException | None) -> None:
        if call in self._hung:
            self._hung.discard(call)
            if call.hung_operation is not None:
                self._paths.discard(call.hung_operation)
            self._on_return()
        if call.done.done():
            return
        if error is None:
            call.done.set_result(result)
        else:
            call.done.set_exception(error)
            call.done.exception()
