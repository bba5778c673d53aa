"""CDI devices of other programs: a device whose container could not start is unhealthy, until a file defines them."""

import asyncio
from pathlib import Path

import grpc
import pytest

from genplug.agent.agent import Agent
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER, format_cdi_spec
from tests.support.resources import plug_devices, write_policy

CARD = "example.com/card"
CONFIG = (
    f"{CONFIG_HEADER}resources:\n"
    f"  {CARD}: {{devices: [{{glob: /dev/x*}}], allocate: {{cdiDevices: ['vendor.example/gpu=${{name}}']}}}}\n"
)


def format_spec(*devices: str) -> str:
    return format_cdi_spec("vendor.example/gpu", *devices)


def allow_cdi(node: FakeNode) -> Path:
    """Write a policy that allows the CDI devices of the configuration."""
    return write_policy(node, "cdi: {allow: ['vendor.example/gpu=*']}\n")


def reason_of(agent: Agent, device: str) -> str:
    [resource] = agent.status.resources
    return next(listed.reason for listed in resource.devices if listed.id == device)


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


@pytest.mark.parametrize("directory", ["/etc/cdi", "/var/run/cdi"])
async def test_device_is_healthy_when_a_file_defines_its_cdi_device(node: FakeNode, directory: str) -> None:
    plug_devices(node, "x0", "x1")
    kubelet = node.kubelet
    # The fallback scan is not due: only events can make the devices healthy.
    async with node.run_agent(CONFIG, policy=allow_cdi(node), rescan_seconds=3600) as agent:
        await kubelet.wait_for_list(CARD, unhealthy={"x0", "x1"})
        assert "genplug does not see /etc/cdi and /var/run/cdi" in reason_of(agent, "x0")
        node.locate(directory).mkdir(parents=True)
        file = node.locate(f"{directory}/vendor.json")
        replace(file, format_spec("x0"))
        await kubelet.wait_for_list(CARD, healthy={"x0"}, unhealthy={"x1"})
        assert reason_of(agent, "x1") == (
            "no CDI file in /etc/cdi and /var/run/cdi defines vendor.example/gpu=x1; "
            "the devices of vendor.example/gpu are x0"
        )
        response = (await kubelet.admit(CARD, 1, ids={"x0"})).response
        assert [device.name for device in response.cdi_devices] == ["vendor.example/gpu=x0"]
        # In place, as an editor or `nvidia-ctk > file` writes it.
        file.write_text(format_spec("x0", "x1"))
        await kubelet.wait_for_list(CARD, healthy={"x0", "x1"})
        file.unlink()
        await kubelet.wait_for_list(CARD, unhealthy={"x0", "x1"})


