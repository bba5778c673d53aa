"""The fake node: devices, links, the methods to write a configuration, and the agent."""

import os
import stat
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from genplug.hardware.host import Host
from genplug.testing.node.config_files import WRITE_METHODS, swap_config_map
from genplug.testing.node.fake_node import FakeNode

CONFIG = """
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  example.com/x:
    devices:
      - glob: /dev/x*
"""


@pytest.fixture
async def stand_in_node() -> AsyncIterator[FakeNode]:
    """A node whose devices are stand-ins, even if this process could create device nodes."""
    async with FakeNode(stand_ins=True) as node:
        yield node


@pytest.mark.root
async def test_plug_creates_device_nodes_with_permission() -> None:
    async with FakeNode() as node:
        node.plug("/dev/bus/usb/001/002", major=189, minor=1)
        node.plug("/dev/disk", kind="block")

        found = node.locate("/dev/bus/usb/001/002").stat()
        assert stat.S_ISCHR(found.st_mode)
        assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == (189, 1)
        assert stat.S_ISBLK(node.locate("/dev/disk").stat().st_mode)
        assert not Host.at(node.root).stand_ins


async def test_plug_creates_stand_in_files_without_permission(stand_in_node: FakeNode) -> None:
    stand_in_node.plug("/dev/ttyUSB0", major=188, minor=0)
    stand_in_node.plug("/dev/disk", kind="block")
    host = Host.at(stand_in_node.root)

    tty = host.stat("/dev/ttyUSB0")
    assert tty is not None
    assert tty.numbers == ("char", 188, 0)
    disk = host.stat("/dev/disk")
    assert disk is not None
    assert disk.kind == "block"
    stand_in_node.unplug("/dev/disk")
    assert host.stat("/dev/disk") is None


async def test_device_plugged_again_has_its_previous_numbers(stand_in_node: FakeNode) -> None:
    for path in ("/dev/x0", "/dev/x1"):
        stand_in_node.plug(path)
    before = stand_in_node.locate("/dev/x1").read_text()
    stand_in_node.unplug("/dev/x1")
    stand_in_node.plug("/dev/x2")
    stand_in_node.plug("/dev/x1")
    assert stand_in_node.locate("/dev/x1").read_text() == before
    assert len({stand_in_node.locate(f"/dev/x{n}").read_text() for n in range(3)}) == 3


async def test_links_resolve_to_paths_of_the_host(stand_in_node: FakeNode) -> None:
    stand_in_node.plug("/dev/ttyUSB0")
    stand_in_node.link("/dev/serial/by-id/absolute", "/dev/ttyUSB0")
    stand_in_node.link("/dev/serial/by-id/relative", "../../ttyUSB0")
    for name in ("absolute", "relative"):
        info = Host.at(stand_in_node.root).stat(f"/dev/serial/by-id/{name}")
        assert info is not None
        assert info.resolved == "/dev/ttyUSB0"


@pytest.mark.parametrize("how", sorted(WRITE_METHODS))
async def test_write_config_replaces_files_with_each_method(
    stand_in_node: FakeNode, how: Literal["in_place", "rename", "editor", "configmap"]
) -> None:
    stand_in_node.write_config("first", how=how)
    stand_in_node.write_config("second", "other.yaml", how=how)
    stand_in_node.write_config("third", how=how)

    shown = {
        path.name: path.read_text() for path in stand_in_node.config_dir.iterdir() if not path.name.startswith("..")
    }
    assert shown == {"genplug.yaml": "third", "other.yaml": "second"}


async def test_swap_config_map_replaces_the_linked_directory_and_removes_other_files(stand_in_node: FakeNode) -> None:
    swap_config_map(stand_in_node.config_dir, {"a.yaml": "a", "b.yaml": "b"})
    first = (stand_in_node.config_dir / "..data").readlink()
    swap_config_map(stand_in_node.config_dir, {"a.yaml": "new"})

    second = (stand_in_node.config_dir / "..data").readlink()
    assert first != second
    assert sorted(path.name for path in stand_in_node.config_dir.iterdir()) == sorted([str(second), "..data", "a.yaml"])
    assert str((stand_in_node.config_dir / "a.yaml").readlink()) == "..data/a.yaml"
    assert (stand_in_node.config_dir / "a.yaml").read_text() == "new"


async def test_agent_runs_on_the_node_until_the_context_ends(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG):
        devices = await node.kubelet.wait_for_list("example.com/x", lambda devices: len(devices.healthy) == 1)
        allocation = await node.kubelet.admit("example.com/x")
        assert allocation.ids == tuple(devices)
        assert [spec.host_path for spec in allocation.response.devices] == ["/dev/x0"]
    await node.kubelet.wait_for(lambda: node.kubelet.stream_count("example.com/x") == 0)
    assert sorted(path.name for path in node.kubelet.plugins_dir.glob("*.sock")) == ["kubelet.sock"]


async def test_exception_in_the_context_is_raised_and_the_agent_stops(node: FakeNode) -> None:
    async def fail() -> None:
        async with node.run_agent(CONFIG):
            await node.kubelet.wait_registered("example.com/x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await node.kubelet.wait_for(lambda: node.kubelet.stream_count("example.com/x") == 0)


async def test_context_raises_when_the_agent_ends_early(node: FakeNode) -> None:
    async def end_early() -> None:
        async with node.run_agent(CONFIG) as agent:
            agent.stop()
            await node.kubelet.wait_for(lambda: False)

    with pytest.raises(RuntimeError, match="the agent ended before the context"):
        await end_early()
