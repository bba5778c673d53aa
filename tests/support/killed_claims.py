"""Kills processes that prepare and unprepare a claim, and checks what the next process finds.

``python -m tests.support.killed_claims RUNS`` prints the number of runs of each step. This process has no event loop
and no threads: each run forks a process that is killed, and a process that starts after it.
"""

import asyncio
import os
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from genplug.agent.claim_files import Step
from genplug.allocation.claims import DeviceHolding
from genplug.allocation.errors import ClaimError
from tests.support.allocation import DeviceTree
from tests.support.claim_node import ClaimNode, answer
from tests.support.claims import POOL, refer

ONE, TWO = refer(1), refer(2)
MEMORY = "/dev/shm"
"""A file system in memory, where an fsync takes no time: a process is killed here, and not the machine."""
WITHOUT_RECORD = (Step.BEFORE_RECORD, Step.RECORD_WRITTEN, Step.RECORD_REMOVED)
"""The steps after whose end no record exists."""


async def be_killed(node: ClaimNode, step: Step, devices: tuple[str, ...]) -> None:
    """Prepare a claim, and unprepare it for a step of a removal; the process is killed at the step."""

    def kill(reached: Step) -> None:
        if reached is step:
            os.kill(os.getpid(), signal.SIGKILL)

    claims = await node.start(kill)
    await claims.prepare(node.allocate(ONE, *devices))
    await claims.unprepare(ONE)


async def check_next_process(node: ClaimNode, step: Step, devices: tuple[str, ...], *, prepares_again: bool) -> None:
    """Check that no device is lost, that no file is left, and that the next call has the right result.

    Raises:
        AssertionError: one of these is not so.
    """
    node.allocate(ONE, *devices)
    node.allocate(TWO, *devices)
    claims = await node.start()
    has_record = step not in WITHOUT_RECORD
    assert node.files == (node.paths(ONE) if has_record else []), node.files
    expected = tuple(DeviceHolding(ONE, POOL, device) for device in devices)
    assert claims.holdings == (expected if has_record else ())
    try:
        await claims.prepare(TWO)
    except ClaimError:
        assert has_record
    else:
        assert not has_record
        await claims.unprepare(TWO)
    if prepares_again:
        assert await claims.prepare(ONE) == answer(ONE, *devices)
        assert node.files == node.paths(ONE), node.files
    await claims.unprepare(ONE)
    assert node.files == [], node.files
    assert await claims.prepare(TWO) == answer(TWO, *devices)


def fork(function: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run a coroutine in another process, and return the status of its end (waitpid(2))."""
    child = os.fork()
    if not child:
        try:
            asyncio.run(function())
        except BaseException:  # noqa: BLE001 - the status reports any error
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main(runs: int) -> None:
    """Run each step a number of times, and exit with 1 after a failure."""
    counts: Counter[str] = Counter()
    for step in Step:
        for run in range(runs):
            root = Path(mkdtemp(prefix="gp", dir=MEMORY if Path(MEMORY).is_dir() else None))
            try:
                node = ClaimNode(DeviceTree(root))
                devices = tuple(f"x{number}" for number in range(1 + run % 3))
                status = fork(lambda: be_killed(node, step, devices))  # noqa: B023 - the process has ended
                if os.WTERMSIG(status) != signal.SIGKILL:
                    sys.exit(f"{step}: expected a killed process, found the status {status}")
                again = run % 2 == 0
                if fork(lambda: check_next_process(node, step, devices, prepares_again=again)):  # noqa: B023
                    sys.exit(f"{step}: run {run} failed")
                counts[step] += 1
            finally:
                shutil.rmtree(root)
    print(dict(counts))


if __name__ == "__main__":
    main(int(sys.argv[1]))
