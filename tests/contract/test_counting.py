"""Aliases, slices, names that devices make, and NUMA, as the kubelet sees them (contract 4, 5; 10: 45)."""

import pytest

from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
X, OLD, OLDER = "example.com/x", "old.example/x", "older.example/x"
ALIASES = (
    HEAD
    + f"  {X}: {{devices: [{{glob: /dev/x*}}], aliases: [{OLD}, {OLDER}], allocate: {{env: {{X: '${{name}}'}}}}}}\n"
)


def plug(node: FakeNode, *names: str) -> None:
    for name in names:
        node.plug(f"/dev/{name}")


async def test_allocated_device_is_unhealthy_under_its_other_names_until_pod_ends(node: FakeNode) -> None:
    plug(node, "x0", "x1")
    async with node.run_agent(ALIASES, drain=0.1):
        for name in (X, OLD, OLDER):
            await node.kubelet.wait_for_list(name, healthy={"x0", "x1"})
        given = await node.kubelet.admit(OLD, ids={"x1"}, pod="old")
        assert given.response.envs == {"X": "x1"}
        for name in (X, OLDER):
            await node.kubelet.wait_for_list(name, healthy={"x0"}, unhealthy={"x1"})
        await node.kubelet.wait_for_list(OLD, healthy={"x0", "x1"})
        await node.kubelet.remove_pod("old")
        for name in (X, OLD, OLDER):
            await node.kubelet.wait_for_list(name, healthy={"x0", "x1"})


async def test_concurrent_pods_never_get_a_device_under_two_names(node: FakeNode) -> None:
    plug(node, "x0")
    async with node.run_agent(ALIASES) as agent:
        for name in (X, OLD, OLDER):
            await node.kubelet.wait_for_list(name, healthy={"x0"})
        entries = record_events(agent)
        # Asked past the kubelet's list, as by a kubelet that has not read the newest one yet.
        first, second = node.kubelet.plugin(X), node.kubelet.plugin(OLD)
        await first.allocate([["x0"]])
        with pytest.raises(Exception, match=f"a pod uses it as {X}"):
            await second.allocate([["x0"]])
        await next_event(entries, Event.ALLOCATION_REFUSED)


async def test_device_of_running_pod_is_not_allocated_again_after_agent_restart(node: FakeNode) -> None:
    plug(node, "x0", "x1")
    async with node.run_agent(ALIASES, drain=0.1):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await node.kubelet.admit(X, ids={"x0"}, pod="stays")
        await node.kubelet.wait_for_list(OLD, unhealthy={"x0"})
    await node.kubelet.wait_disconnected(X, OLD)
    async with node.run_agent(ALIASES, drain=0.1):
        await node.kubelet.wait_for_list(OLD, healthy={"x1"}, unhealthy={"x0"})
        # A list never said otherwise: until the kubelet has told who has what, nothing is healthy.
        assert all("x0" not in message.devices.healthy for message in node.kubelet.messages(OLD)[-2:])
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_slices_are_numbered_across_all_devices_of_a_node(node: FakeNode) -> None:
    config = HEAD + (
        "  aws.amazon.com/neuroncore:\n    devices: [{glob: '/dev/neuron[0-9]*'}]\n    slices: 2\n"
        "    allocate: {env: {NEURON_RT_VISIBLE_CORES: '${slice}'}}\n"
    )
    plug(node, "neuron0", "neuron3")
    async with node.run_agent(config):
        cores = {f"neuron{device}-s{core}" for device in (0, 3) for core in (0, 1)}
        await node.kubelet.wait_for_list("aws.amazon.com/neuroncore", healthy=cores)
        some = await node.kubelet.admit("aws.amazon.com/neuroncore", 2, ids={"neuron3-s1", "neuron0-s1"}, pod="two")
        assert some.response.envs == {"NEURON_RT_VISIBLE_CORES": "1,7"}
        assert [one.host_path for one in some.response.devices] == ["/dev/neuron0", "/dev/neuron3"]
        node.unplug("/dev/neuron3")
        await node.kubelet.wait_for_list("aws.amazon.com/neuroncore", unhealthy={"neuron3-s0", "neuron3-s1"})


REGIONS = HEAD + (
    "  fpga.example.com/region-${attr.compat_id}:\n"
    "    devices: [{glob: /sys/class/fpga/*, nodes: ['/dev/${name}'], id: '${name}'}]\n"
    "    health: {removalGracePeriodSeconds: 0.2}\n"
)


def region(node: FakeNode, name: str, compat_id: str) -> None:
    node.plug(f"/dev/{name}")
    node.write(f"/sys/class/fpga/{name}/compat_id", compat_id)


