"""Pools of real worker processes, and functions that wait for their states."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from genplug.hardware.host import Host
from genplug.health.probes import file
from genplug.health.status import PoolStatus
from genplug.health.workers.pool import WorkerPool
from genplug.health.workers.protocol import PoolRequest, ProbeResponse
from genplug.spec.policy import Policy
from genplug.spec.read_rules import parse_read_rules
from genplug.testing.node.held_files import HeldFile

SHORT = 0.2
"""Timeout of requests that are expected to hang (seconds)."""
AMPLE = 20.0
"""Timeout of requests that are expected to be answered (seconds)."""

PoolT = TypeVar("PoolT", bound=WorkerPool)


class PoolChanges:
    """Waits for a status of a pool."""

    def __init__(self) -> None:
        self.pool: WorkerPool | None = None
        self._changed = asyncio.Event()

    def __call__(self) -> None:
        self._changed.set()

    async def wait_for(self, predicate: Callable[[PoolStatus], bool]) -> None:
        assert self.pool is not None
        async with asyncio.timeout(20):
            while not predicate(self.pool.status):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def open_pool(kind: Callable[[Host, PoolChanges], PoolT], root: Path) -> AsyncIterator[tuple[PoolT, PoolChanges]]:
    changes = PoolChanges()
    changes.pool = pool = kind(Host(root), changes)
    try:
        yield pool, changes
    finally:
        pool.close()


async def wait_until_awaited(held: HeldFile) -> None:
    """Wait until a process hangs on a held file; the kernel has no event for that."""
    async with asyncio.timeout(20):
        while not held.is_awaited:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


EVERY_FILE = Policy("test.yaml", read=parse_read_rules(("/**",)))
"""A policy that allows to read every file."""


def read(path: str, timeout: float = AMPLE, resource: str = "") -> PoolRequest:
    return PoolRequest(file.KIND.restrict(("file", "", path), EVERY_FILE), timeout, resource)


def run_shell(script: str, *arguments: str, timeout: float = AMPLE, resource: str = "") -> PoolRequest:
    return PoolRequest(("exec", "/bin/sh", "-c", script, "sh", *arguments), timeout, resource)


def text(path: str, content: str) -> ProbeResponse:
    """The response to a request for a file with this text."""
    return ProbeResponse(((path, ((path, content),)),))
