"""The call pool with a real worker process and real programs."""

import os
from pathlib import Path

from genplug.health.workers.call_pool import CallPool
from genplug.health.workers.protocol import ProbeResponse
from tests.support.workers import SHORT, open_pool, run_shell

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


async def test_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    async with open_pool(CallPool, tmp_path) as (pool, _):
        (response,) = await pool.run([run_shell("kill -9 $PPID; sleep 60")])
        assert response.error == "the probe worker crashed"
        assert await pool.run([(("exec", "/bin/true"), 20)]) == [PASSED]
        assert pool.status.failed_starts == 0
