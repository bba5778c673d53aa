"""Supervision: a task that fails by an internal error is started again, counted and reported."""

import asyncio

import pytest

from genplug.agent.supervision import Supervised
from genplug.observe.events import Event, EventLog, LogEvent


@pytest.fixture
def log() -> EventLog:
    return EventLog()


async def test_failed_task_is_started_again_and_logged(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genplug.agent.supervision.RESTART_SECONDS", 0.01)
    events: list[LogEvent] = []
    log.listen(events.append)
    restarted = asyncio.Event()

    async def fail_once() -> None:
        if not task.restarts:
            raise ValueError("a bug")
        restarted.set()
        await asyncio.Event().wait()

    task = Supervised("device scanner", fail_once, log)
    running = asyncio.create_task(task.run())
    await asyncio.wait_for(restarted.wait(), 10)
    assert task.failure == "the device scanner failed and is started again: ValueError('a bug')"
    assert repr(task) == f"<Supervised device scanner [{task.failure}, 1 restarts]>"
    assert [event.event for event in events] == [Event.INTERNAL_ERROR]
    assert "device scanner" in events[0].text
    running.cancel()


async def test_restarted_task_counts_as_working_after_a_while(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genplug.agent.supervision.RESTART_SECONDS", 0.01)
    monkeypatch.setattr("genplug.agent.supervision.STEADY_SECONDS", 0.05)

    async def fail_once() -> None:
        if not task.restarts:
            raise ValueError("a bug")
        await asyncio.Event().wait()

    task = Supervised("device scanner", fail_once, log)
    running = asyncio.create_task(task.run())
    async with asyncio.timeout(10):
        # No event reports that time has passed without a failure.
        while not task.restarts or task.failure:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert task.restarts == 1
    running.cancel()


async def test_task_that_awaits_a_cancelled_task_counts_as_failed(log: EventLog) -> None:
    failed = asyncio.Event()
    log.listen(lambda _: failed.set())

    async def await_cancelled() -> None:
        inner = asyncio.create_task(asyncio.Event().wait())
        inner.cancel()
        await inner

    task = Supervised("reconciler", await_cancelled, log)
    running = asyncio.create_task(task.run())
    await asyncio.wait_for(failed.wait(), 10)
    assert "it was cancelled" in task.failure
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_task_that_ends_counts_as_failed(log: EventLog) -> None:
    failed = asyncio.Event()
    log.listen(lambda _: failed.set())

    async def end() -> None:
        pass

    task = Supervised("reconciler", end, log)
    running = asyncio.create_task(task.run())
    await asyncio.wait_for(failed.wait(), 10)
    assert "the reconciler failed" in task.failure
    running.cancel()


async def test_supervised_task_ends_when_cancelled(log: EventLog) -> None:
    running = asyncio.create_task(Supervised("reconciler", asyncio.Event().wait, log).run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(24, "Too many open files"), "Too many open files"),
        (PermissionError(13, "Permission denied", "/dev"), "Permission denied: /dev"),
        (MemoryError(), "Cannot allocate memory"),
        (RuntimeError("can't start new thread"), "no thread can be started; the limit of processes"),
        (ExceptionGroup("", [OSError(28, "No space left on device")]), "No space left on device"),
    ],
)
async def test_error_of_the_system_is_logged_once_without_a_traceback(
    log: EventLog, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    monkeypatch.setattr("genplug.agent.supervision.RESTART_SECONDS", 0.0)
    monkeypatch.setattr("genplug.agent.supervision.STEADY_AFTER_SYSTEM_ERROR_SECONDS", 0.01)
    events: asyncio.Queue[LogEvent] = asyncio.Queue()
    log.listen(events.put_nowait)

    async def fail_three_times() -> None:
        if task.restarts < 3:
            raise error
        await asyncio.Event().wait()

    task = Supervised("device scanner", fail_three_times, log)
    running = asyncio.create_task(task.run())
    first, second = [await asyncio.wait_for(events.get(), 10) for _ in range(2)]
    assert first.event is Event.SYSTEM_ERROR
    assert f"the device scanner waits for the system: {reason}" in first.text
    assert second.event is Event.SYSTEM_RECOVERED
    assert (task.failure, task.restarts) == ("", 3)
    running.cancel()


async def test_fatal_error_ends_the_task(log: EventLog) -> None:
    async def fail() -> None:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        await asyncio.wait_for(Supervised("kubelet controller", fail, log, fatal=(FileNotFoundError,)).run(), 10)
