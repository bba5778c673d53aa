"""Blocking calls: results, errors, hung threads, and their limit."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from genplug.agent.blocking_calls import BlockingCalls, NoThreadError
from genplug.hardware.file_tree import Access
from genplug.hardware.hung_paths import HangError, HungPaths


@pytest.fixture
def paths() -> HungPaths:
    return HungPaths()


@pytest.fixture
async def gate() -> AsyncIterator[threading.Event]:
    """An event that a hanging function waits for; set at the end of the test, so that no thread is left."""
    gate = threading.Event()
    yield gate
    gate.set()


async def test_run_returns_the_result_of_a_thread(paths: HungPaths) -> None:
    calls = BlockingCalls(paths)
    assert await calls.run(threading.get_ident, 10, "the call") != threading.get_ident()


async def test_run_raises_the_error_of_the_function(paths: HungPaths) -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(FileNotFoundError):
        await BlockingCalls(paths).run(fail, 10, "the call")


async def test_calls_reuse_an_idle_thread(paths: HungPaths) -> None:
    calls = BlockingCalls(paths)
    threads = {await calls.run(threading.get_ident, 10, "the call") for _ in range(20)}
    assert len(threads) == 1


async def test_concurrent_calls_get_threads_of_their_own(paths: HungPaths) -> None:
    calls, together = BlockingCalls(paths), threading.Barrier(3)
    await asyncio.gather(*(calls.run(together.wait, 10, "the call") for _ in range(3)))


async def test_hung_call_raises_at_its_deadline_and_names_the_operation(
    paths: HungPaths, gate: threading.Event
) -> None:
    def read() -> None:
        paths.record(Access.READ, "/sys/x0/state")
        gate.wait()

    calls = BlockingCalls(paths)
    with pytest.raises(HangError, match=r"^read of /sys/x0/state does not return$"):
        await calls.run(read, 0.05, "the call")
    assert calls.hung == 1


async def test_hung_call_without_an_operation_is_named_by_its_caller(paths: HungPaths, gate: threading.Event) -> None:
    with pytest.raises(HangError, match=r"^reading the configuration has not returned within 0\.05 s$"):
        await BlockingCalls(paths).run(gate.wait, 0.05, "reading the configuration")


async def test_second_call_is_refused_the_hung_path_until_the_first_returns(
    paths: HungPaths, gate: threading.Event
) -> None:
    def read() -> str:
        paths.record(Access.READ, "/sys/x0/state")
        gate.wait()
        return "ok"

    returned = asyncio.Event()
    calls = BlockingCalls(paths, on_return=returned.set)
    with pytest.raises(HangError):
        await calls.run(read, 0.05, "the call")
    started = time.monotonic()
    with pytest.raises(HangError, match="read of /sys/x0/state"):
        await calls.run(read, 60, "the call")
    assert time.monotonic() - started < 30
    assert calls.hung == 1
    gate.set()
    await asyncio.wait_for(returned.wait(), 10)
    assert calls.hung == 0
    assert await calls.run(read, 10, "the call") == "ok"


async def test_no_call_starts_while_the_limit_hangs(paths: HungPaths, gate: threading.Event) -> None:
    calls = BlockingCalls(paths, max_hung=2)
    for _ in range(2):
        with pytest.raises(HangError, match="has not returned"):
            await calls.run(gate.wait, 0.05, "the call")
    with pytest.raises(HangError, match="2 file operations hang, and no further thread is started"):
        await calls.run(threading.get_ident, 10, "the call")


async def test_call_of_a_cancelled_caller_still_counts_as_hung(paths: HungPaths, gate: threading.Event) -> None:
    calls = BlockingCalls(paths)
    caller = asyncio.create_task(calls.run(gate.wait, 0.05, "the call"))
    await asyncio.sleep(0)
    caller.cancel()
    async with asyncio.timeout(10):
        # The deadline of a call has no event of its own.
        while not calls.hung:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_function_that_makes_progress_is_stopped_at_its_time_limit(
    paths: HungPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genplug.agent.blocking_calls.MAX_CALL_SECONDS", 0.05)

    def scan() -> None:
        while True:
            paths.record(Access.LIST, "/sys")

    with pytest.raises(HangError, match=r"it has not finished within 0\.05 s"):
        await BlockingCalls(paths).run(scan, 10, "the call")


async def test_threads_without_work_end(paths: HungPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genplug.agent.blocking_calls.IDLE_SECONDS", 0.01)
    calls = BlockingCalls(paths)
    thread = await calls.run(threading.current_thread, 10, "the call")
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    assert await calls.run(threading.get_ident, 10, "the call")


async def test_repr_shows_hung_calls_and_their_operation(paths: HungPaths, gate: threading.Event) -> None:
    def read() -> None:
        paths.record(Access.READ, "/sys/x0/state")
        begun.set()
        gate.wait()

    begun, calls = threading.Event(), BlockingCalls(paths)
    call = calls.start(read)
    await asyncio.to_thread(begun.wait, 10)
    assert "READ /sys/x0/state" in repr(call)
    calls.give_up(call, 0)
    assert repr(calls) == "<BlockingCalls [1 of at most 32 hang, 0 threads idle]>"


async def test_call_without_a_thread_is_a_known_error_and_is_retried(
    paths: HungPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genplug.agent.blocking_calls.RETRY_SECONDS", 0.05)
    is_retried = asyncio.Event()
    calls = BlockingCalls(paths, on_return=is_retried.set)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(100):
            with pytest.raises(NoThreadError, match="no thread can be started"):
                calls.start(time.monotonic)
    await asyncio.wait_for(is_retried.wait(), 10)
    # No call of the failed attempts is left in the queue, and none counts as hung.
    assert await calls.run(lambda: "result", 10, "the call") == "result"
    assert calls.hung == 0
