"""Dynamic Resource Allocation by the whole agent, between a kubelet and an API server."""

from collections.abc import AsyncIterator

import pytest

from genplug.testing.dra import DraError
from genplug.testing.node.fake_node import FakeNode
from tests.contract.test_published_resources import build_serve_config
from tests.support.claims import DRIVER
from tests.support.dra_node import DraNode, open_dra_node, wait_for_status
from tests.support.resources import X, Y, plug_devices

pytestmark = pytest.mark.openssl

X_BY_DRA = build_serve_config(x="dra", y="devicePlugin")
X_BY_DEVICE_PLUGIN = build_serve_config(x="devicePlugin", y="devicePlugin")


@pytest.fixture
async def dra(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DraNode]:
    plug_devices(node, "x0", "x1", "y0")
    async with open_dra_node(node, monkeypatch) as dra:
        yield dra


async def test_agent_publishes_devices_and_prepares_claims(dra: DraNode) -> None:
    """DRA point 3."""
    async with dra.run_agent(X_BY_DRA) as agent:
        await dra.node.kubelet.wait_for_list(Y, healthy={"y0"})
        await dra.wait_published(X, "x0", "x1")
        claim = dra.allocate(1, X, "x1")
        await dra.kubelet.prepare("pod", claim)
        [(name, paths)] = dra.list_nodes(claim).items()
        assert (dra.kubelet.cdi_devices(claim), paths) == ((f"{DRIVER}/claim={name}",), ["/dev/x1"])
        await wait_for_status(agent, lambda status: status.is_ready)
        with pytest.raises(DraError, match="still prepared for the ResourceClaim default/claim-1"):
            await dra.kubelet.prepare("other", dra.allocate(2, X, "x1"))
        await dra.kubelet.unprepare("pod")
        assert not dra.cdi_file(claim).exists()


async def test_unplugged_device_gets_a_taint_and_loses_it_when_it_is_plugged_again(dra: DraNode) -> None:
    """DRA point 19."""
    config = X_BY_DRA.replace("serve: dra,", "serve: dra, health: {removalGracePeriodSeconds: 3600},")
    async with dra.run_agent(config):
        await dra.wait_published(X, "x0", "x1")
        dra.node.unplug("/dev/x0")
        await dra.server.wait_for(lambda: bool(dra.devices(X)["x0"]))
        [taint] = dra.devices(X)["x0"]
        assert (taint["key"], taint["value"], taint["effect"]) == ("genplug.io/unhealthy", "gone", "NoSchedule")
        dra.node.plug("/dev/x0")
        await dra.server.wait_for(lambda: dra.devices(X) == {"x0": [], "x1": []})


async def test_restarted_agent_keeps_slices_and_claims_and_restores_cdi_files(dra: DraNode) -> None:
    """DRA point 12."""
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        claim = dra.allocate(1, X, "x1")
        await dra.kubelet.prepare("pod", claim)
    assert dra.record(claim).exists()
    [document] = dra.server.slices()
    content = dra.cdi_file(claim).read_bytes()
    dra.cdi_file(claim).unlink()
    async with dra.run_agent() as agent:
        await dra.kubelet.wait_registered(DRIVER, 2)
        assert dra.cdi_file(claim).read_bytes() == content
        await wait_for_status(agent, lambda status: status.is_ready)
        assert dra.server.slices() == [document]
        with pytest.raises(DraError, match="still prepared for the ResourceClaim default/claim-1"):
            await dra.kubelet.prepare("other", dra.allocate(2, X, "x1"))
        await dra.kubelet.unprepare("pod")
        assert not dra.record(claim).exists()


async def test_restarted_kubelet_gets_the_slices_back_that_it_deletes(dra: DraNode) -> None:
    """DRA point 10."""
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        [before] = dra.server.slices()
        await dra.kubelet.restart()
        await dra.kubelet.wait_registered(DRIVER, 2)
        await dra.server.wait_for(
            lambda: [found["metadata"]["uid"] for found in dra.server.slices()] not in ([], [before["metadata"]["uid"]])
        )
        assert sorted(dra.devices(X)) == ["x0", "x1"]


async def test_api_server_that_is_away_concerns_neither_other_resources_nor_prepared_claims(dra: DraNode) -> None:
    """DRA point 17."""
    async with dra.run_agent(X_BY_DRA) as agent:
        await dra.wait_published(X, "x0", "x1")
        await wait_for_status(agent, lambda status: status.is_ready)
        claim = dra.allocate(1, X, "x1")
        await dra.kubelet.prepare("pod", claim)
        await dra.server.stop()
        await dra.kubelet.restart()
        await dra.kubelet.wait_registered(DRIVER, 2)
        await dra.kubelet.prepare("pod", claim)
        assert await dra.node.kubelet.admit(Y)
        assert agent.status.is_ready
        dra.node.plug("/dev/x2")
        await dra.server.start()
        await dra.wait_published(X, "x0", "x1", "x2")


async def test_device_of_a_device_plugin_pod_is_published_when_the_pod_has_ended(dra: DraNode) -> None:
    """DRA point 21."""
    kubelet = dra.node.kubelet
    async with dra.run_agent(X_BY_DEVICE_PLUGIN) as agent:
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        [device] = (await kubelet.admit(X, pod="user")).ids
        [free] = {"x0", "x1"} - {device}
        dra.node.write_config(X_BY_DRA)
        await kubelet.wait_for_list(X, lambda devices: not devices)
        await dra.wait_published(X, free)
        status = agent.status.dra
        assert status is not None
        [published] = status.resources
        assert [(note.id, note.text) for note in published.withheld] == [(device, "the pod default/user")]
        claim = dra.allocate(1, X, device)
        with pytest.raises(DraError, match=f"device {device} of {X} is in use by the pod default/user"):
            await dra.kubelet.prepare("pod", claim)
        await kubelet.remove_pod("user")
        await dra.wait_published(X, "x0", "x1")
        await dra.kubelet.prepare("pod", claim)


async def test_device_of_a_claim_is_offered_by_the_device_plugin_api_when_it_is_unprepared(dra: DraNode) -> None:
    """DRA point 22."""
    kubelet = dra.node.kubelet
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        claim = dra.allocate(1, X, "x1")
        await dra.kubelet.prepare("pod", claim)
        dra.node.write_config(X_BY_DEVICE_PLUGIN)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await dra.server.wait_for(lambda: not dra.server.slices())
    # The agent restarts, and nothing in its configuration is served by claims.
    async with dra.run_agent() as agent:
        await kubelet.wait_for_list(X, healthy={"x0"})
        await dra.kubelet.wait_registered(DRIVER, 2)
        [status] = [resource for resource in agent.status.resources if resource.name == X]
        [held] = [held for held in status.devices if not held.healthy]
        assert (held.id, held.reason) == ("x1", "the ResourceClaim default/claim-1 uses it")
        await dra.kubelet.unprepare("pod")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await wait_for_status(agent, lambda status: status.dra is None)
        assert not (dra.node.kubelet_dir / "plugins_registry" / f"{DRIVER}-reg.sock").exists()
