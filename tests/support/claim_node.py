"""A node with claims: their files, the API server and the kubelet as functions of the test, and a clock."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.claim_files import BAD, ClaimFiles, Step
from genplug.agent.claim_inputs import ClaimInputs, ClaimReadError
from genplug.agent.claims import Claims
from genplug.allocation.claims import ClaimPool
from genplug.allocation.offer import build_offer
from genplug.allocation.results import ClaimDevice, ClaimReference
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from genplug.kubelet.client import CallError
from genplug.kubelet.reports import DriverReport
from genplug.spec.model import Resource
from genplug.testing.condition import Condition
from tests.support.allocation import DeviceTree, build_resource
from tests.support.claims import DRIVER, POOL, allocate_device, build_claim, build_pool

CDI_DIRECTORY = "/var/run/cdi"
BOOT = "11111111-1111-4111-8111-111111111111"


class ClaimNode:
    """A node whose devices are ``/dev/x0`` to ``/dev/x3``, of one pool.

    :meth:`start` makes the claims of a process, as at the start of an agent. ``documents`` are the claims of the API
    server by namespace and name, and ``uses`` those that containers use; None for a server that does not respond.
    """

    def __init__(self, tree: DeviceTree, resource: Resource | None = None) -> None:
        self.tree = tree
        self.resource = resource or build_resource(env={"DEVICES": "${name}"})
        self.records = tree.root / "claims"
        self.cdi = tree.at(CDI_DIRECTORY)
        self.boot = BOOT
        self.documents: dict[tuple[str, str], Mapping[str, Any]] | None = {}
        self.uses: frozenset[tuple[str, str]] | None = frozenset()
        self.reads: list[str] = []
        self.refreshed_pools: dict[str, ClaimPool] | None = {}
        """The pools that change when the kubelet is asked for the use of devices; None if it does not respond."""
        self.reports: list[DriverReport] = []
        self.time = 0.0
        self.pools: dict[str, ClaimPool] = {}
        self.hold = asyncio.Event()
        """Reads of the API server wait until it is set."""
        self.hold.set()
        self.reading = Condition()
        self.scan()

    def scan(self) -> None:
        """Make the offer of the present device nodes."""
        names = sorted(path.name for path in self.tree.at("/dev").iterdir()) or ["x0", "x1", "x2", "x3"]
        self.pools[POOL] = build_pool(build_offer(self.resource, self.tree.make_healthy(*names)))

    def allocate(self, claim: ClaimReference, *results: str | dict[str, Any]) -> ClaimReference:
        """Write a claim with these devices to the API server."""
        assert self.documents is not None
        devices = [allocate_device(result) if isinstance(result, str) else result for result in results]
        self.documents[claim.namespace, claim.name] = build_claim(claim, *devices)
        return claim

    def make_files(self, at_step: Callable[[Step], None] = lambda _: None) -> ClaimFiles:
        host = Host.at(self.tree.root)
        return ClaimFiles(DRIVER, self.records, CDI_DIRECTORY, host, self.boot, at_step=at_step)

    async def start(self, at_step: Callable[[Step], None] = lambda _: None) -> Claims:
        """Return the claims of a process that has just started, with the files of earlier processes."""
        inputs = ClaimInputs(self._read, self._list_uses, lambda: self.pools, self._refresh)
        calls = BlockingCalls(HungPaths())
        claims = Claims(self.make_files(at_step), calls, inputs, self._report, lambda: self.time)
        await claims.restore()
        return claims

    @property
    def files(self) -> list[str]:
        """The files of claims, relative to the root."""
        paths = (path for directory in (self.records, self.cdi) if directory.is_dir() for path in directory.rglob("*"))
        return sorted(str(path.relative_to(self.tree.root)) for path in paths if path.is_file())

    def record(self, claim: ClaimReference, *, bad: bool = False) -> Path:
        return (self.records / BAD if bad else self.records) / f"{claim.uid}.json"

    def cdi_file(self, claim: ClaimReference) -> Path:
        return self.cdi / f"dra_{DRIVER}_{claim.uid}.json"

    def paths(self, *claims: ClaimReference) -> list[str]:
        """Return what :attr:`files` is if exactly these claims are prepared."""
        paths = (path for claim in claims for path in (self.record(claim), self.cdi_file(claim)))
        return sorted(str(path.relative_to(self.tree.root)) for path in paths)

    def _report(self, report: DriverReport) -> None:
        self.reports.append(report)
        self.reading.notify_all()

    async def _read(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        self.reads.append(name)
        self.reading.notify_all()
        await self.hold.wait()
        if self.documents is None:
            raise ClaimReadError("connection refused")
        return self.documents.get((namespace, name))

    async def _refresh(self) -> None:
        if self.refreshed_pools is None:
            raise CallError("the kubelet does not respond")
        self.pools.update(self.refreshed_pools)

    async def _list_uses(self) -> frozenset[tuple[str, str]]:
        if self.uses is None:
            raise CallError("the kubelet does not respond")
        return self.uses


def name_cdi(claim: ClaimReference, device: str, request: str = "gpu") -> str:
    """Return the name of the CDI device of a result."""
    return f"{DRIVER}/claim={claim.uid}-{request}-{device}"


def answer(claim: ClaimReference, *devices: str) -> tuple[ClaimDevice, ...]:
    """Return the answer for a claim with one request for these devices."""
    return tuple(ClaimDevice(("gpu",), POOL, device, (name_cdi(claim, device),)) for device in devices)
