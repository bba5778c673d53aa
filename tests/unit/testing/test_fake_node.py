"""The fake node: devices, links, every way to write a configuration, and the agent on it."""

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
async def drawn() -> AsyncIterator[FakeNode]:
    """A node whose devices are stand-ins, whoever runs this."""
    async with FakeNode(stand_ins=True) as node:
        yield node


@pytest.mark.root
async def test_devices_are_real_nodes_where_they_can_be_made() -> None:
    async with FakeNode() as node:
        node.plug("/dev/bus/usb/001/002", major=189, minor=1)
        node.plug("/dev/disk", kind="block")

        found = node.locate("/dev/bus/usb/001/002").stat()
        assert stat.S_ISCHR(found.st_mode)
        assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == (189, 1)
        assert stat.S_ISBLK(node.locate("/dev/disk").stat().st_mode)
        assert not Host.at(node.root).stand_ins


async def test_devices_are_files_that_stand_for_them_elsewhere(drawn: FakeNode) -> None:
    drawn.plug("/dev/ttyUSB0", major=188, minor=0)
    drawn.plug("/dev/disk", kind="block")
    host = Host.at(drawn.root)

    look = host.stat("/dev/ttyUSB0")
    assert look is not None
    assert look.numbers == ("char", 188, 0)
    assert host.stat("/dev/disk").kind == "block"
    drawn.unplug("/dev/disk")
    assert host.stat("/dev/disk") is None


async def test_a_device_plugged_again_has_its_numbers_again(drawn: FakeNode) -> None:
    for path in ("/dev/x0", "/dev/x1"):
        drawn.plug(path)
    before = drawn.locate("/dev/x1").read_text()
    drawn.unplug("/dev/x1")
    drawn.plug("/dev/x2")
    drawn.plug("/dev/x1")
    assert drawn.locate("/dev/x1").read_text() == before
    assert len({drawn.locate(f"/dev/x{n}").read_text() for n in range(3)}) == 3


async def test_links_lead_to_paths_of_the_host(drawn: FakeNode) -> None:
    drawn.plug("/dev/ttyUSB0")
    drawn.link("/dev/serial/by-id/absolute", "/dev/ttyUSB0")
    drawn.link("/dev/serial/by-id/relative", "../../ttyUSB0")
    for name in ("absolute", "relative"):
        look = Host.at(drawn.root).stat(f"/dev/serial/by-id/{name}")
        assert look is not None
        assert look.resolved == "/dev/ttyUSB0"


@pytest.mark.parametrize("how", sorted(WRITE_METHODS))
async def test_a_configuration_is_written_and_written_again_in_every_way(
    drawn: FakeNode, how: Literal["in_place", "rename", "editor", "configmap"]
) -> None:
    drawn.write_config("one", how=how)
    drawn.write_config("two", "other.yaml", how=how)
    drawn.write_config("three", how=how)

    shown = {path.name: path.read_text() for path in drawn.config_dir.iterdir() if not path.name.startswith("..")}
    assert shown == {"genplug.yaml": "three", "other.yaml": "two"}


async def test_a_config_map_is_one_link_to_a_directory_and_loses_what_is_left_out(drawn: FakeNode) -> None:
    swap_config_map(drawn.config_dir, {"a.yaml": "a", "b.yaml": "b"})
    first = (drawn.config_dir / "..data").readlink()
    swap_config_map(drawn.config_dir, {"a.yaml": "new"})

    second = (drawn.config_dir / "..data").readlink()
    assert first != second
    assert sorted(path.name for path in drawn.config_dir.iterdir()) == sorted([str(second), "..data", "a.yaml"])
    assert str((drawn.config_dir / "a.yaml").readlink()) == "..data/a.yaml"
    assert (drawn.config_dir / "a.yaml").read_text() == "new"


async def test_the_agent_runs_on_the_node_and_ends_with_the_block(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG):
        devices = await node.kubelet.wait_for_list("example.com/x", lambda devices: len(devices.healthy) == 1)
        allocation = await node.kubelet.admit("example.com/x")
        assert allocation.ids == tuple(devices)
        assert [spec.host_path for spec in allocation.response.devices] == ["/dev/x0"]
    await node.kubelet.wait_for(lambda: node.kubelet.stream_count("example.com/x") == 0)
    assert sorted(path.name for path in node.kubelet.plugins_dir.glob("*.sock")) == ["kubelet.sock"]


async def test_a_failure_in_the_block_is_itself_and_the_agent_is_stopped(node: FakeNode) -> None:
    async def fail() -> None:
        async with node.run_agent(CONFIG):
            await node.kubelet.wait_registered("example.com/x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await node.kubelet.wait_for(lambda: node.kubelet.stream_count("example.com/x") == 0)


async def test_an_agent_that_ends_before_its_time_fails_the_block(node: FakeNode) -> None:
    async def end_early() -> None:
        async with node.run_agent(CONFIG) as agent:
            agent.stop()
            await node.kubelet.wait_for(lambda: False)

    with pytest.raises(RuntimeError, match="the agent ended before it was told to"):
        await end_early()
