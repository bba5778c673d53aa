"""A driver whose claims are answered by a test, at a DRA kubelet."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from genplug.allocation.errors import ClaimError, ClaimErrorCode
from genplug.allocation.results import ClaimDevice, ClaimReference
from genplug.kubelet.driver import Driver
from genplug.kubelet.reports import DriverReport
from genplug.testing.condition import Condition
from genplug.testing.dra import PodClaim
from tests.support.claims import DRIVER, POOL, refer


class AnsweringBackend:
    """Prepares every claim with a device of its own, except those in ``errors`` by name; ``calls`` has all calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.errors: dict[str, Exception] = {}
        self.open = asyncio.Event()
        """Calls wait until it is set."""
        self.open.set()
        self.reached = Condition()

    async def prepare(self, claim: ClaimReference) -> Sequence[ClaimDevice]:
        await self._call("prepare", claim)
        return [ClaimDevice(("gpu",), POOL, f"device-of-{claim.name}", (f"{DRIVER}/claim={claim.uid}",))]

    async def unprepare(self, claim: ClaimReference) -> None:
        await self._call("unprepare", claim)

    async def _call(self, method: str, claim: ClaimReference) -> None:
        self.calls.append((method, claim.name))
        self.reached.notify_all()
        await self.open.wait()
        if claim.name in self.errors:
            raise self.errors[claim.name]


class DriverRun:
    """A driver that runs, and its reports."""

    def __init__(self, kubelet_dir: Path, backend: AnsweringBackend) -> None:
        self.reports: list[DriverReport] = []
        self.backend = backend
        self.driver = Driver(DRIVER, kubelet_dir, backend, self._on_report)
        self.service = kubelet_dir / "plugins" / DRIVER / "dra.sock"
        self.registration = kubelet_dir / "plugins_registry" / f"{DRIVER}-reg.sock"
        self._condition = Condition()

    async def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Wait until a predicate holds; it is evaluated after every report."""
        await self._condition.wait_for(predicate, 20, lambda: f"{self.driver!r}, {self.reports}")

    def reports_of(self, kind: type[DriverReport]) -> list[DriverReport]:
        return [report for report in self.reports if isinstance(report, kind)]

    def _on_report(self, report: DriverReport) -> None:
        self.reports.append(report)
        self._condition.notify_all()


@asynccontextmanager
async def run_driver(kubelet_dir: Path, backend: AnsweringBackend | None = None) -> AsyncIterator[DriverRun]:
    """Run a driver while the context is open."""
    run = DriverRun(kubelet_dir, backend or AnsweringBackend())
    task = asyncio.create_task(run.driver.run())
    try:
        yield run
    finally:
        run.driver.stop()
        await asyncio.wait_for(task, 20)


def use_claim(number: int, *drivers: str) -> PodClaim:
    """Return the claim of :func:`tests.support.claims.refer` as a pod uses it."""
    claim = refer(number)
    return PodClaim(claim.name, claim.uid, claim.namespace, drivers or (DRIVER,))


def refuse_claim(number: int, reason: str) -> ClaimError:
    return ClaimError(ClaimErrorCode.DEVICE_UNHEALTHY, refer(number), reason)
