"""The machine of the pictures and of the tests in a browser: recipes, a few faults, and pods that use devices."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc

from genplug.agent import Agent
from genplug.observe.events import Event
from genplug.testing.machines.catalog import build_machine
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.file_trees import build_tree
from tests.support.recipes import config_path

GPU, HCA, SERIAL = "nvidia.com/gpu", "rdma/hca", "devices.example.com/serial"
GPU_ADDRESSES = {
    0: ("0000:1a:00.0", "0000:1b:00.0", "0000:3d:00.0", "0000:3e:00.0"),
    1: ("0000:9c:00.0", "0000:9d:00.0", "0000:bd:00.0", "0000:be:00.0"),
}
"""The addresses of the GPUs by NUMA node."""
FAULTY_GPU = "0000:3d:00"
SERIAL_CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  devices.example.com/serial:
    devices: [{glob: /dev/ttyUSB*}]
    expect: {min: 4}
"""
POLICY = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginPolicy
devices: {allow: [/dev/nvidia*, /dev/infiniband/*, /dev/ttyUSB*]}
mounts: {allow: [/usr/local/nvidia]}
"""


def build_gpus() -> str:
    """Return the files of eight GPUs, like those of the recipe's machine."""
    lines = ["/dev/nvidiactl char 195:255", "/dev/nvidia-uvm char 508:0"]
    numbered = [(node, address) for node, addresses in GPU_ADDRESSES.items() for address in addresses]
    for minor, (node, address) in enumerate(numbered):
        device = f"/sys/devices/pci0000:{address[5:7]}/{address}"
        uuid = f"GPU-{0x4CF8DB2D + minor * 0x11F3A7:08x}-06c0-7d70-1a51-e59b25b2c1{minor:02d}"
        lines += [
            f"/sys/bus/pci/devices/{address} -> ../../../devices/pci0000:{address[5:7]}/{address}",
            f"{device}/subsystem -> ../../../bus/pci",
            f"{device}/driver -> ../../../bus/pci/drivers/nvidia",
            f"{device}/vendor = 0x10de",
            f"{device}/device = 0x2330",
            f"{device}/class = 0x030200",
            f"{device}/numa_node = {node}",
            f"{device}/config = responds",
            f"{device}/current_link_width = 16",
            f"{device}/aer_dev_fatal = TOTAL_ERR_FATAL 0",
            f"/sys/bus/pci/drivers/nvidia/{address} -> ../../../../devices/pci0000:{address[5:7]}/{address}",
            rf"/proc/driver/nvidia/gpus/{address}/information = GPU UUID: {uuid}\nDevice Minor: {minor}",
            f"/dev/nvidia{minor} char 195:{minor}",
        ]
    return "\n".join(lines)


def build_files(root: Path) -> None:
    """Create the files of the machine: those of a recipe, and those of eight GPUs and four serial adapters."""
    build_machine("infiniband", root)
    build_tree(build_gpus(), root)
    build_tree("\n".join(f"/dev/ttyUSB{number} char 188:{number}" for number in range(4)), root)


@asynccontextmanager
async def run_machine() -> AsyncIterator[tuple[FakeNode, Agent]]:
    """Run an agent on the machine: two faults, three pods, and a refused request."""
    async with FakeNode(stand_ins=True) as node:
        build_files(node.root)
        for name in ("nvidia-gpu", "infiniband"):
            node.write_config(config_path(name).read_text(), f"{name}.yaml")
        node.write_config(SERIAL_CONFIG, "serial.yaml")
        node.write_kernel_log("usb 1-1: new full-speed USB device number 5")
        policy = node.directory / "policy.yaml"
        policy.write_text(POLICY)
        async with node.run_agent(listen=("127.0.0.1", 0), node_name="gpu-node-7", policy=policy) as agent:
            log_events = record_events(agent)
            await node.kubelet.wait_for_list(GPU, lambda devices: len(devices) == 8)
            await node.kubelet.wait_for_list(HCA, lambda devices: len(devices) == 3)
            await node.kubelet.wait_for_list(SERIAL, lambda devices: len(devices) == 4)
            await node.kubelet.admit(GPU, 4, pod="train-llm-0", container="worker")
            await node.kubelet.admit(HCA, 2, pod="train-llm-0", container="worker")
            (serial,) = (name for name in node.kubelet.devices(SERIAL) if name.startswith("ttyusb0-"))
            await node.kubelet.admit(SERIAL, 1, pod="modem-gateway", container="ppp", ids=[serial])
            with suppress(grpc.RpcError):
                await node.kubelet.plugin(SERIAL).allocate([["ttyusb9-a2b4c6"]])
            node.write_kernel_log(f"NVRM: Xid (PCI:{FAULTY_GPU}): 79, GPU has fallen off the bus.")
            await next_event(log_events, Event.DEVICE_UNHEALTHY)
            node.unplug("/dev/ttyUSB3")
            await next_event(log_events, Event.DEVICE_UNHEALTHY)
            yield node, agent
