"""A reboot of the node: sockets and the checkpoint remain, CDI files are lost, and numbers of devices change."""

import json
import shutil
from contextlib import AsyncExitStack

import pytest

from genplug.testing.kubelet import AdmissionError
from genplug.testing.node.fake_node import FakeNode
from tests.support.agent_process import start_agent
from tests.support.configs import CONFIG_HEADER

CARD, BOARD = "example.com/card", "example.com/board"
CONFIG = f"""{CONFIG_HEADER}resources:
  {CARD}: {{devices: [{{glob: '/dev/by-id/card-*', id: '${{name}}', verbatimId: true}}], allocate: {{inject: cdi}}}}
  {BOARD}: {{devices: [{{glob: '/dev/by-id/board-*', id: '${{name}}', verbatimId: true}}]}}
"""
SPEC = "/var/run/cdi/genplug-example.com_card.json"


def boot_devices(node: FakeNode, *hardware: str) -> None:
    """Create the nodes that a kernel creates: numbered in the order in which it finds the hardware."""
    for number, name in enumerate(hardware):
        node.plug(f"/dev/x{number}", minor=number)
        node.link(f"/dev/by-id/{name}", f"../x{number}")


def shut_down_devices(node: FakeNode) -> None:
    """Remove what is in memory only: the device nodes and the CDI files."""
    shutil.rmtree(node.locate("/dev/by-id"))
    for path in node.locate("/dev").glob("x*"):
        path.unlink()
    shutil.rmtree(node.locate("/var/run/cdi"))


def read_node_of(node: FakeNode, device_id: str) -> tuple[str, int]:
    """Return the path and the minor number that the CDI file has for a device."""
    devices = {device["name"]: device for device in json.loads(node.locate(SPEC).read_text())["devices"]}
    [device_node] = devices[device_id]["containerEdits"]["deviceNodes"]
    return device_node["path"], device_node["minor"]


@pytest.mark.root
@pytest.mark.parametrize("first", ["agent", "kubelet"])
async def test_reboot_loses_no_device_id_or_allocation(node: FakeNode, first: str) -> None:
    node.write_config(CONFIG)
    boot_devices(node, "card-a", "card-b", "board-a", "board-b")
    await node.kubelet.start()
    async with start_agent(node) as process:
        cards = await node.kubelet.wait_for_list(CARD, lambda devices: len(devices.healthy) == 2)
        boards = await node.kubelet.wait_for_list(BOARD, lambda devices: len(devices.healthy) == 2)
        allocated = await node.kubelet.admit(CARD, ids={"card-a"}, pod="user")
        assert read_node_of(node, "card-a")[1] == 0
        process.kill()
        await process.wait()
    await node.kubelet.crash()
    shut_down_devices(node)
    boot_devices(node, "board-b", "card-b", "board-a", "card-a")

    async with AsyncExitStack() as running:
        if first == "agent":
            await running.enter_async_context(start_agent(node))
            await node.kubelet.start()
        else:
            await node.kubelet.start()
            await running.enter_async_context(start_agent(node))
        await node.kubelet.wait_for_list(CARD, healthy=cards.ids)
        await node.kubelet.wait_for_list(BOARD, healthy=boards.ids)
        # A kubelet starts the container again with the response that it saved, which has the name of the CDI device:
        # the file defines it with the numbers after the reboot.
        [saved] = allocated.response.cdi_devices
        assert saved.name == f"{CARD}=card-a"
        assert read_node_of(node, "card-a")[1] == 3
        # No other pod gets the device of the first pod, and the others lead to their hardware.
        with pytest.raises(AdmissionError, match="Requested: 2, Available: 1"):
            await node.kubelet.admit(CARD, 2, pod="next")
        other = await node.kubelet.admit(CARD, 1, pod="next")
        assert [device.name for device in other.response.cdi_devices] == [f"{CARD}=card-b"]
        board = await node.kubelet.admit(BOARD, ids={"board-b"}, pod="next")
        assert [device.host_path for device in board.response.devices] == ["/dev/x0"]
