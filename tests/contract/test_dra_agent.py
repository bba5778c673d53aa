"""Dynamic Resource Allocation by the whole agent, between a kubelet and an API server."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from genplug.agent import alias_pools, driver, driver_service, endpoints
from genplug.agent.publisher_state import UNSUPPORTED_KUBELET
from genplug.allocation.published import PublishedResource, ResourcePublisher
from genplug.cli.main import main
from genplug.kubelet import driver as kubelet_driver
from genplug.observe.events import Event
from genplug.testing.dra import DraError, DraKubelet
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.contract.test_audit import has, wait_for_records
from tests.contract.test_published_resources import build_serve_config
from tests.support.agent_process import start_agent, wait_for_exit
from tests.support.claims import DRIVER
from tests.support.dra_node import NODE, DraNode, open_dra_node, wait_for_status
from tests.support.http import get
from tests.support.resources import X, Y, plug_devices, write_policy

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
    async with dra.run_agent(X_BY_DRA, listen=("127.0.0.1", 0)) as agent:
        await dra.wait_published(X, "x0", "x1")
        await wait_for_status(agent, lambda status: status.is_ready)
        claim = dra.allocate(1, X, "x1")
        await dra.kubelet.prepare("pod", claim)
        entries = record_events(agent)
        await dra.server.stop()
        await next_event(entries, Event.API_SERVER_AWAY)
        code, text = await get(agent, "/readyz?verbose")
        assert code == 200
        assert "[!] ResourceSlices: " in text
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


@pytest.mark.parametrize("api", ["devicePlugin", "dra"])
async def test_poll_without_a_pod_that_this_kubelet_has_reported_frees_its_device(
    dra: DraNode, monkeypatch: pytest.MonkeyPatch, api: str
) -> None:
    """DRA point 21. Only a kubelet that has started since may not know its pods yet."""
    monkeypatch.setattr(alias_pools, "GRACE_POLLS", 1000)
    alias, kubelet = "example.com/old", dra.node.kubelet
    by_device_plugin = X_BY_DEVICE_PLUGIN.replace("example.com/x: {", f"example.com/x: {{aliases: [{alias}], ")
    async with dra.run_agent(by_device_plugin):
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await kubelet.wait_for_list(alias, healthy={"x0", "x1"})
        await kubelet.admit(alias, pod="user", ids={"x0"})
        await kubelet.wait_for_list(X, healthy={"x1"})
        # The kubelet has reported the pod to a poll that started after its admission.
        polls = kubelet.pod_lists
        await kubelet.wait_for(lambda: kubelet.pod_lists >= polls + 3)
        if api == "dra":
            dra.node.write_config(by_device_plugin.replace("devicePlugin", "dra", 1))
            await dra.wait_published(X, "x1")
        await kubelet.remove_pod("user")
        if api == "dra":
            await dra.wait_published(X, "x0", "x1")
        else:
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_status_of_a_resource_that_changes_its_api_states_what_it_waits_for(dra: DraNode) -> None:
    alias, kubelet = "example.com/old", dra.node.kubelet
    by_device_plugin, by_dra = (
        config.replace("example.com/x: {", f"example.com/x: {{aliases: [{alias}], ")
        for config in (X_BY_DEVICE_PLUGIN, X_BY_DRA)
    )
    async with dra.run_agent(by_device_plugin, listen=("127.0.0.1", 0)) as agent:
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await kubelet.wait_for_list(alias, healthy={"x0", "x1"})
        await kubelet.admit(X, pod="user", ids={"x0"})
        await kubelet.admit(alias, pod="other", ids={"x1"})
        await dra.server.stop()
        entries = record_events(agent)
        dra.node.write_config(by_dra)
        texts = [(await next_event(entries, Event.RESOURCE_REMOVED)).text for _ in range(2)]
        assert all(": served by Dynamic Resource Allocation; " in text for text in texts)
        await dra.kubelet.wait_registered(DRIVER)
        # The devices are not published, although the endpoints of the device plugin API are registered.
        await wait_for_status(
            agent, lambda status: f"{X}: not published: its devices are not pub" in str(status.unready)
        )
        document = json.loads((await get(agent, "/statusz"))[1])
        found = {resource["name"]: resource for resource in document["resources"]}
        keys = ("removed", "moved", "registered", "keptForPods", "healthy")
        assert [found[X][key] for key in keys] == [False, True, False, 1, 2]
        assert [found[alias][key] for key in keys] == [True, True, True, 1, 0]
        await dra.server.start()
        await wait_for_status(agent, lambda status: status.is_ready)


async def test_kubelet_that_does_not_know_its_pods_yet_frees_no_device(
    dra: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DRA point 21."""
    for module in (alias_pools, endpoints):
        monkeypatch.setattr(module, "GRACE_POLLS", 1000)
    kubelet = dra.node.kubelet
    async with dra.run_agent(X_BY_DEVICE_PLUGIN) as agent:
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        [device] = (await kubelet.admit(X, pod="user")).ids
        dra.node.write_config(X_BY_DRA)
        await dra.server.wait_for(lambda: len(dra.devices(X)) == 1)
        events: list[Event] = []
        agent.event_log.listen(lambda entry: events.append(entry.event))
        await kubelet.crash()
        kubelet.has_listed_pods = False
        await kubelet.start()
        first = kubelet.pod_lists
        # Each of the two tasks that poll has polled more than once.
        await kubelet.wait_for(lambda: kubelet.pod_lists >= first + 6)
        assert len(dra.devices(X)) == 1
        with pytest.raises(DraError, match=f"device {device} of {X} is in use by the pod default/user"):
            await dra.kubelet.prepare("pod", dra.allocate(1, X, device))
        assert Event.RESOURCE_DRAINED not in events


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


