"""Aliases, slices, templated resource names and NUMA nodes, as the kubelet receives them (point 45)."""

import grpc
import pytest

from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.resources import X, list_host_paths, plug_devices

OLD, OLDER = "old.example/x", "older.example/x"
NAMES = (X, OLD, OLDER)
ALIAS_CONFIG = (
    f"{CONFIG_HEADER}resources:\n"
    f"  {X}: {{devices: [{{glob: /dev/x*}}], aliases: [{OLD}, {OLDER}], allocate: {{env: {{X: '${{name}}'}}}}}}\n"
)


async def test_allocated_device_is_unhealthy_under_its_other_names_until_pod_ends(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    async with node.run_agent(ALIAS_CONFIG, drain_seconds=0.1):
        for name in NAMES:
            await node.kubelet.wait_for_list(name, healthy={"x0", "x1"})
        allocation = await node.kubelet.admit(OLD, ids={"x1"}, pod="old")
        assert allocation.response.envs == {"X": "x1"}
        for name in (X, OLDER):
            await node.kubelet.wait_for_list(name, healthy={"x0"}, unhealthy={"x1"})
        await node.kubelet.wait_for_list(OLD, healthy={"x0", "x1"})
        await node.kubelet.remove_pod("old")
        for name in NAMES:
            await node.kubelet.wait_for_list(name, healthy={"x0", "x1"})


async def test_concurrent_pods_never_get_a_device_under_two_names(node: FakeNode) -> None:
    plug_devices(node, "x0")
    async with node.run_agent(ALIAS_CONFIG) as agent:
        for name in NAMES:
            await node.kubelet.wait_for_list(name, healthy={"x0"})
        entries = record_events(agent)
        # Direct calls, like those of a kubelet that has not read the newest list yet.
        first, second = node.kubelet.plugin(X), node.kubelet.plugin(OLD)
        await first.allocate([["x0"]])
        with pytest.raises(grpc.aio.AioRpcError, match=f"a pod uses it as {X}"):
            await second.allocate([["x0"]])
        await next_event(entries, Event.ALLOCATION_REFUSED)


async def test_device_of_running_pod_is_not_allocated_again_after_agent_restart(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    async with node.run_agent(ALIAS_CONFIG, drain_seconds=0.1):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await node.kubelet.admit(X, ids={"x0"}, pod="running")
        await node.kubelet.wait_for_list(OLD, unhealthy={"x0"})
    await node.kubelet.wait_disconnected(X, OLD)
    previous = len(node.kubelet.messages(OLD))
    async with node.run_agent(ALIAS_CONFIG, drain_seconds=0.1):
        await node.kubelet.wait_for_list(OLD, healthy={"x1"}, unhealthy={"x0"})
        # No list has the device as healthy, not even before the kubelet has reported its pods.
        lists = node.kubelet.messages(OLD)[previous:]
        assert lists
        assert all("x0" not in message.devices.healthy for message in lists)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_slices_are_numbered_across_all_devices_of_a_node(node: FakeNode) -> None:
    config = CONFIG_HEADER + (
        "resources:\n"
        "  aws.amazon.com/neuroncore:\n    devices: [{glob: '/dev/neuron[0-9]*'}]\n    slices: 2\n"
        "    allocate: {env: {NEURON_RT_VISIBLE_CORES: '${slice}'}}\n"
    )
    plug_devices(node, "neuron0", "neuron3")
    async with node.run_agent(config):
        cores = {f"neuron{device}-s{core}" for device in (0, 3) for core in (0, 1)}
        await node.kubelet.wait_for_list("aws.amazon.com/neuroncore", healthy=cores)
        allocation = await node.kubelet.admit(
            "aws.amazon.com/neuroncore", 2, ids={"neuron3-s1", "neuron0-s1"}, pod="two"
        )
        assert allocation.response.envs == {"NEURON_RT_VISIBLE_CORES": "1,7"}
        assert list_host_paths(allocation.response) == ["/dev/neuron0", "/dev/neuron3"]
        node.unplug("/dev/neuron3")
        await node.kubelet.wait_for_list("aws.amazon.com/neuroncore", unhealthy={"neuron3-s0", "neuron3-s1"})


REGION_CONFIG = CONFIG_HEADER + (
    "resources:\n"
    "  fpga.example.com/region-${attr.compat_id}:\n"
    "    devices: [{glob: /sys/class/fpga/*, nodes: ['/dev/${name}'], id: '${name}'}]\n"
    "    health: {removalGracePeriodSeconds: 0.2}\n"
)


def plug_region(node: FakeNode, name: str, compat_id: str) -> None:
    """Create an FPGA region: a device node and its directory in sysfs."""
    node.plug(f"/dev/{name}")
    node.write(f"/sys/class/fpga/{name}/compat_id", compat_id)


async def test_attribute_values_create_and_remove_templated_resources(node: FakeNode) -> None:
    plug_region(node, "fpga0", "aaaa")
    async with node.run_agent(REGION_CONFIG, drain_seconds=0.1) as agent:
        first = await node.kubelet.wait_for_list(
            "fpga.example.com/region-aaaa", lambda listed: len(listed.healthy) == 1
        )
        entries = record_events(agent)
        plug_region(node, "fpga1", "b b/b")
        await node.kubelet.wait_for_list("fpga.example.com/region-b-b-b", lambda listed: len(listed.healthy) == 1)
        assert first.healthy == node.kubelet.devices("fpga.example.com/region-aaaa").healthy
        # The region is programmed again: its device moves to another resource.
        node.write("/sys/class/fpga/fpga0/compat_id", "cccc")
        await node.kubelet.wait_for_list("fpga.example.com/region-cccc", lambda listed: len(listed.healthy) == 1)
        await next_event(entries, Event.RESOURCE_DRAINED)
        assert {resource.name for resource in agent.status.resources} == {
            "fpga.example.com/region-b-b-b",
            "fpga.example.com/region-cccc",
        }


async def test_invalid_templated_name_is_left_out_with_a_note(node: FakeNode) -> None:
    plug_region(node, "fpga0", "x" * 64)
    plug_region(node, "fpga1", "good")
    async with node.run_agent(REGION_CONFIG) as agent:
        await node.kubelet.wait_for_list("fpga.example.com/region-good", lambda listed: len(listed.healthy) == 1)
        assert agent.snapshot is not None
        (outcome,) = (outcome for outcome in agent.snapshot.inventory.outcomes if outcome.device is None)
        assert "the part after '/' has 71 characters, at most 63 are allowed" in outcome.reason
        assert "71 characters" in agent.status.resources[0].notes[0]
        assert [resource.name for resource in agent.status.resources] == ["fpga.example.com/region-good"]


async def test_templated_resource_without_instances_is_listed_with_the_reason(node: FakeNode) -> None:
    async with node.run_agent(REGION_CONFIG) as agent:
        entries = record_events(agent)
        plug_region(node, "fpga0", "x" * 64)
        assert "71 characters" in (await next_event(entries, Event.RESOURCE_NAME_REJECTED)).text
        [status] = agent.status.resources
        assert (status.name, status.healthy, status.has_no_instances) == (
            "fpga.example.com/region-${attr.compat_id}",
            0,
            True,
        )
        assert "71 characters" in status.notes[0]
        assert agent.status.is_ready


COMPANION_CONFIG = (
    CONFIG_HEADER
    + f"""\
resources:
  {X}:
    devices: [{{glob: '/dev/x*', with: [/dev/control]}}]
    aliases: [{OLD}]
    COUNT
"""
)


@pytest.mark.parametrize(
    ("count", "ids"), [("replicas: 3", {"x0-r0", "x0-r1", "x0-r2"}), ("slices: 2", {"x0-s0", "x0-s1"})]
)
async def test_companion_failure_updates_replicas_and_aliases_in_a_single_message(
    node: FakeNode, count: str, ids: set[str]
) -> None:
    plug_devices(node, "x0", "control")
    async with node.run_agent(COMPANION_CONFIG.replace("COUNT", count)):
        for name in (X, OLD):
            await node.kubelet.wait_for_list(name, healthy=ids)
        before = {name: len(node.kubelet.messages(name)) for name in (X, OLD)}
        node.unplug("/dev/control")
        for name in (X, OLD):
            await node.kubelet.wait_for_list(name, unhealthy=ids)
            assert len(node.kubelet.messages(name)) == before[name] + 1


async def test_number_of_templated_resources_is_limited_with_a_reason(node: FakeNode) -> None:
    for number in range(103):
        plug_region(node, f"fpga{number}", f"{number:04}")
    async with node.run_agent(REGION_CONFIG) as agent:
        await node.kubelet.wait_for_list("fpga.example.com/region-0099", lambda listed: len(listed.healthy) == 1)
        assert len(agent.status.resources) == 100
        assert agent.snapshot is not None
        reasons = [outcome.reason for outcome in agent.snapshot.inventory.outcomes if outcome.device is None]
        assert len(reasons) == 3
        assert "already has 100 names, the maximum" in reasons[0]


NUMA_CONFIG = (
    CONFIG_HEADER
    + f"resources:\n  {X}: {{devices: [{{glob: '/sys/class/x/*', nodes: ['/dev/${{name}}'], id: '${{name}}'}}]}}\n"
)


def plug_on_numa_node(node: FakeNode, name: str, numa: str) -> None:
    """Create a device node and its directory in sysfs, with the text of ``numa_node``."""
    node.plug(f"/dev/{name}")
    node.write(f"/sys/class/x/{name}/numa_node", numa)


async def test_45_numa_nodes_are_sent_for_all_devices_or_for_none(node: FakeNode) -> None:
    plug_on_numa_node(node, "x0", "0\n")
    plug_on_numa_node(node, "x1", "1\n")
    async with node.run_agent(NUMA_CONFIG):
        devices = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 2)
        assert sorted(device.numa for device in devices.values()) == [(0,), (1,)]
        plug_on_numa_node(node, "x2", "-1\n")
        devices = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 3)
        assert {device.numa for device in devices.values()} == {()}


async def test_45_kubelet_prefers_devices_of_the_same_numa_node(
    node: FakeNode,
) -> None:
    for number in range(4):
        plug_on_numa_node(node, f"x{number}", f"{number % 2}\n")
    async with node.run_agent(NUMA_CONFIG):
        devices = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 4)
        assert node.kubelet.registrations[-1].get_preferred_allocation_available
        allocation = await node.kubelet.admit(X, 2, pod="two")
        assert len(allocation.ids) == 2
        assert len({devices[device_id].numa for device_id in allocation.ids}) == 1


async def test_45_preferred_allocation_is_off_when_devices_share_a_numa_node(node: FakeNode) -> None:
    for number in range(2):
        plug_on_numa_node(node, f"x{number}", "1\n")
    async with node.run_agent(NUMA_CONFIG):
        await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 2)
        assert not node.kubelet.registrations[-1].get_preferred_allocation_available


async def test_topology_none_sends_no_numa_node(node: FakeNode) -> None:
    plug_on_numa_node(node, "x0", "0\n")
    async with node.run_agent(NUMA_CONFIG.replace("}]}", "}], topology: none}")):
        devices = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 1)
        assert [device.numa for device in devices.values()] == [()]
