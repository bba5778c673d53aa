"""The scans in progress: at most one job for each resource."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.scan_job import ScanJob, keep_last_known
from genplug.hardware.candidate_budget import CandidateBudget
from genplug.hardware.dependencies import Changes
from genplug.hardware.host import Host
from genplug.hardware.inventory import ResourceScan
from genplug.observe.events import EventLog
from genplug.spec.model import Config

STUCK_SECONDS = 0.005
"""Seconds in one file operation after which the next resource is scanned beside a scan."""
MAX_TURN_SECONDS = 0.05
"""Seconds after which the next resource is scanned beside a scan in any case."""
SETTLE_SECONDS = 0.1
"""Seconds in one file operation after which a new configuration does not wait for a scan."""


class ScanJobs:
    """Starts jobs and collects their results. ``on_finish`` is called when a job finishes."""

    def __init__(self, host: Host, calls: BlockingCalls, event_log: EventLog, on_finish: Callable[[], None]) -> None:
        self._host = host
        self._calls = calls
        self._event_log = event_log
        self._on_finish = on_finish
        self._budget = CandidateBudget()
        self._jobs: dict[str, ScanJob] = {}
        self._overdue: set[str] = set()
        """Resources to scan again in full when no job of theirs runs."""

    def __repr__(self) -> str:
        return f"<ScanJobs [{list(self._jobs.values())} | overdue: {sorted(self._overdue)} | {self._calls!r}]>"

    @property
    def running(self) -> frozenset[str]:
        """The resources with a job whose result was not collected."""
        return frozenset(self._jobs)

    async def start(
        self, config: Config, selected: Mapping[str, Changes | None], scans: Mapping[str, ResourceScan]
    ) -> None:
        """Start a job for each selected resource; the next one starts when the previous one is done, or takes long.

        ``scans`` are the previous scans. A resource with a running job is scanned again when that finishes.
        """
        host = self._host.cached()
        self._budget.set_resources(config.resources)
        for name, changes in selected.items():
            resource, job = config.resources[name], self._jobs.get(name)
            if job is not None and job.resource == resource:
                self._overdue.add(name)
                continue
            if job is not None:
                job.cancel()
            job = ScanJob(resource, scans.get(name), host, self._calls, changes, budget=self._budget)
            self._jobs[name] = self._create(job)
            await _take_turn(job)

    async def settle(self, names: Iterable[str]) -> None:
        """Wait until every job of these resources is done, or stays in one file operation for long."""
        jobs = [self._jobs[name] for name in names if name in self._jobs]
        while running := [job for job in jobs if not job.task.done()]:
            if all(job.is_stuck(SETTLE_SECONDS) for job in running):
                return
            await asyncio.wait([job.task for job in running], timeout=SETTLE_SECONDS / 2)

    def collect(self, names: Iterable[str] | None = None) -> dict[str, ResourceScan]:
        """Remove the finished jobs, of some resources or of all, and return their results."""
        chosen = self._jobs.keys() if names is None else self._jobs.keys() & set(names)
        finished = [name for name in chosen if self._jobs[name].task.done()]
        return {name: self._result(self._jobs.pop(name)) for name in finished}

    def discard(self, names: Iterable[str]) -> None:
        """Cancel the jobs of some resources: their results are not wanted."""
        for name in tuple(names):
            if (job := self._jobs.pop(name, None)) is not None:
                job.cancel()

    def request(self, names: Iterable[str]) -> None:
        """Scan some resources in full as soon as no job of theirs runs, by :meth:`start_requested`."""
        self._overdue |= set(names)

    def start_requested(self, config: Config, scans: Mapping[str, ResourceScan]) -> None:
        """Start the requested scans of resources without a job."""
        host = self._host.cached()
        for name in self._overdue - self._jobs.keys():
            self._overdue.discard(name)
            if name in config.resources:
                job = ScanJob(config.resources[name], scans.get(name), host, self._calls, budget=self._budget)
                self._jobs[name] = self._create(job)

    def _create(self, job: ScanJob) -> ScanJob:
        job.task.add_done_callback(lambda _: self._on_finish())
        return job

    def _result(self, job: ScanJob) -> ResourceScan:
        try:
            return job.task.result()
        except Exception as error:  # noqa: BLE001 - an internal error in one scan must not affect the other resources
            reason, name = f"its scan failed by an internal error: {error!r}", job.resource.name
            self._event_log.emit_failure(f"{name}: {reason}; please report it", error, resource=name)
            return keep_last_known(job.resource, job.previous, reason)


async def _take_turn(job: ScanJob) -> None:
    """Wait until a scan is done, stays in one file operation, or has had its turn: threads share one interpreter."""
    end = time.monotonic() + MAX_TURN_SECONDS
    while not await job.wait(STUCK_SECONDS) and not job.is_stuck(STUCK_SECONDS):
        if time.monotonic() >= end:
            return
