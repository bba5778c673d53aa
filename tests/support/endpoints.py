"""Run one endpoint at a kubelet stand-in, without the agent."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Self

from genplug.kubelet.endpoint import Endpoint
from genplug.kubelet.latest_value import LatestValue
from genplug.kubelet.plugin_dir import PluginDir
from genplug.kubelet.registration import Registrar
from genplug.kubelet.reports import PhaseChanged, Report
from genplug.kubelet.servicer import ResourceBackend
from genplug.testing.condition import Condition


class EndpointRun:
    """An endpoint that runs while the context is open, and its reports.

    ``on_report`` is called with each report, before the endpoint continues.
    """

    def __init__(
        self,
        plugins_dir: Path,
        resource: str,
        backend: ResourceBackend,
        on_report: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self.reports: list[Report] = []
        self.endpoint = Endpoint(resource, LatestValue(backend), Registrar(plugins_dir), self._on_report)
        self._directory = PluginDir(plugins_dir)
        self._test_on_report = on_report
        self._condition = Condition()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.endpoint.run(self._directory.list_sockets()))
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.endpoint.stop()
        await asyncio.wait_for(self._task, 10)
        self._directory.close()

    @property
    def phases(self) -> list[tuple[int, str]]:
        """The generation and the phase of each change."""
        changes = [report for report in self.reports if isinstance(report, PhaseChanged)]
        return [(change.current.generation, change.current.phase.value) for change in changes]

    @property
    def reasons(self) -> list[str]:
        """The reason of each change."""
        return [report.current.reason for report in self.reports if isinstance(report, PhaseChanged)]

    @property
    def sockets(self) -> list[Path]:
        """The sockets of endpoints in the directory."""
        return [self._directory.path / name for name in self._directory.list_sockets().own]

    def list_directory(self) -> None:
        """Pass the present content of the directory to the endpoint."""
        self.endpoint.on_directory_listing(self._directory.list_sockets())

    async def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Wait until a predicate holds; it is evaluated after every report."""
        await self._condition.wait_for(predicate, 10, lambda: repr(self.endpoint))

    def _on_report(self, report: Report) -> None:
        self.reports.append(report)
        self._test_on_report(report)
        self._condition.notify_all()
