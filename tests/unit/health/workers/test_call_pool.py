"""The call pool with a real worker process and real programs."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from genplug.health.workers import call_pool, sessions
from genplug.health.workers.call_pool import CallPool
from genplug.health.workers.protocol import ProbeResponse, Progress
from genplug.spec.limits import MAX_CALLS_PER_RESOURCE
from tests.support.processes import wait_for_process_end, wait_until_at_most
from tests.support.workers import AMPLE, SHORT, open_pool, run_shell

PASSED = ProbeResponse((0, ""))


async def test_calls_run_concurrently(tmp_path: Path) -> None:
    # Each waits for the other: one after the other they would never end.
    for name in ("one", "two"):
        os.mkfifo(tmp_path / name)
    scripts = ('echo here >"$1"; read line <"$2"', 'read line <"$1"; echo here >"$2"')
    pipes = (str(tmp_path / "one"), str(tmp_path / "two"))
    async with open_pool(CallPool, tmp_path) as (pool, _):
        assert await pool.run([run_shell(script, *pipes) for script in scripts]) == [PASSED, PASSED]
        assert repr(pool) == "<CallPool [calls: 0 running, 0 hung | workers: 1]>"


async def test_call_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    async with open_pool(CallPool, tmp_path) as (pool, _):
        (response,) = await pool.run([run_shell("echo so far; sleep 60", timeout=SHORT)])
        assert response.error == "/bin/sh took longer than 0.2 s: so far"
        assert repr(pool) == "<CallPool [calls: 0 running, 0 hung | workers: 1]>"


def delay_worker_start(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each worker wait during its imports until the file ``pipe`` in the directory is opened for writing."""
    os.mkfifo(directory / "pipe")
    # The worker imports this module in place of the module of the standard library, which it imports afterwards.
    (directory / "fnmatch.py").write_text(
        f"open({str(directory / 'pipe')!r}).read()\n"
        f"import sys; sys.path.remove({str(directory)!r}); del sys.modules['fnmatch']; import fnmatch\n"
    )
    monkeypatch.syspath_prepend(directory)


async def test_start_of_the_worker_does_not_count_as_time_of_the_first_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delay_worker_start(tmp_path, monkeypatch)
    monkeypatch.setattr(call_pool, "_GRACE_SECONDS", 0.0)
    real = vars(Progress)["started_at"].fget
    waits = iter((True,))

    def start_late(progress: Progress) -> float:
        # The time of the call is over when the pool checks for the first time whether the worker has started.
        if next(waits, False):
            (tmp_path / "pipe").write_text("")
        return float(real(progress))

    monkeypatch.setattr(Progress, "started_at", property(start_late))
    async with open_pool(CallPool, tmp_path) as (pool, _):
        assert await pool.run([run_shell("true", timeout=1.0)]) == [PASSED]


async def test_worker_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delay_worker_start(tmp_path, monkeypatch)
    for name in ("_GRACE_SECONDS", "_START_SECONDS", "_START_CHECK_SECONDS"):
        monkeypatch.setattr(call_pool, name, 0.1)
    async with open_pool(CallPool, tmp_path) as (pool, _):
        (response,) = await pool.run([run_shell("true", timeout=SHORT)])
        assert response.error == "timed out after 0.2 s"


async def test_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    async with open_pool(CallPool, tmp_path) as (pool, _):
        (response,) = await pool.run([run_shell("kill -9 $PPID; sleep 60")])
        assert response.error == "the probe worker crashed"
        assert await pool.run([run_shell("true")]) == [PASSED]
        assert pool.status.failed_starts == 0


@pytest.mark.parametrize("ending", ["close", "kill"])
async def test_programs_end_with_the_worker(tmp_path: Path, ending: str) -> None:
    os.mkfifo(tmp_path / "pids")
    script = f"sleep 60 & echo $$ $! >{tmp_path}/pids; read line <{tmp_path}/pids"
    async with open_pool(CallPool, tmp_path) as (pool, _):
        running = asyncio.ensure_future(pool.run([run_shell(script)]))
        processes = (await asyncio.to_thread((tmp_path / "pids").read_text)).split()
        assert len(processes) == 2
        if ending == "close":
            pool.close()
        else:
            os.kill(pool.processes[0], signal.SIGKILL)
            assert (await running)[0].error == "the probe worker crashed"
        for process in processes:
            await wait_for_process_end(int(process))
        running.cancel()