async def test_restarted_agent_serves_an_empty_list_until_no_pod_uses_the_device_plugin_api(dra: DraNode) -> None:
    """DRA point 21."""
    alias, kubelet = "example.com/old", dra.node.kubelet
    by_device_plugin, by_dra = (
        config.replace("example.com/x: {", f"example.com/x: {{aliases: [{alias}], ")
        for config in (X_BY_DEVICE_PLUGIN, X_BY_DRA)
    )
    async with dra.run_agent(by_device_plugin):
        await kubelet.wait_for_list(alias, healthy={"x0", "x1"})
        await kubelet.admit(alias, pod="user", ids={"x0"})
    async with dra.run_agent(by_dra) as agent:
        await kubelet.wait_registered(alias, 2)
        await kubelet.wait_for_list(alias, lambda devices: not devices)
        await dra.wait_published(X, "x1")
        assert len([entry for entry in kubelet.registrations if entry.resource == X]) == 1
        entries = record_events(agent)
        await kubelet.remove_pod("user")
        drained = await next_event(entries, Event.RESOURCE_DRAINED)
        assert drained.facts["resource"] == alias
        await dra.wait_published(X, "x0", "x1")


@pytest.mark.parametrize(
    ("before", "after", "name", "device"),
    [
        ("replicas: 2, ", "", X, "x0-r0"),
        ("", "replicas: 2, ", X, "x0"),
        ("", "aliases: [example.com/x], ", "example.com/new", "x0"),
    ],
)
async def test_device_of_a_claim_by_a_former_configuration_is_withheld_until_it_is_unprepared(
    dra: DraNode, before: str, after: str, name: str, device: str
) -> None:
    held = (
        "the ResourceClaim default/claim-1 has it by a former configuration; it is published when that claim is "
        "unprepared"
    )
    dra.node.unplug("/dev/x1")
    new_config = X_BY_DRA.replace("example.com/x: {", f"{name}: {{{after}")
    async with dra.run_agent(X_BY_DRA.replace("example.com/x: {", f"example.com/x: {{{before}")):
        await dra.server.wait_for(lambda: device in dra.devices(X))
        await dra.kubelet.prepare("pod", dra.allocate(1, X, device))
        dra.node.write_config(new_config)
        await dra.server.wait_for(lambda: not dra.server.slices())
    async with dra.run_agent() as agent:
        await dra.kubelet.wait_registered(DRIVER, 2)
        await wait_for_status(agent, lambda status: held in str(status.dra))
        assert agent.status.dra is not None
        [published] = agent.status.dra.resources
        assert {note.text for note in published.left_out} == {held}
        [other, *_] = [note.id for note in published.left_out]
        with pytest.raises(DraError, match="is still prepared for the ResourceClaim default/claim-1"):
            await dra.kubelet.prepare("other", dra.allocate(2, name, other))
        await dra.kubelet.unprepare("pod")
        await dra.wait_published(name, *(note.id for note in published.left_out))


