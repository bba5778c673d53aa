"""Injection by CDI: when the files are written, restored and removed (points 34 and 67)."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER, format_cdi_spec
from tests.support.mounts import mount_tmpfs
from tests.support.resources import build_config, plug_devices, write_policy

CARD = "example.com/card"
CONFIG = (
    f"{CONFIG_HEADER}resources:\n"
    f"  {CARD}: {{devices: [{{glob: /dev/x*}}], allocate: {{env: {{X: '${{path}}'}}, inject: cdi}}}}\n"
)
FILE = "/var/run/cdi/genplug-example.com_card.json"


def read_devices(path: Path) -> dict[str, Any]:
    """Return the container edits of each device in a CDI file."""
    return {device["name"]: device["containerEdits"] for device in json.loads(path.read_text())["devices"]}


async def test_67_cdi_file_defines_the_devices_that_allocate_names(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    async with node.run_agent(CONFIG):
        await node.kubelet.wait_for_list(CARD, healthy={"x0", "x1"})
        assert read_devices(node.locate(FILE)) == {
            name: {
                "deviceNodes": [
                    {"path": f"/dev/{name}", "type": "c", "major": 240, "minor": minor, "permissions": "rw"}
                ]
            }
            for minor, name in enumerate(("x0", "x1"))
        }
        response = (await node.kubelet.admit(CARD, 2, ids={"x0", "x1"})).response
        assert [device.name for device in response.cdi_devices] == ["example.com/card=x0", "example.com/card=x1"]
        assert (list(response.devices), dict(response.envs)) == ([], {"X": "/dev/x0,/dev/x1"})


async def test_cdi_file_has_owner_group_and_mode_of_nodes_and_the_groups(node: FakeNode) -> None:
    node.plug("/dev/x0", major=240, minor=5)
    node.plug("/dev/ctl", major=240, minor=6)
    source = (
        "{glob: /dev/x*, nodes: [{path: '${path}', owner: 1000, mode: '0600'}], with: [{path: /dev/ctl, group: 44}]}"
    )
    config = (
        f"{CONFIG_HEADER}resources:\n  {CARD}:\n    devices: [{source}]\n"
        "    allocate: {inject: cdi, supplementalGroups: [44, 992]}\n"
    )
    policy = write_policy(node, "supplementalGroups: {allow: [44, 992]}\n")
    async with node.run_agent(config, policy=policy):
        await node.kubelet.wait_for_list(CARD, lambda devices: len(devices.healthy) == 1)
        spec = json.loads(node.locate(FILE).read_text())
        assert spec["cdiVersion"] == "0.7.0"
        x0 = {"path": "/dev/x0", "type": "c", "major": 240, "minor": 5, "fileMode": 0o600, "uid": 1000}
        ctl = {"path": "/dev/ctl", "type": "c", "major": 240, "minor": 6, "gid": 44}
        assert spec["devices"][0]["containerEdits"] == {
            "deviceNodes": [{**x0, "permissions": "rw"}, {**ctl, "permissions": "rw"}],
            "additionalGids": [44, 992],
        }
        response = (await node.kubelet.admit(CARD)).response
        assert (list(response.devices), list(response.mounts)) == ([], [])
        # A policy that changes applies to the active configuration.
        write_policy(node, "supplementalGroups: {allow: [44]}\n")
        await node.kubelet.wait_for_list(CARD, lambda devices: len(devices.unhealthy) == 1)
        [device] = node.kubelet.devices(CARD).unhealthy
        with pytest.raises(grpc.aio.AioRpcError, match=r"the group 992 is refused by 'supplementalGroups\.allow'"):
            await node.kubelet.plugin(CARD).allocate([[device]])


async def test_cdi_file_follows_device_changes_and_keeps_unhealthy_devices(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    async with node.run_agent(CONFIG):
        await node.kubelet.wait_for_list(CARD, healthy={"x0", "x1"})
        node.plug("/dev/x2")
        await node.kubelet.wait_for_list(CARD, healthy={"x0", "x1", "x2"})
        assert read_devices(node.locate(FILE)).keys() == {"x0", "x1", "x2"}
        node.unplug("/dev/x0")
        await node.kubelet.wait_for_list(CARD, unhealthy={"x0"})
        # A container that has the device may be started again when the device returns.
        assert read_devices(node.locate(FILE)).keys() == {"x0", "x1", "x2"}


async def test_67_deleted_cdi_file_is_written_again_before_allocate_returns(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG):
        await node.kubelet.wait_for_list(CARD, healthy={"x0"})
        node.locate(FILE).unlink()
        node.locate(FILE).parent.rmdir()
        await node.kubelet.admit(CARD)
        assert read_devices(node.locate(FILE)).keys() == {"x0"}


async def test_cdi_device_that_another_file_defines_is_refused_with_the_file(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    async with node.run_agent(CONFIG):
        await node.kubelet.wait_for_list(CARD, healthy={"x0", "x1"})
        client = node.kubelet.plugin(CARD)
        # A definition in an earlier directory does not count.
        node.write("/etc/cdi/vendor.json", format_cdi_spec("example.com/card", "x0"))
        await client.allocate([["x0"]])
        other = node.locate("/var/run/cdi/vendor.json")
        other.write_text(format_cdi_spec("example.com/card", "x0"))
        with pytest.raises(grpc.aio.AioRpcError, match=r"/var/run/cdi/vendor\.json defines the CDI device"):
            await client.allocate([["x0"]])
        await client.allocate([["x1"]])
        other.unlink()
        await client.allocate([["x0"]])


async def test_cdi_file_of_a_later_directory_is_refused(node: FakeNode) -> None:
    plug_devices(node, "x0")
    node.write("/opt/cdi/vendor.json", format_cdi_spec("example.com/card", "x0"))
    async with node.run_agent(CONFIG, cdi_search_dirs=("/var/run/cdi", "/opt/cdi")):
        await node.kubelet.wait_for_list(CARD, healthy={"x0"})
        with pytest.raises(grpc.aio.AioRpcError, match=r"/opt/cdi/vendor\.json defines the CDI device"):
            await node.kubelet.plugin(CARD).allocate([["x0"]])


async def test_unwritable_cdi_directory_makes_devices_unhealthy_until_fixed(node: FakeNode) -> None:
    node.plug("/dev/x0")
    directory = node.locate(FILE).parent
    directory.parent.mkdir(parents=True)
    directory.write_text("a file instead of a directory")
    # The write is repeated sooner than lost events are polled for.
    async with node.run_agent(CONFIG, poll_seconds=60) as agent:
        await node.kubelet.wait_for_list(CARD, unhealthy={"x0"})
        [device] = agent.status.resources[0].devices
        assert "the CDI file" in device.reason
        assert "cannot be written" in device.reason
        with pytest.raises(grpc.aio.AioRpcError, match="cannot be written"):
            await node.kubelet.plugin(CARD).allocate([["x0"]])
        directory.unlink()
        await node.kubelet.wait_for_list(CARD, healthy={"x0"})


@pytest.mark.root
async def test_34_full_disk_fails_allocate_leaves_no_partial_file_and_recovers(node: FakeNode) -> None:
    plug_devices(node, "x0")
    directory = node.locate(FILE).parent
    directory.mkdir(parents=True)
    # A page for the padding; the CDI file has none left.
    with mount_tmpfs(directory, "size=4k"):
        padding = directory / "padding"
        padding.write_bytes(bytes(4096))
        async with node.run_agent(CONFIG, poll_seconds=0.1):
            await node.kubelet.wait_for_list(CARD, unhealthy={"x0"})
            with pytest.raises(grpc.aio.AioRpcError, match=r"cannot be written: No space left on device"):
                await node.kubelet.plugin(CARD).allocate([["x0"]])
            assert list(directory.glob("*.json")) == []
            padding.unlink()
            await node.kubelet.wait_for_list(CARD, healthy={"x0"})
            await node.kubelet.admit(CARD)
            assert read_devices(node.locate(FILE)).keys() == {"x0"}


async def test_cdi_file_of_removed_resource_is_kept_while_a_pod_uses_it(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, drain_seconds=0.1) as agent:
        await node.kubelet.wait_for_list(CARD, healthy={"x0"})
        await node.kubelet.admit(CARD, pod="last")
        entries = record_events(agent)
        node.write_config(build_config([]))
        await next_event(entries, Event.RESOURCE_REMOVED)
        assert node.locate(FILE).exists()
        await node.kubelet.remove_pod("last")
        await next_event(entries, Event.RESOURCE_DRAINED)
        assert not node.locate(FILE).exists()


async def test_stale_cdi_files_are_removed_at_start_unless_a_pod_uses_them(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG):
        await node.kubelet.wait_for_list(CARD, healthy={"x0"})
        await node.kubelet.admit(CARD, pod="running")
    await node.kubelet.wait_disconnected(CARD)
    stale, foreign = node.locate("/var/run/cdi/genplug-old.example_y.json"), node.locate("/var/run/cdi/vendor.json")
    stale.write_text("{}")
    foreign.write_text("{}")
    node.plug("/dev/y0")
    async with node.run_agent(build_config(["example.com/y"]), drain_seconds=0.1) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.CDI_REMOVED)
        assert not stale.exists()
        assert node.locate(FILE).exists()
        assert foreign.exists()
