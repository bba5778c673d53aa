"""Resources that Dynamic Resource Allocation serves: the device plugin API does not offer them."""

from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.resources import X, Y, plug_devices


def build_serve_config(**apis: str) -> str:
    """Return a configuration of the resources ``example.com/NAME``, each with its API."""
    lines = (
        f"  example.com/{name}: {{serve: {api}, devices: [{{glob: '/dev/{name}*'}}]}}" for name, api in apis.items()
    )
    return f"{CONFIG_HEADER}resources:\n" + "\n".join(lines)


async def test_published_resource_is_not_registered_and_its_status_has_the_reason(node: FakeNode) -> None:
    plug_devices(node, "x0", "y0")
    async with node.run_agent(build_serve_config(x="dra", y="devicePlugin")) as agent:
        await node.kubelet.wait_for_list(Y, healthy={"y0"})
        assert [registration.resource for registration in node.kubelet.registrations] == [Y]
        status = {resource.name: resource for resource in agent.status.resources}
        assert sorted(status) == [X, Y]
        assert not status[X].is_registered
        (reason,) = agent.status.unready
        assert reason == (
            f"{X}: not published: the name of the node is not known, which the names of pools contain: pass --node-name"
        )


async def test_endpoint_of_a_resource_that_changes_its_api_drains_and_returns(node: FakeNode) -> None:
    kubelet = node.kubelet
    plug_devices(node, "x0")
    async with node.run_agent(build_serve_config(x="devicePlugin"), drain_seconds=0.1) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.admit(X, pod="user")
        node.write_config(build_serve_config(x="dra"))
        assert (await next_event(entries, Event.RESOURCE_REMOVED)).text == (
            f"{X}: served by Dynamic Resource Allocation; its list is empty, its endpoint remains until no pod uses it"
        )
        await kubelet.wait_for_list(X, lambda devices: not devices)
        [status] = agent.status.resources
        assert (status.is_removed, status.is_moved, status.is_registered) == (False, True, False)

        await kubelet.remove_pod("user")
        await next_event(entries, Event.RESOURCE_DRAINED)
        [status] = agent.status.resources
        assert (status.is_removed, status.is_moved, status.is_registered) == (False, False, False)

        node.write_config(build_serve_config(x="devicePlugin"))
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert agent.status.resources[0].is_registered