async def test_device_of_a_claim_is_withheld_under_a_new_name_of_its_resource(dra: DraNode) -> None:
    """DRA point 22."""
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        await dra.kubelet.prepare("pod", dra.allocate(1, X, "x1"))
    config = X_BY_DEVICE_PLUGIN.replace("example.com/x: {", "example.com/new: {aliases: [example.com/x], ")
    async with dra.run_agent(config):
        await dra.kubelet.wait_registered(DRIVER, 2)
        await dra.node.kubelet.wait_for_list("example.com/new", healthy={"x0"})
        await dra.kubelet.unprepare("pod")
        await dra.node.kubelet.wait_for_list("example.com/new", healthy={"x0", "x1"})


async def test_device_of_a_claim_without_record_is_withheld_until_its_pod_has_ended(dra: DraNode) -> None:
    """DRA point 22."""
    kubelet = dra.node.kubelet
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        await dra.kubelet.prepare("pod", dra.allocate(1, X, "x1"))
    # The chart gives an agent without resources of claims no directory of records.
    records = dra.node.kubelet_dir / "plugins" / DRIVER
    records.rename(records.with_name("elsewhere"))
    async with dra.run_agent(X_BY_DEVICE_PLUGIN) as agent:
        await kubelet.wait_for_list(X, healthy={"x0"})
        [status] = [resource for resource in agent.status.resources if resource.name == X]
        assert [device.reason for device in status.devices] == ["", "the ResourceClaim default/claim-1 uses it"]
        assert {message.devices.healthy for message in kubelet.messages(X)} == {frozenset({"x0"})}
        kubelet.list_claims = tuple
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})


@pytest.mark.parametrize("starts", [1, 2])
async def test_device_of_a_claim_with_a_damaged_record_is_withheld_until_its_pod_has_ended(
    dra: DraNode, starts: int
) -> None:
    """DRA point 22."""
    kubelet = dra.node.kubelet
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        damaged, intact = dra.allocate(1, X, "x0"), dra.allocate(2, X, "x1")
        await dra.kubelet.prepare("first", damaged)
        await dra.kubelet.prepare("second", intact)
    dra.record(damaged).write_text("")
    for number in range(starts):
        config = X_BY_DEVICE_PLUGIN if number == starts - 1 else X_BY_DRA
        async with dra.run_agent(config):
            await dra.kubelet.wait_registered(DRIVER, 2 + number)
            if config == X_BY_DEVICE_PLUGIN:
                await kubelet.wait_for_list(X, lambda devices: devices.ids == {"x0", "x1"})
                assert not any(message.devices.healthy for message in kubelet.messages(X))
                await dra.kubelet.unprepare("second")
                await kubelet.wait_for_list(X, healthy={"x1"})
                await dra.kubelet.unprepare("first")
                await kubelet.wait_for_list(X, healthy={"x0", "x1"})


def lose_records(dra: DraNode) -> None:
    """Remove the records of claims, as from an emptied directory of the driver."""
    for path in (dra.node.kubelet_dir / "plugins" / DRIVER / "claims").iterdir():
        path.unlink()


@pytest.mark.parametrize("y", ["devicePlugin", "dra"])
async def test_lost_record_frees_no_device_for_the_device_plugin_api(dra: DraNode, y: str) -> None:
    """DRA point 22. The driver runs until the claim is unprepared, also without a resource of its own."""
    kubelet = dra.node.kubelet
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        claim = dra.allocate(1, X, "x1")
        await dra.kubelet.prepare("pod", claim)
    lose_records(dra)
    async with dra.run_agent(build_serve_config(x="devicePlugin", y=y)):
        await kubelet.wait_for_list(X, healthy={"x0"})
        await dra.kubelet.wait_registered(DRIVER, 2)
        # A container of the pod can be restarted.
        assert dra.cdi_file(claim).exists()
        assert {message.devices.healthy for message in kubelet.messages(X)} == {frozenset({"x0"})}
        await dra.kubelet.unprepare("pod")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert not dra.cdi_file(claim).exists()