async def test_search_for_programs_does_not_block_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pid")
    gate = threading.Event()
    monkeypatch.setattr("genplug.health.workers.pool._REAP_SECONDS", 0.01)
    list_session = sessions._list_session  # noqa: SLF001 - /proc is as slow as the gate

    def list_slowly(leader: int) -> Iterator[int]:
        gate.wait(30)
        return list_session(leader)

    async with open_pool(CallPool, tmp_path) as (pool, _):
        running = asyncio.ensure_future(pool.run([run_shell(f"echo $$ >{tmp_path}/pid; sleep 600")]))
        process = int(await asyncio.to_thread((tmp_path / "pid").read_text))
        monkeypatch.setattr(sessions, "_list_session", list_slowly)
        [worker] = pool.processes
        os.kill(worker, signal.SIGKILL)
        assert (await running)[0].error == "the probe worker crashed"
        # The worker remains in the process table: its ID must not become that of another session.
        await asyncio.sleep(0.1)
        assert pool.processes == (worker,)
        assert [thread.daemon for thread in threading.enumerate() if thread.name == sessions._THREAD_NAME] == [False]  # noqa: SLF001 - an exit waits for it
        gate.set()
        sessions.wait_for_kills(AMPLE)
        await wait_for_process_end(process)
        await wait_until_at_most(lambda: len(pool.processes), 0)


async def test_slow_calls_of_a_resource_do_not_delay_the_calls_of_others(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with open_pool(CallPool, tmp_path) as (pool, _):
        wait = f"read line <{tmp_path}/pipe; exit {{}}"
        slow = asyncio.ensure_future(
            pool.run([run_shell(wait.format(number), resource=f"a.io/{number % 3}") for number in range(100)])
        )
        # The tasks of the slow calls have started.
        await asyncio.sleep(0)
        async with asyncio.timeout(AMPLE):
            for number in range(3, 6):
                assert await pool.run([run_shell("true", resource=f"a.io/{number}")]) == [PASSED]
        assert not slow.done()
        slow.cancel()


async def test_response_is_delivered_before_slower_calls_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with open_pool(CallPool, tmp_path) as (pool, _):
        delivered: asyncio.Queue[int] = asyncio.Queue()

        def deliver(responses: Mapping[int, ProbeResponse]) -> None:
            for index in responses:
                delivered.put_nowait(index)

        requests = [run_shell(f"read line <{tmp_path}/pipe"), run_shell("true")]
        running = asyncio.ensure_future(pool.run_each(requests, deliver))
        async with asyncio.timeout(AMPLE):
            assert await delivered.get() == 1
            assert not running.done()
            await asyncio.to_thread((tmp_path / "pipe").write_text, "line\n")
            assert await delivered.get() == 0
            await running


async def test_call_without_a_place_has_an_error_that_names_the_resources_with_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genplug.health.workers.call_pool._WAIT_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    async with open_pool(CallPool, tmp_path) as (pool, _):
        delivered: asyncio.Queue[ProbeResponse] = asyncio.Queue()

        def deliver(responses: Mapping[int, ProbeResponse]) -> None:
            for response in responses.values():
                delivered.put_nowait(response)

        wait = f"read line <{tmp_path}/pipe; exit {{}}"
        requests = [run_shell(wait.format(n), resource="a.io/slow") for n in range(MAX_CALLS_PER_RESOURCE + 1)]
        running = asyncio.ensure_future(pool.run_each(requests, deliver))
        async with asyncio.timeout(AMPLE):
            refused = await delivered.get()
            assert refused.error == (
                f"not run for 0.1 s: {MAX_CALLS_PER_RESOURCE} other calls of a.io/slow use all places of a resource"
            )
            assert await pool.run([run_shell("true", resource="a.io/other")]) == [PASSED]
        running.cancel()
