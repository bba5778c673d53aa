"""Workers that cannot be started: nothing is kept of them, they are counted, and the next start works."""

import asyncio
import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from genplug.health.workers.call_pool import CallPool
from genplug.health.workers.pool import WorkerPool
from genplug.health.workers.protocol import PoolRequest, ProbeResponse
from genplug.health.workers.read_pool import ReadPool
from genplug.spec.limits import MAX_CALLS
from tests.support.processes import wait_until_at_most
from tests.support.workers import open_pool, read, run_shell, text

PASSED = ProbeResponse((0, ""))
POOLS = [
    pytest.param(ReadPool, read("/a"), text("/a", "a"), id="read"),
    pytest.param(CallPool, run_shell("exit 0"), PASSED, id="call"),
]
MakePool = Callable[..., WorkerPool]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a").write_text("a")
    return tmp_path


def list_descriptors() -> list[int]:
    """Return the numbers of the open files, without that of the directory which this function reads."""
    return [number for number in (int(entry.name) for entry in Path("/proc/self/fd").iterdir()) if _is_open(number)]


def _count_further_descriptors(before: set[int]) -> int:
    return len(set(list_descriptors()) - before)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextmanager
def limit_descriptors(number: int) -> Iterator[None]:
    """Limit the number of further files that this process can open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on the highest number, so all numbers below have to be taken.
    taken = [os.open("/dev/null", os.O_RDONLY)]
    while taken[-1] < max(list_descriptors()):
        taken.append(os.dup(taken[0]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1 + number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.parametrize(("kind", "request_", "expected"), POOLS)
async def test_failed_starts_leave_every_slot_free(
    kind: MakePool, request_: PoolRequest, expected: ProbeResponse, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pool(kind, root) as (pool, _):
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/nonexistent/python")
            for _ in range(2 * MAX_CALLS):
                async with asyncio.timeout(10):
                    (response,) = await pool.run([request_])
                assert response.error == "cannot start a probe worker: No such file or directory: /nonexistent/python"
            assert pool.status.failed_starts == 2 * MAX_CALLS
            assert pool.status.start_error == "No such file or directory: /nonexistent/python"
            assert pool.processes == ()
        async with asyncio.timeout(30):
            assert await pool.run([request_]) == [expected]
        assert (pool.status.failed_starts, pool.status.start_error) == (2 * MAX_CALLS, "")


@pytest.mark.parametrize(("kind", "request_", "expected"), POOLS)
async def test_failed_start_leaves_no_descriptor_open_wherever_it_fails(
    kind: MakePool, request_: PoolRequest, expected: ProbeResponse, root: Path
) -> None:
    errors = set()
    async with open_pool(kind, root) as (pool, _):
        # Both sockets, the shared page, and the pipes and the program of the new process need descriptors.
        for left in range(8):
            gc.collect()  # Unreachable objects of earlier tests must not close their descriptors between the two lists.
            before = set(list_descriptors())
            with limit_descriptors(left):
                (response,) = await pool.run([request_])
            if response == expected:
                break
            errors.add(response.error.partition(" (")[0])
            # Threads of gRPC that other tests started open and close descriptors of their own at any time.
            await wait_until_at_most(partial(_count_further_descriptors, before), 0)
        else:
            pytest.fail("the worker starts with none of these limits")
        assert pool.status.failed_starts == left
    assert left >= 3
    assert errors == {"cannot start a probe worker: Too many open files"}


@pytest.mark.parametrize(("kind", "request_", "expected"), POOLS)
async def test_worker_that_ends_while_it_starts_fails_the_batch_once(
    kind: MakePool, request_: PoolRequest, expected: ProbeResponse, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pool(kind, root) as (pool, _):
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/bin/false")
            responses = await pool.run([request_] * 10)
        assert len({response.error for response in responses}) == 1
        assert responses[0].error.startswith("cannot start a probe worker: it ended")
        assert "while it started" in responses[0].error
        assert pool.status.failed_starts == 1
        assert await pool.run([request_]) == [expected]


PROCESS_LIMIT = """
import asyncio, os, resource, sys
from pathlib import Path
from genplug.hardware.host import Host
from genplug.health.workers.call_pool import CallPool
from genplug.health.workers.protocol import PoolRequest

async def main():
    pool = CallPool(Host(Path("/")), lambda: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    for _ in range(70):
        async with asyncio.timeout(10):
            (response,) = await pool.run([PoolRequest(("exec", "/bin/true"), 5.0)])
    print(response.error)
    print(pool, pool.status.failed_starts)

os.setresuid(65534, 65534, 65534)
asyncio.run(main())
"""


@pytest.mark.root
def test_process_limit_is_named() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", PROCESS_LIMIT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    error = "Resource temporarily unavailable (the limit of processes is reached; raise the pod's limit of PIDs)"
    assert done.stdout.splitlines() == [
        f"cannot start a probe worker: {error}",
        "<CallPool [calls: 0 running, 0 hung | workers: 0]> 70",
    ]