async def test_cdi_file_of_an_unknown_claim_is_removed(dra: DraNode) -> None:
    unknown = dra.node.locate(f"/var/run/cdi/dra_{DRIVER}_unknown.json")
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        await dra.kubelet.prepare("pod", dra.allocate(1, X, "x1"))
    unknown.write_text("{}")
    async with dra.run_agent():
        await dra.kubelet.wait_registered(DRIVER, 2)
        assert not unknown.exists()


async def test_lost_record_frees_no_device_for_another_claim(dra: DraNode, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only the event of the kubelet frees the device.
    monkeypatch.setattr(alias_pools, "GRACE_POLLS", 1000)
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        first = dra.allocate(1, X, "x1")
        await dra.kubelet.prepare("pod", first)
    lose_records(dra)
    async with dra.run_agent():
        await dra.kubelet.wait_registered(DRIVER, 2)
        second = dra.allocate(2, X, "x1")
        with pytest.raises(DraError, match="is still prepared for the ResourceClaim default/claim-1; it becomes free"):
            await dra.kubelet.prepare("other", second)
        # A kubelet that has started prepares the claims of its pods again, which gives them records.
        await dra.kubelet.restart()
        await dra.kubelet.wait_registered(DRIVER, 3)
        await dra.kubelet.prepare("pod", first)
        assert dra.record(first).exists()
        await dra.kubelet.unprepare("pod")
        await dra.kubelet.prepare("other", second)


async def test_lost_record_frees_no_device_under_a_new_name_of_its_resource(dra: DraNode) -> None:
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        await dra.kubelet.prepare("pod", dra.allocate(1, X, "x1"))
    lose_records(dra)
    async with dra.run_agent(X_BY_DRA.replace("example.com/x: {", "example.com/new: {aliases: [example.com/x], ")):
        await dra.wait_published("example.com/new", "x0")
        await dra.kubelet.unprepare("pod")
        await dra.wait_published("example.com/new", "x0", "x1")


async def test_hardware_of_a_claim_without_record_gets_no_other_device_id(dra: DraNode) -> None:
    config = X_BY_DRA.replace("/dev/x*", "/dev/by-id/*")
    dra.node.link("/dev/by-id/first", "/dev/x0")
    async with dra.run_agent(config):
        await dra.server.wait_for(lambda: len(dra.devices(X)) == 1)
        [first] = dra.devices(X)
        await dra.kubelet.prepare("pod", dra.allocate(1, X, first))
    lose_records(dra)
    async with dra.run_agent() as agent:
        await dra.kubelet.wait_registered(DRIVER, 2)
        entries = record_events(agent)
        dra.node.unplug("/dev/by-id/first")
        dra.node.link("/dev/by-id/second", "/dev/x0")
        await next_event(entries, Event.DEVICE_WITHHELD)
        # The agent asks the kubelet after 0.5 s whether the device is free, and for the pools every 0.1 s.
        polls = dra.node.kubelet.pod_lists
        await dra.node.kubelet.wait_for(lambda: dra.node.kubelet.pod_lists >= polls + 12)
        assert not dra.devices(X) or first in dra.devices(X)
        await dra.kubelet.unprepare("pod")
        await dra.server.wait_for(lambda: any("second" in name for name in dra.devices(X)))


async def test_status_that_is_read_during_an_evaluation_is_the_previous_status(
    dra: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The HTTP server reads the status in a thread."""
    seen: set[tuple[str, ...]] = set()
    async with dra.run_agent(build_serve_config(x="dra", y="dra")) as agent:
        await dra.wait_published(X, "x0", "x1")
        await dra.wait_published(Y, "y0")
        publish = ResourcePublisher.publish

        def read_status(*arguments: Any, **options: Any) -> PublishedResource:
            assert agent.status.dra is not None
            seen.add(tuple(published.resource for published in agent.status.dra.resources))
            return publish(*arguments, **options)

        monkeypatch.setattr(ResourcePublisher, "publish", read_status)
        dra.node.plug("/dev/x2")
        dra.node.plug("/dev/y1")
        await dra.wait_published(X, "x0", "x1", "x2")
        await dra.wait_published(Y, "y0", "y1")
    assert seen == {(X, Y)}


async def test_process_publishes_over_tls_and_keeps_slices_and_claims_when_it_ends(dra: DraNode) -> None:
    """DRA point 12."""
    await dra.node.kubelet.start()
    dra.node.write_config(X_BY_DRA)
    options = ("--node-name", NODE, "--service-account-dir", str(dra.account), "--listen", "127.0.0.1:0")
    async with start_agent(dra.node, *options) as process:
        await dra.wait_published(X, "x0", "x1")
        claim = dra.allocate(1, X, "x1")
        await dra.kubelet.prepare("pod", claim)
        process.terminate()
        assert await wait_for_exit(process) == 0
    assert sorted(dra.devices(X)) == ["x0", "x1"]
    assert (dra.record(claim).exists(), dra.cdi_file(claim).exists()) == (True, True)
    driver = dra.node.kubelet_dir / "plugins" / DRIVER
    assert sorted(path.name for path in driver.iterdir()) == ["claims"]
    assert list((dra.node.kubelet_dir / "plugins_registry").iterdir()) == []


async def test_kubelet_without_drivers_is_reported_and_other_resources_are_served(dra: DraNode) -> None:
    """DRA point 24."""
    await dra.kubelet.stop()
    async with (
        DraKubelet(dra.node.kubelet_dir, version=(1, 30), loop_seconds=0.01),
        dra.run_agent(X_BY_DRA) as agent,
    ):
        await next_event(record_events(agent), Event.DRA_UNSUPPORTED)
        await dra.node.kubelet.wait_for_list(Y, healthy={"y0"})
        [reason] = agent.status.unready
        assert reason == f"{X}: not published: {UNSUPPORTED_KUBELET}"
        assert not dra.server.slices()


async def test_agent_outside_of_a_pod_states_what_it_needs(dra: DraNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    async with dra.run_agent(X_BY_DRA) as agent:
        event = await next_event(record_events(agent), Event.API_SERVER_AWAY)
        assert "expected the address of the API server in KUBERNETES_SERVICE_HOST" in event.text
        await dra.node.kubelet.wait_for_list(Y, healthy={"y0"})
        [reason] = agent.status.unready
        assert reason.endswith("run the agent in a pod, or set both variables")


async def test_agent_refuses_an_attribute_of_the_domain_of_its_driver(dra: DraNode) -> None:
    publish = "serve: dra, publish: {attributes: {dra.example.com/model: a}},"
    async with dra.run_agent(X_BY_DRA.replace("serve: dra,", publish), dra_driver="dra.example.com") as agent:
        await wait_for_status(agent, lambda status: bool(status.config.error))
        assert "names of the driver's domain 'dra.example.com' are written without" in agent.status.config.error
        assert not dra.server.slices()


async def test_kubelet_calls_no_program_of_a_resource_that_claims_get_from_now_on(dra: DraNode) -> None:
    """DRA point 21."""
    kubelet = dra.node.kubelet
    policy = write_policy(dra.node, "exec: {allow: [/bin/true]}")
    by_device_plugin, by_dra = (
        config.replace("example.com/x: {", "example.com/x: {preStart: {exec: {command: [/bin/true]}}, ")
        for config in (X_BY_DEVICE_PLUGIN, X_BY_DRA)
    )
    async with dra.run_agent(by_device_plugin, policy=policy):
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        [device] = (await kubelet.admit(X, pod="user")).ids
        [free] = {"x0", "x1"} - {device}
        dra.node.write_config(by_dra)
        registration = await kubelet.wait_registered(X, 2)
        assert not registration.pre_start_required
        await dra.wait_published(X, free)
        await kubelet.remove_pod("user")
        await dra.wait_published(X, "x0", "x1")


def test_agent_without_resources_of_dra_imports_nothing_of_it() -> None:
    """DRA point 25."""
    script = """
import sys
from genplug.cli.run import import_serving
import_serving()
import asyncio
from genplug.testing.node.fake_node import FakeNode

async def run():
    async with FakeNode() as node:
        node.plug("/dev/x0")
        async with node.run_agent(sys.argv[1], node_name="node-1", listen=("127.0.0.1", 0)) as agent:
            await node.kubelet.wait_for_list("example.com/x", healthy={"x0"})
            await node.kubelet.admit("example.com/x")
            assert agent.status.as_json()["dra"] is None

asyncio.run(run())
print(*sorted(sys.modules))
"""
    config = build_serve_config(x="devicePlugin")
    done = subprocess.run([sys.executable, "-c", script, config], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"genplug.agent.driver", "genplug.kubelet.endpoint"} <= imported
    unexpected = {
        "genplug.agent.claim_files",
        "genplug.agent.claim_ledger",
        "genplug.agent.claim_record_builder",
        "genplug.agent.claims",
        "genplug.agent.driver_service",
        "genplug.agent.publisher",
        "genplug.agent.publisher_decision",
        "genplug.agent.publisher_state",
        "genplug.agent.publisher_status",
        "genplug.allocation.claim_cdi",
        "genplug.allocation.claims",
        "genplug.allocation.published",
        "genplug.allocation.slice_plan",
        "genplug.allocation.slices",
        "genplug.cluster",
        "genplug.kubelet.driver",
        "genplug.observe.dra_status",
        "genplug.spec.published_values",
        "h11",
        "ssl",
    }
    assert all(importlib.util.find_spec(name) for name in unexpected)
    assert not unexpected & imported


async def test_device_of_a_pod_by_an_alias_is_withheld_from_claims_and_the_reverse(dra: DraNode) -> None:
    alias, kubelet = "example.com/old", dra.node.kubelet
    by_device_plugin, by_dra = (
        config.replace("example.com/x: {", f"example.com/x: {{aliases: [{alias}], ")
        for config in (X_BY_DEVICE_PLUGIN, X_BY_DRA)
    )
    async with dra.run_agent(by_device_plugin):
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await kubelet.wait_for_list(alias, healthy={"x0", "x1"})
        await kubelet.admit(alias, pod="user", ids={"x0"})
        dra.node.write_config(by_dra)
        await dra.wait_published(X, "x1")
        await kubelet.remove_pod("user")
        await dra.wait_published(X, "x0", "x1")
        await dra.kubelet.prepare("pod", dra.allocate(1, X, "x0"))
        dra.node.write_config(by_device_plugin)
        await kubelet.wait_for_list(alias, healthy={"x1"})
        await kubelet.wait_for_list(X, healthy={"x1"})
        await dra.kubelet.unprepare("pod")
        await kubelet.wait_for_list(alias, healthy={"x0", "x1"})


async def test_hardware_of_a_claim_gets_no_other_device_id_before_it_is_unprepared(dra: DraNode) -> None:
    config = X_BY_DRA.replace("/dev/x*", "/dev/by-id/*")
    dra.node.link("/dev/by-id/first", "/dev/x0")
    async with dra.run_agent(config) as agent:
        await dra.server.wait_for(lambda: len(dra.devices(X)) == 1)
        [first] = dra.devices(X)
        claim = dra.allocate(1, X, first)
        await dra.kubelet.prepare("pod", claim)
        entries = record_events(agent)
        dra.node.unplug("/dev/by-id/first")
        dra.node.link("/dev/by-id/second", "/dev/x0")
        await next_event(entries, Event.DEVICE_WITHHELD)
        dra.node.link("/dev/by-id/third", "/dev/x1")
        await dra.server.wait_for(lambda: any("third" in name for name in dra.devices(X)))
        assert not any("second" in name for name in dra.devices(X))
        await dra.kubelet.unprepare("pod")
        await dra.server.wait_for(lambda: any("second" in name for name in dra.devices(X)))


async def test_hardware_of_a_claim_that_is_being_prepared_gets_no_other_resource_name(dra: DraNode) -> None:
    gate, program = dra.node.directory / "gate", dra.node.directory / "reset"
    os.mkfifo(gate)
    program.write_text(f"#!/bin/sh\nread line < {gate}\n")
    program.chmod(0o755)
    policy = write_policy(dra.node, f"exec: {{allow: ['{program}']}}")
    config = X_BY_DRA.replace(
        "example.com/x: {", f"example.com/x: {{preStart: {{exec: {{command: ['{program}']}}, timeoutSeconds: 20}}, "
    )
    async with dra.run_agent(config, policy=policy) as agent:
        await dra.wait_published(X, "x0", "x1")
        entries = record_events(agent)
        preparing = asyncio.create_task(dra.kubelet.prepare("pod", dra.allocate(1, X, "x1")))
        # The program has started when it opens the FIFO.
        with await asyncio.to_thread(gate.open, "w") as opened:
            dra.node.write_config(X_BY_DEVICE_PLUGIN.replace("example.com/x", "example.com/new"))
            await next_event(entries, Event.DEVICE_WITHHELD)
            await dra.node.kubelet.wait_for_list("example.com/new", healthy={"x0"})
            assert all("x1" not in message.devices.healthy for message in dra.node.kubelet.messages("example.com/new"))
            opened.write("go\n")
        await preparing
        await dra.kubelet.unprepare("pod")
        await dra.node.kubelet.wait_for_list("example.com/new", healthy={"x0", "x1"})


async def test_agent_publishes_many_devices_with_few_requests(dra: DraNode) -> None:
    """DRA point 1."""
    resources = [f"r{number}" for number in range(10)]
    plug_devices(dra.node, *(f"{name}-{number}" for name in resources for number in range(100)))
    config = build_serve_config(**dict.fromkeys(resources, "dra")).replace("*'", "-*'")
    async with dra.run_agent(config) as agent:
        await wait_for_status(agent, lambda status: status.is_ready)
        assert len(dra.server.slices()) == 20
        assert sum(len(dra.devices(f"example.com/{name}")) for name in resources) == 1000
        assert len(dra.server.requests) <= 40


async def test_unhealthy_device_is_not_published_where_the_api_server_drops_taints(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DRA point 19."""
    plug_devices(node, "x0", "x1")
    config = build_serve_config(x="dra").replace(
        "serve: dra,", "serve: dra, health: {removalGracePeriodSeconds: 3600},"
    )
    async with open_dra_node(node, monkeypatch, version=(1, 34)) as dra, dra.run_agent(config) as agent:
        await dra.wait_published(X, "x0", "x1")
        dra.node.unplug("/dev/x0")
        await dra.wait_published(X, "x1")
        assert agent.status.dra is not None
        [published] = agent.status.dra.resources
        assert [(note.id, note.text) for note in published.left_out] == [("x0", "/dev/x0 is gone")]
        assert "the API server does not keep taints" in agent.status.dra.warnings[0]
        dra.node.plug("/dev/x0")
        await dra.wait_published(X, "x0", "x1")


async def test_nothing_is_offered_before_the_records_of_claims_are_read(
    dra: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "RETRY_SECONDS", 0.05)
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        await dra.kubelet.prepare("pod", dra.allocate(1, X, "x1"))
    records = dra.node.kubelet_dir / "plugins" / DRIVER / "claims"
    hidden = records.rename(records.with_name("hidden"))
    records.write_text("")
    registrations = len(dra.node.kubelet.registrations)
    async with dra.run_agent(X_BY_DEVICE_PLUGIN) as agent:
        entries = record_events(agent)
        event = await next_event(entries, Event.DRA_SERVE_FAILED)
        assert f"the records of prepared claims in {records} cannot be restored" in event.text
        assert any(reason.startswith("kubelet: the records of prepared claims") for reason in agent.status.unready)
        assert len(dra.node.kubelet.registrations) == registrations
        records.unlink()
        hidden.rename(records)
        await dra.node.kubelet.wait_for_list(X, healthy={"x0"})


async def test_status_and_audit_log_have_the_pods_of_claims(dra: DraNode, tmp_path: Path) -> None:
    async with dra.run_agent(X_BY_DRA, audit_dir=tmp_path, poll_seconds=0.1, listen=("127.0.0.1", 0)) as agent:
        await dra.wait_published(X, "x0", "x1")
        await dra.kubelet.prepare("first", dra.allocate(1, X, "x1"))
        await wait_for_records(tmp_path, has("assigned"))
        await asyncio.to_thread(main, ["status", "--address", f"127.0.0.1:{agent.http_port}"])
        status = agent.status
        assert status.dra is not None
        [claim] = status.dra.claims
        assert (claim.name, claim.pods) == ("claim-1", ("first",))
        [resource] = [resource for resource in status.resources if resource.name == X]
        assert (resource.used_ids, resource.free) == (frozenset({"x1"}), 1)
        await dra.kubelet.unprepare("first")
        documents = await wait_for_records(tmp_path, has("released"))
    [assigned] = [document for document in documents if document["type"] == "assigned"]
    assert assigned["assignment"]["pod"] == "first"
    assert assigned["assignment"]["allocatedAt"]


async def test_slices_are_not_written_while_the_driver_has_lost_its_registration(
    dra: DraNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet_driver, "CHECK_SECONDS", 0.05)
    async with dra.run_agent(X_BY_DRA) as agent:
        await dra.wait_published(X, "x0", "x1")
        await wait_for_status(agent, lambda status: status.is_ready)
        await dra.kubelet.stop()
        entries = record_events(agent)
        (dra.node.kubelet_dir / "plugins_registry" / f"{DRIVER}-reg.sock").unlink()
        event = await next_event(entries, Event.DRA_SERVE_FAILED)
        assert "another program removed a socket of the driver" in event.text
        dra.server.wipe_slices(NODE, DRIVER)
        await wait_for_status(
            agent, lambda status: status.dra is not None and status.dra.phase == "waiting for the kubelet"
        )
        assert dra.server.slices() == []
        await dra.kubelet.start()
        await dra.wait_published(X, "x0", "x1")


async def test_driver_ends_although_its_slices_cannot_be_deleted(dra: DraNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_service, "DRAIN_SECONDS", 0.0)
    async with dra.run_agent(X_BY_DRA) as agent:
        await dra.wait_published(X, "x0", "x1")
        await dra.server.stop()
        entries = record_events(agent)
        dra.node.write_config(X_BY_DEVICE_PLUGIN)
        await next_event(entries, Event.DRA_ENDED)
        assert agent.status.dra is None
        assert not (dra.node.kubelet_dir / "plugins_registry" / f"{DRIVER}-reg.sock").exists()
        assert dra.server.slices()
        await dra.node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        # The resource returns.
        await dra.server.start()
        dra.node.write_config(X_BY_DRA)
        await dra.kubelet.wait_registered(DRIVER, 2)
        await wait_for_status(agent, lambda status: status.is_ready)


async def test_slices_are_kept_until_the_kubelet_has_reported_which_devices_pods_use(dra: DraNode) -> None:
    """DRA point 12."""
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
    before = dra.server.slices()
    directory = dra.node.directory / "late"
    async with dra.run_agent(pod_resources_dir=directory) as agent:
        await wait_for_status(agent, lambda status: status.dra is not None and status.dra.is_registered)
        [reason] = agent.status.unready
        assert reason == (
            f"{X}: not published: the kubelet has not reported yet which devices pods use by the device plugin API"
        )
        directory.symlink_to(dra.node.kubelet.pod_resources_socket.parent)
        await wait_for_status(agent, lambda status: status.is_ready)
        assert dra.server.slices() == before


async def test_slices_of_an_earlier_process_are_deleted_while_a_claim_is_prepared(dra: DraNode) -> None:
    async with dra.run_agent(X_BY_DRA):
        await dra.wait_published(X, "x0", "x1")
        await dra.kubelet.prepare("pod", dra.allocate(1, X, "x1"))
    assert dra.server.slices()
    async with dra.run_agent(X_BY_DEVICE_PLUGIN):
        await dra.node.kubelet.wait_for_list(X, healthy={"x0"})
        await dra.server.wait_for(lambda: not dra.server.slices())
