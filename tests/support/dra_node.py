"""A fake node with the DRA half of a kubelet and an API server, for tests of the whole agent."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from genplug.agent import Agent
from genplug.allocation.slices import pool_name
from genplug.observe.events import LogEvent
from genplug.observe.status import Status
from genplug.testing.api_server import ApiServerStandIn
from genplug.testing.condition import Condition
from genplug.testing.dra import DraKubelet, PodClaim
from genplug.testing.node.fake_node import FakeNode
from tests.support.claims import DRIVER, allocate_device, build_claim, refer

NODE = "node-1"


class DraNode:
    """The parts of a node. The claims of a test have numbers."""

    def __init__(self, node: FakeNode, kubelet: DraKubelet, server: ApiServerStandIn, account: Path) -> None:
        self.node = node
        self.kubelet = kubelet
        self.server = server
        self.account = account

    @asynccontextmanager
    async def run_agent(self, config: str | None = None, **settings: Any) -> AsyncIterator[Agent]:
        """Run the agent with the account of a pod."""
        fields: dict[str, Any] = {"node_name": NODE, "account_dir": self.account, "drain_seconds": 0.1}
        async with self.node.run_agent(config, **(fields | settings)) as agent:
            yield agent

    def devices(self, resource: str) -> dict[str, list[dict[str, Any]]]:
        """Return the published devices of a resource with their taints."""
        pool = pool_name(NODE, resource)
        slices = [document for document in self.server.slices() if document["spec"]["pool"]["name"] == pool]
        return {
            device["name"]: device.get("taints") or []
            for document in slices
            for device in document["spec"].get("devices") or ()
        }

    async def wait_published(self, resource: str, *names: str) -> None:
        """Wait until exactly these devices of a resource are published."""
        await self.server.wait_for(lambda: sorted(self.devices(resource)) == sorted(names))

    def allocate(self, number: int, resource: str, *devices: str) -> PodClaim:
        """Write a claim with these devices to the API server, and return it as a pod uses it."""
        pool = pool_name(NODE, resource)
        results = (allocate_device(device, pool=pool) for device in devices)
        document = self.server.put_claim(build_claim(refer(number), *results))
        return PodClaim(f"claim-{number}", document["metadata"]["uid"], drivers=(DRIVER,))

    def cdi_file(self, claim: PodClaim) -> Path:
        """Return the path of the CDI file of a claim."""
        return self.node.locate(f"/var/run/cdi/dra_{DRIVER}_{claim.uid}.json")

    def record(self, claim: PodClaim) -> Path:
        """Return the path of the record of a claim."""
        return self.node.kubelet_dir / "plugins" / DRIVER / "claims" / f"{claim.uid}.json"

    def list_nodes(self, claim: PodClaim) -> dict[str, list[str]]:
        """Return the device nodes of each CDI device of a claim."""
        document = json.loads(self.cdi_file(claim).read_text())
        return {
            device["name"]: [node["path"] for node in device["containerEdits"].get("deviceNodes", ())]
            for device in document["devices"]
        }


async def wait_for_status(agent: Agent, predicate: Callable[[Status], bool]) -> None:
    """Wait until a predicate holds for the status of an agent; it is evaluated after every event of the log."""
    condition = Condition()

    def notify(_: LogEvent) -> None:
        # An operation may end only after its event.
        asyncio.get_running_loop().call_soon(condition.notify_all)

    agent.event_log.listen(notify)
    await condition.wait_for(lambda: predicate(agent.status), 30, lambda: str(agent.status))


@asynccontextmanager
async def open_dra_node(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int] = (1, 37)
) -> AsyncIterator[DraNode]:
    """Run an API server and the DRA half of a kubelet of a version; the environment is that of a pod."""
    async with ApiServerStandIn(version=version) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.add_node(NODE)

        async def wipe(driver: str | None) -> None:
            server.wipe_slices(NODE, driver or "")

        account = server.write_account(node.directory / "account")
        async with DraKubelet(node.kubelet_dir, version=version, loop_seconds=0.01, wipe=wipe) as kubelet:
            node.kubelet.list_claims = lambda: kubelet.claim_uses
            yield DraNode(node, kubelet, server, account)
