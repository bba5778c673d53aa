"""inject: cdi — the files are there before a name is answered, come back when they are lost, and go when unused (8)."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
X = "example.com/card"
CONFIG = HEAD + f"  {X}: {{devices: [{{glob: /dev/x*}}], allocate: {{env: {{X: '${{path}}'}}, inject: cdi}}}}\n"
FILE = "/var/run/cdi/genplug-example.com_card.json"


def devices(path: Path) -> dict[str, Any]:
    return {device["name"]: device["containerEdits"] for device in json.loads(path.read_text())["devices"]}


async def test_67_cdi_file_defines_the_devices_that_allocate_names(node: FakeNode) -> None:
    node.plug("/dev/x0")
    node.plug("/dev/x1")
    async with node.run_agent(CONFIG):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert devices(node.locate(FILE)) == {
            one: {"deviceNodes": [{"path": f"/dev/{one}", "permissions": "rw"}]} for one in ("x0", "x1")
        }
        answer = (await node.kubelet.admit(X, 2, ids={"x0", "x1"})).response
        assert [one.name for one in answer.cdi_devices] == ["example.com/card=x0", "example.com/card=x1"]
        assert (list(answer.devices), dict(answer.envs)) == ([], {"X": "/dev/x0,/dev/x1"})


async def test_cdi_file_follows_device_changes_and_keeps_unhealthy_devices(node: FakeNode) -> None:
    node.plug("/dev/x0")
    node.plug("/dev/x1")
    async with node.run_agent(CONFIG + "    # \n"):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        node.plug("/dev/x2")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"})
        assert devices(node.locate(FILE)).keys() == {"x0", "x1", "x2"}
        node.unplug("/dev/x0")
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        # Its container may be started again once it is back.
        assert devices(node.locate(FILE)).keys() == {"x0", "x1", "x2"}


async def test_67_deleted_cdi_file_is_written_again_before_allocate_returns(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        node.locate(FILE).unlink()
        node.locate(FILE).parent.rmdir()
        await node.kubelet.admit(X)
        assert devices(node.locate(FILE)).keys() == {"x0"}


async def test_unwritable_cdi_directory_makes_devices_unhealthy_until_fixed(node: FakeNode) -> None:
    node.plug("/dev/x0")
    directory = node.locate(FILE).parent
    directory.parent.mkdir(parents=True)
    directory.write_text("in the way")
    async with node.run_agent(CONFIG, poll=0.1) as agent:
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        [device] = agent.status.resources[0].devices
        assert "the CDI file" in device.reason
        assert "cannot be written" in device.reason
        with pytest.raises(grpc.aio.AioRpcError, match="cannot be written"):
            await node.kubelet.plugin(X).allocate([["x0"]])
        directory.unlink()
        await node.kubelet.wait_for_list(X, healthy={"x0"})


async def test_cdi_file_of_removed_resource_is_kept_while_a_pod_uses_it(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, drain=0.1) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await node.kubelet.admit(X, pod="last")
        entries = record_events(agent)
        node.write_config(HEAD.replace("resources:", "resources: {}"))
        await next_event(entries, Event.RESOURCE_REMOVED)
        assert node.locate(FILE).exists()
        await node.kubelet.remove_pod("last")
        await next_event(entries, Event.RESOURCE_DRAINED)
        assert not node.locate(FILE).exists()


async def test_stale_cdi_files_are_removed_at_start_unless_a_pod_uses_them(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await node.kubelet.admit(X, pod="stays")
    await node.kubelet.wait_disconnected(X)
    stale, foreign = node.locate("/var/run/cdi/genplug-old.example_y.json"), node.locate("/var/run/cdi/vendor.json")
    stale.write_text("{}")
    foreign.write_text("{}")
    node.plug("/dev/y0")
    async with node.run_agent(HEAD + "  example.com/y: {devices: [{glob: /dev/y*}]}\n", drain=0.1) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.CDI_REMOVED)
        assert not stale.exists()
        assert node.locate(FILE).exists()
        assert foreign.exists()