async def test_attribute_values_create_and_remove_templated_resources(node: FakeNode) -> None:
    region(node, "fpga0", "aaaa")
    async with node.run_agent(REGIONS, drain=0.1) as agent:
        first = await node.kubelet.wait_for_list(
            "fpga.example.com/region-aaaa", lambda listed: len(listed.healthy) == 1
        )
        entries = record_events(agent)
        region(node, "fpga1", "b b/b")
        await node.kubelet.wait_for_list("fpga.example.com/region-b-b-b", lambda listed: len(listed.healthy) == 1)
        assert first.healthy == node.kubelet.devices("fpga.example.com/region-aaaa").healthy
        # The region is programmed anew: its device moves to another resource.
        node.write("/sys/class/fpga/fpga0/compat_id", "cccc")
        await node.kubelet.wait_for_list("fpga.example.com/region-cccc", lambda listed: len(listed.healthy) == 1)
        await next_event(entries, Event.RESOURCE_DRAINED)
        assert {one.name for one in agent.status.resources} == {
            "fpga.example.com/region-b-b-b",
            "fpga.example.com/region-cccc",
        }


async def test_invalid_templated_name_is_left_out_with_a_note(node: FakeNode) -> None:
    region(node, "fpga0", "x" * 64)
    region(node, "fpga1", "good")
    async with node.run_agent(REGIONS) as agent:
        await node.kubelet.wait_for_list("fpga.example.com/region-good", lambda listed: len(listed.healthy) == 1)
        [considered] = [one for one in agent.snapshot.inventory.outcomes if one.device is None]  # type: ignore[union-attr]
        assert "the part after '/' has 71 characters, at most 63 are allowed" in considered.reason
        assert "71 characters" in agent.status.resources[0].notes[0]
        assert [one.name for one in agent.status.resources] == ["fpga.example.com/region-good"]


async def test_templated_resource_without_instances_is_listed_with_the_reason(node: FakeNode) -> None:
    async with node.run_agent(REGIONS) as agent:
        entries = record_events(agent)
        region(node, "fpga0", "x" * 64)
        assert "71 characters" in (await next_event(entries, Event.RESOURCE_NAME_REJECTED)).text
        [status] = agent.status.resources
        assert (status.name, status.healthy, status.has_no_instances) == (
            "fpga.example.com/region-${attr.compat_id}",
            0,
            True,
        )
        assert "71 characters" in status.notes[0]
        assert agent.status.is_ready


FAULT = (
    HEAD
    + f"""\
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
    plug(node, "x0", "control")
    async with node.run_agent(FAULT.replace("COUNT", count)):
        for name in (X, OLD):
            await node.kubelet.wait_for_list(name, healthy=ids)
        before = {name: len(node.kubelet.messages(name)) for name in (X, OLD)}
        node.unplug("/dev/control")
        for name in (X, OLD):
            await node.kubelet.wait_for_list(name, unhealthy=ids)
            assert len(node.kubelet.messages(name)) == before[name] + 1


async def test_number_of_templated_resources_is_limited_with_a_reason(node: FakeNode) -> None:
    for number in range(103):
        region(node, f"fpga{number}", f"{number:04}")
    async with node.run_agent(REGIONS) as agent:
        await node.kubelet.wait_for_list("fpga.example.com/region-0099", lambda listed: len(listed.healthy) == 1)
        assert len(agent.status.resources) == 100
        left = [one.reason for one in agent.snapshot.inventory.outcomes if one.device is None]  # type: ignore[union-attr]
        assert len(left) == 3
        assert "already has 100 names, the maximum" in left[0]


NUMA = HEAD + f"  {X}: {{devices: [{{glob: '/sys/class/x/*', nodes: ['/dev/${{name}}'], id: '${{name}}'}}]}}\n"


def on_numa_node(node: FakeNode, name: str, numa: str) -> None:
    node.plug(f"/dev/{name}")
    node.write(f"/sys/class/x/{name}/numa_node", numa)


async def test_45_numa_nodes_are_sent_for_all_devices_or_for_none(node: FakeNode) -> None:
    on_numa_node(node, "x0", "0\n")
    on_numa_node(node, "x1", "1\n")
    async with node.run_agent(NUMA):
        devices = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 2)
        assert sorted(device.numa for device in (devices[one] for one in devices)) == [(0,), (1,)]
        on_numa_node(node, "x2", "-1\n")
        devices = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 3)
        assert {devices[one].numa for one in devices} == {()}


async def test_45_kubelet_prefers_devices_of_the_same_numa_node(
    node: FakeNode,
) -> None:
    for number in range(4):
        on_numa_node(node, f"x{number}", f"{number % 2}\n")
    async with node.run_agent(NUMA):
        devices = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 4)
        assert node.kubelet.registrations[-1].get_preferred_allocation_available
        given = await node.kubelet.admit(X, 2, pod="two")
        assert len({devices[one].numa for one in given.ids}) == 1


async def test_45_preferred_allocation_is_off_when_devices_share_a_numa_node(node: FakeNode) -> None:
    for number in range(2):
        on_numa_node(node, f"x{number}", "1\n")
    async with node.run_agent(NUMA):
        await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 2)
        assert not node.kubelet.registrations[-1].get_preferred_allocation_available


async def test_topology_none_sends_no_numa_node(node: FakeNode) -> None:
    on_numa_node(node, "x0", "0\n")
    async with node.run_agent(NUMA.replace("}]}", "}], topology: none}")):
        devices = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 1)
        assert [devices[one].numa for one in devices] == [()]