async def test_broken_file_leaves_devices_of_other_files_healthy(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    node.write("/etc/cdi/good.yaml", format_spec("x0"))
    node.write("/etc/cdi/broken.json", format_spec("x1")[:-1])
    async with node.run_agent(CONFIG, policy=allow_cdi(node), rescan_seconds=3600) as agent:
        await node.kubelet.wait_for_list(CARD, healthy={"x0"}, unhealthy={"x1"})
        assert "; invalid files: /etc/cdi/broken.json is neither JSON nor YAML: " in reason_of(agent, "x1")
        # The runtime refuses a device that two files of a directory define.
        node.write("/etc/cdi/another.json", format_spec("x0", "x1"))
        await node.kubelet.wait_for_list(CARD, healthy={"x1"}, unhealthy={"x0"})
        assert "/etc/cdi/another.json and /etc/cdi/good.yaml both define the CDI device" in reason_of(agent, "x0")


async def test_directories_can_be_those_of_another_runtime(node: FakeNode) -> None:
    plug_devices(node, "x0")
    node.write("/etc/cdi/vendor.json", format_spec("x0"))
    async with node.run_agent(
        CONFIG, policy=allow_cdi(node), rescan_seconds=3600, cdi_search_dirs=("/opt/cdi",)
    ) as agent:
        await node.kubelet.wait_for_list(CARD, unhealthy={"x0"})
        assert "genplug does not see /opt/cdi" in reason_of(agent, "x0")
        node.write("/opt/cdi/vendor.json", format_spec("x0"))
        await node.kubelet.wait_for_list(CARD, healthy={"x0"})


async def test_device_is_refused_before_the_list_without_its_cdi_device(node: FakeNode) -> None:
    plug_devices(node, "x0")
    node.write("/etc/cdi/vendor.json", format_spec("x0"))
    async with node.run_agent(CONFIG, policy=allow_cdi(node)):
        await node.kubelet.wait_for_list(CARD, healthy={"x0"})
        client = node.kubelet.plugin(CARD)
        node.locate("/etc/cdi/vendor.json").unlink()
        with pytest.raises(grpc.aio.AioRpcError, match=r"no CDI file in .* defines vendor.example/gpu=x0"):
            await client.allocate([["x0"]])


async def test_cdi_device_of_each_slice_is_looked_up(node: FakeNode) -> None:
    plug_devices(node, "x1", "x2")
    node.write("/etc/cdi/vendor.json", format_spec("2", "3", "4"))
    config = (
        f"{CONFIG_HEADER}resources:\n  {CARD}:\n    devices: [{{glob: /dev/x*}}]\n    slices: 2\n"
        "    allocate: {cdiDevices: ['vendor.example/gpu=${slice}']}\n"
    )
    async with node.run_agent(config, policy=allow_cdi(node)) as agent:
        await node.kubelet.wait_for_list(CARD, healthy={"x1-s0", "x1-s1"}, unhealthy={"x2-s0", "x2-s1"})
        assert "defines vendor.example/gpu=5;" in reason_of(agent, "x2-s0")


async def test_forbidden_cdi_device_makes_the_device_unhealthy(node: FakeNode) -> None:
    plug_devices(node, "x0")
    node.write("/etc/cdi/vendor.json", format_spec("x0"))
    policy = node.directory / "policy.yaml"
    policy.write_text(
        "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\ncdi: {allow: ['vendor.example/gpu=x1']}\n"
    )
    async with node.run_agent(CONFIG, policy=policy) as agent:
        await node.kubelet.wait_for_list(CARD, unhealthy={"x0"})
        assert "the CDI device 'vendor.example/gpu=x0' is refused by 'cdi.allow'" in reason_of(agent, "x0")


async def test_files_that_change_all_the_time_end_in_the_last_state(node: FakeNode) -> None:
    plug_devices(node, "x0")
    file = node.locate("/var/run/cdi/vendor.json")
    file.parent.mkdir(parents=True)
    async with node.run_agent(CONFIG, policy=allow_cdi(node), rescan_seconds=3600):
        await node.kubelet.wait_for_list(CARD, unhealthy={"x0"})
        for _ in range(50):
            replace(file, format_spec("x0"))
            await asyncio.sleep(0)
            replace(file, format_spec("x9"))
        replace(file, format_spec("x0"))
        await node.kubelet.wait_for_list(CARD, healthy={"x0"})


async def test_cdi_device_with_the_name_of_the_resource_is_looked_up(node: FakeNode) -> None:
    plug_devices(node, "x0")
    config = (
        f"{CONFIG_HEADER}resources:\n  {CARD}:\n    devices: [{{glob: /dev/x*}}]\n"
        "    allocate: {cdiDevices: ['vendor.example/gpu=${resource|basename}']}\n"
    )
    name = CARD.rpartition("/")[2]
    async with node.run_agent(config, policy=allow_cdi(node), rescan_seconds=3600) as agent:
        await node.kubelet.wait_for_list(CARD, unhealthy={"x0"})
        assert "genplug does not see" in reason_of(agent, "x0")
        node.write("/etc/cdi/vendor.json", format_spec(name))
        await node.kubelet.wait_for_list(CARD, healthy={"x0"})
        response = (await node.kubelet.admit(CARD, 1, ids={"x0"})).response
        assert [device.name for device in response.cdi_devices] == [f"vendor.example/gpu={name}"]
