"""The scan of one resource: runs in a thread, and goes around file operations that hang.

A scan whose current file operation takes too long is given up and started again. The operation is refused to the next
attempt, which keeps what cannot be examined as last known, and brings everything else up to date.
"""

import asyncio
import time
from functools import partial

from msgspec.structs import replace

from genplug.agent.blocking_calls import BlockingCall, BlockingCalls
from genplug.hardware.candidate_budget import CandidateBudget
from genplug.hardware.dependencies import Changes
from genplug.hardware.discovery import scan_resource
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError
from genplug.hardware.inventory import CandidatesBySource, ResourceScan, ScanStall
from genplug.spec.model import Resource

STALL_SECONDS = 2.0
"""Seconds after which a file operation of a scan counts as hanging."""


class ScanJob:
    """Scans a resource. ``task`` gets the scan, which says itself what it could not examine.

    ``host`` is a cached one, which the jobs that start together share. ``budget`` limits the candidates of
    all resources together.
    """

    def __init__(  # noqa: PLR0913 - what it scans, and what it may use
        self,
        resource: Resource,
        previous: ResourceScan | None,
        host: Host,
        calls: BlockingCalls,
        changes: Changes | None = None,
        *,
        budget: CandidateBudget | None = None,
    ) -> None:
        self.resource = resource
        self._budget = budget
        self.previous = previous
        self._host = host
        self._calls = calls
        self._call: BlockingCall[ResourceScan] | None = None
        self.task = asyncio.create_task(self._run(changes), name=f"scan of {resource.name}")

    def __repr__(self) -> str:
        return f"<ScanJob {self.resource.name} [{'done' if self.task.done() else self._call}]>"

    async def wait(self, seconds: float) -> bool:
        """Return whether the scan is done, after ``seconds`` at the latest."""
        await asyncio.wait({self.task}, timeout=seconds)
        return self.task.done()

    def is_stuck(self, seconds: float) -> bool:
        """Return whether the scan has been in its current file operation for ``seconds``."""
        operation = self._call.operation if self._call is not None else None
        return operation is not None and time.monotonic() - operation.started >= seconds

    def cancel(self) -> None:
        """Give the scan up: its result is not wanted."""
        self.task.cancel()

    async def _run(self, changes: Changes | None) -> ResourceScan:
        host, limit = self._host, changes
        while True:
            try:
                scan = partial(scan_resource, self.resource, host, self.previous, limit, budget=self._budget)
                self._call = self._calls.start(scan)
                if await self._returns(self._call):
                    return self._call.done.result()
            except HangError as error:
                return _keep_after_stall(self.resource, self.previous, ScanStall.of(self.resource.name, "", error))
            except asyncio.CancelledError:
                if self._call is not None:
                    self._calls.abandon(self._call, STALL_SECONDS)
                raise
            host, limit = self._host.cached(), None

    async def _returns(self, call: BlockingCall[ResourceScan]) -> bool:
        """Return whether a call has returned; false if its file operation takes too long, and it is given up."""
        deadline = call.started + STALL_SECONDS
        while not await call.wait(max(deadline - time.monotonic(), 0)):
            operation = call.operation
            began = operation.started if operation is not None else time.monotonic()
            if time.monotonic() - began >= STALL_SECONDS:
                self._calls.give_up(call, STALL_SECONDS)
                return False
            deadline = began + STALL_SECONDS
        return True


def keep_last_known(resource: Resource, previous: ResourceScan | None, reason: str) -> ResourceScan:
    """Return the scan of a resource that cannot be scanned: its previous devices, unless its policy has changed."""
    return _keep_after_stall(resource, previous, ScanStall(resource.name, "", reason))


def _keep_after_stall(resource: Resource, previous: ResourceScan | None, stall: ScanStall) -> ResourceScan:
    is_known = previous is not None and all(known.is_known or known.candidate for known in previous.stalls)
    stall = replace(stall, is_known=is_known)
    if previous is None or previous.resource.policy != resource.policy:
        nothing: CandidatesBySource = tuple({} for _ in resource.sources)
        return ResourceScan(resource, (), (), (), {}, nothing, stalls=(replace(stall, is_known=False),))
    return replace(previous, stalls=(stall,))
