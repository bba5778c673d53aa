"""A device list that the kubelet would refuse is limited, and the reason is visible everywhere (point 40)."""

from genplug.observe.events import Event
from genplug.spec.limits import MAX_GRANTS
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.http import get

X, OTHER = "example.com/x", "example.com/other"


def spec(name: str, glob: str, replicas: int) -> str:
    return f"  {name}: {{devices: [{{glob: '{glob}'}}], replicas: {replicas}}}\n"


async def test_40_list_beyond_the_limit_is_limited_to_whole_devices(node: FakeNode) -> None:
    # 64 devices with 1000 replicas each are more than all lists may have.
    names = [f"a-very-long-name-of-a-device-node-{number:03}" for number in range(64)]
    for name in names:
        node.plug(f"/dev/{name}")
    config = CONFIG_HEADER + "resources:\n" + spec(X, "/dev/a-very*", 1000) + spec(OTHER, "/dev/other*", 1)
    node.plug("/dev/other0")
    async with node.run_agent(config, listen=("127.0.0.1", 0)) as agent:
        await node.kubelet.wait_for_list(OTHER)
        await node.kubelet.wait_for(lambda: bool(node.kubelet.devices(X).healthy))
        listed = node.kubelet.devices(X).healthy
        assert len(listed) % 1000 == 0
        assert 0 < len(listed) <= MAX_GRANTS
        # The first devices are listed, and all of their replicas.
        count = len(listed) // 1000
        assert {name.rpartition("-r")[0] for name in listed} == set(names[:count])
        omission = f"{64 - count} of 64 devices are not listed"
        (status,) = [resource for resource in agent.status.resources if resource.name == X]
        assert status.is_registered
        assert omission in status.notes[0]
        assert "reduce 'replicas'" in status.notes[0]
        _, metrics = await get(agent, "/metrics")
        assert f'genplug_devices_omitted{{resource="{X}"}} {64 - count}.0' in metrics
        assert f'genplug_devices_omitted{{resource="{OTHER}"}} 0.0' in metrics
        await node.kubelet.admit(X, 2)

        events = record_events(agent)
        node.write_config(config.replace("replicas: 1000", "replicas: 10"))
        await next_event(events, Event.CONFIG_LOADED)
        await node.kubelet.wait_for(lambda: len(node.kubelet.devices(X).healthy) == 640)
        _, metrics = await get(agent, "/metrics")
        assert f'genplug_devices_omitted{{resource="{X}"}} 0.0' in metrics


async def test_resources_share_the_limit_of_all_lists_fairly(node: FakeNode) -> None:
    for number in range(40):
        node.plug(f"/dev/x{number}")
        node.plug(f"/dev/other{number}")
    config = CONFIG_HEADER + "resources:\n" + spec(X, "/dev/x*", 1000) + spec(OTHER, "/dev/other*", 1000)
    async with node.run_agent(config):
        await node.kubelet.wait_for(lambda: len(node.kubelet.devices(X).healthy) == 25_000, 30)
        await node.kubelet.wait_for(lambda: len(node.kubelet.devices(OTHER).healthy) == 25_000, 30)
        # A resource gets the entries that the other resource does not need.
        node.write_config(config.replace("replicas: 1000", "replicas: 10", 1))
        await node.kubelet.wait_for(lambda: len(node.kubelet.devices(OTHER).healthy) == 40_000, 30)
