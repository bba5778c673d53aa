"""Which ID a device has: hardware is never offered under two IDs, whatever paths lead to it (points 42, 46)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from genplug.observe.events import Event
from genplug.testing.kubelet import AdmissionError
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.resources import X, Y, build_x_config, list_host_paths, plug_devices

LINKS = build_x_config(glob="'/dev/by-id/*'")
ALL_X = "devices: [{glob: /dev/x*}]"


def build_two_resources(first: str, second: str) -> str:
    """Return a configuration in which two resources select the same devices."""
    return f"{CONFIG_HEADER}resources:\n  {first}: {{{ALL_X}}}\n  {second}: {{{ALL_X}}}\n"


def link(node: FakeNode, *names: str, target: str = "../x0") -> None:
    for name in names:
        node.link(f"/dev/by-id/{name}", target)


async def wait_for_one(node: FakeNode, resource: str = X) -> str:
    """Wait until a resource has one healthy device and no other; return its ID."""
    listed = await node.kubelet.wait_for_list(
        resource, lambda devices: len(devices) == len(devices.healthy) == 1, timeout=15
    )
    return next(iter(listed))


@asynccontextmanager
async def delay_pod_resources(node: FakeNode, seconds: float) -> AsyncIterator[None]:
    """Forward connections to the pod-resources API of the kubelet after a delay."""
    socket = node.kubelet.pod_resources_socket
    served = socket.rename(socket.with_name("served"))

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        # The client or the kubelet can end the connection.
        with suppress(OSError):
            while content := await source.read(4096):
                target.write(content)
        target.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        kubelet_reader, kubelet_writer = await asyncio.open_unix_connection(served)
        await asyncio.gather(copy(reader, kubelet_writer), copy(kubelet_reader, writer))

    async with await asyncio.start_unix_server(forward, socket):
        yield


@pytest.mark.parametrize("names", [("b", "a", "c"), ("c", "b", "a"), ("a", "b", "c")])
async def test_46_device_keeps_its_id_when_more_links_to_it_appear(node: FakeNode, names: Sequence[str]) -> None:
    plug_devices(node, "x0", "x1")
    link(node, names[0])
    async with node.run_agent(LINKS):
        device_id = await wait_for_one(node)
        await node.kubelet.admit(X, ids={device_id}, pod="user")
        for name in names[1:]:
            link(node, name)
        link(node, "other", target="../x1")
        await node.kubelet.wait_for_list(X, lambda devices: len(devices) == 2)
        assert device_id in node.kubelet.devices(X).healthy
        assert {len(message.devices) for message in node.kubelet.messages(X)} == {1, 2}


async def test_renamed_link_is_a_new_id_when_no_pod_uses_the_device(node: FakeNode) -> None:
    node.plug("/dev/x0")
    link(node, "a")
    async with node.run_agent(LINKS, drain_seconds=0.2):
        old = await wait_for_one(node)
        allocation = await node.kubelet.admit(X, ids={old}, pod="user")
        link(node, "b")
        node.unplug("/dev/by-id/a")
        # While the pod runs, the disk has no other ID.
        await node.kubelet.wait_for_list(X, unhealthy={old})
        assert node.kubelet.devices(X).ids == {old}
        await node.kubelet.remove_pod("user")
        await node.kubelet.wait_for_list(
            X, lambda devices: len(devices.healthy) == 1 and old not in devices, timeout=15
        )
        assert not any(len(message.devices) > 1 for message in node.kubelet.messages(X))
        new = await wait_for_one(node)
        assert list_host_paths((await node.kubelet.admit(X, ids={new}, pod="next")).response) == list_host_paths(
            allocation.response
        )


async def test_link_to_another_disk_is_withheld_while_a_pod_uses_the_first(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    link(node, "a")
    async with node.run_agent(LINKS, drain_seconds=0.2) as agent:
        old = await wait_for_one(node)
        await node.kubelet.admit(X, ids={old}, pod="user")
        # The names of the two disks are exchanged.
        link(node, "a", target="../x1")
        link(node, "b")
        await node.kubelet.wait_for_list(X, lambda devices: devices.unhealthy == {old})
        await node.kubelet.wait_for(lambda: any("withheld" in note for note in agent.status.resources[0].notes))
        assert node.kubelet.devices(X).ids == {old}
        await node.kubelet.remove_pod("user")
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 2, timeout=15)
        paths = list_host_paths((await node.kubelet.admit(X, ids={old}, pod="next")).response)
        assert paths == ["/dev/x1"]


async def test_restarted_agent_keeps_the_id_that_a_pod_uses(node: FakeNode) -> None:
    node.plug("/dev/x0")
    link(node, "b")
    async with node.run_agent(LINKS):
        device_id = await wait_for_one(node)
        await node.kubelet.admit(X, ids={device_id}, pod="user")
    await node.kubelet.wait_disconnected(X)
    link(node, "a", "c")
    async with node.run_agent():
        assert await wait_for_one(node) == device_id
    assert {id_ for message in node.kubelet.messages(X) for id_ in message.devices} == {device_id}


async def test_first_list_is_complete_when_the_kubelet_reports_late(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    link(node, "a", "b")
    link(node, "c", "d", target="../x1")
    await node.kubelet.start()
    async with delay_pod_resources(node, 0.3):
        for _ in ("start", "restart"):
            async with node.run_agent(LINKS):
                await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 2)
            await node.kubelet.wait_disconnected(X)
    assert {len(message.devices) for message in node.kubelet.messages(X)} == {2}


async def test_first_list_of_an_alias_is_complete_when_the_kubelet_reports_late(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    await node.kubelet.start()
    config = f"{CONFIG_HEADER}resources: {{{X}: {{aliases: [{Y}], {ALL_X}}}}}\n"
    async with delay_pod_resources(node, 0.3):
        for _ in ("start", "restart"):
            async with node.run_agent(config):
                for name in (X, Y):
                    await node.kubelet.wait_for_list(name, healthy={"x0", "x1"})
            await node.kubelet.wait_disconnected(X)
    messages = [message for name in (X, Y) for message in node.kubelet.messages(name)]
    assert {len(message.devices.healthy) for message in messages} == {2}


async def test_id_in_use_is_kept_after_a_restart_when_another_resource_overlaps(node: FakeNode) -> None:
    overlap = "share: {overlap: true}"
    links = "devices: [{glob: '/dev/by-id/*'}]"
    config = f"{CONFIG_HEADER}resources:\n  {X}: {{{links}, {overlap}}}\n  {Y}: {{{ALL_X}, {overlap}}}\n"
    node.plug("/dev/x0")
    link(node, "b")
    async with node.run_agent(config):
        device_id = await wait_for_one(node)
        await node.kubelet.admit(X, ids={device_id}, pod="user")
    await node.kubelet.wait_disconnected(X)
    link(node, "a", "c")
    async with delay_pod_resources(node, 3.0), node.run_agent():
        await wait_for_one(node, Y)
        assert await wait_for_one(node) == device_id
    assert {id_ for message in node.kubelet.messages(X) for id_ in message.devices} == {device_id}


async def test_device_with_several_ids_is_withheld_until_the_kubelet_reports(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    link(node, "a", "b")
    link(node, "other", target="../x1")
    await node.kubelet.start()
    pods = node.kubelet.pod_resources_socket
    pods.rename(pods.with_name("away"))
    async with node.run_agent(LINKS) as agent:
        unavailable = await next_event(record_events(agent), Event.POD_RESOURCES_UNAVAILABLE)
        assert "withheld until the kubelet responds" in unavailable.text
        await node.kubelet.wait_for_list(X, lambda devices: len(devices) == 1)
        pods.with_name("away").rename(pods)
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 2, timeout=15)


async def test_replugged_device_keeps_its_id_and_its_former_numbers_are_withheld(node: FakeNode) -> None:
    node.plug("/dev/x0", major=188, minor=0)
    link(node, "a")
    async with node.run_agent(LINKS, drain_seconds=0.2):
        device_id = await wait_for_one(node)
        await node.kubelet.admit(X, ids={device_id}, pod="user")
        node.unplug("/dev/x0")
        await node.kubelet.wait_for_list(X, unhealthy={device_id})
        node.plug("/dev/x1", major=188, minor=1)
        link(node, "a", target="../x1")
        assert await wait_for_one(node) == device_id
        # The container of the pod may still use the device number.
        node.plug("/dev/x0", major=188, minor=0)
        link(node, "b", target="../x0")
        link(node, "marker", target="../marker")
        node.plug("/dev/marker", major=188, minor=9)
        await node.kubelet.wait_for_list(X, lambda devices: len(devices) == 2)
        await node.kubelet.remove_pod("user")
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 3, timeout=15)


@pytest.mark.parametrize(("first", "second"), [(X, Y), (Y, X)])
async def test_42_second_claim_has_the_same_result_at_start_and_at_reload(
    node: FakeNode, first: str, second: str
) -> None:
    plug_devices(node, "x0", "x1")
    node.write_config(build_two_resources(first, second))
    async with node.run_agent():
        await node.kubelet.wait_for_list(first, lambda devices: len(devices.healthy) == 2, timeout=15)
        assert not node.kubelet.devices(second)
    node.write_config(f"{CONFIG_HEADER}resources:\n  {X}: {{{ALL_X}}}\n")
    async with node.run_agent() as agent:
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 2, timeout=15)
        entries = record_events(agent)
        node.write_config(build_two_resources(first, second))
        await next_event(entries, Event.CONFIG_LOADED)
        await node.kubelet.wait_for_list(first, lambda devices: len(devices.healthy) == 2, timeout=15)
        await node.kubelet.wait_for(lambda: node.kubelet.stream_count(second) == 1)
        await node.kubelet.wait_for(lambda: not node.kubelet.devices(second))
        assert not agent.status.config.error
        await node.kubelet.wait_for(lambda: agent.status.is_ready)
        (status,) = (resource for resource in agent.status.resources if resource.name == second)
        assert any(f"claimed by resource {first}" in note for note in status.notes)


async def test_42_reloaded_claim_leaves_a_device_that_a_pod_uses_where_it_is(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    async with node.run_agent(f"{CONFIG_HEADER}resources:\n  {X}: {{{ALL_X}}}\n", drain_seconds=0.2) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await node.kubelet.admit(X, ids={"x1"}, pod="user")
        entries = record_events(agent)
        node.write_config(build_two_resources(Y, X))
        conflict = await next_event(entries, Event.DEVICE_NODE_CONFLICT, "a pod uses it as x1 of example.com/x")
        assert "device x1 of example.com/y is left out" in conflict.text
        await node.kubelet.wait_for_list(Y, healthy={"x0"}, timeout=15)
        assert node.kubelet.devices(X).healthy == {"x1"}
        await node.kubelet.remove_pod("user")
        await node.kubelet.wait_for_list(Y, healthy={"x0", "x1"}, timeout=15)
        with pytest.raises(AdmissionError):
            await node.kubelet.admit(X, pod="late")


async def test_device_that_moves_to_another_resource_is_withheld_while_a_pod_uses_it(node: FakeNode) -> None:
    plug_devices(node, "x0", "y0")
    config = (
        f"{CONFIG_HEADER}resources:\n  {X}: {{devices: [{{glob: /dev/x*}}]}}\n  {Y}: {{devices: [{{glob: /dev/y*}}]}}\n"
    )
    async with node.run_agent(config, drain_seconds=0.2) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await node.kubelet.admit(X, ids={"x0"}, pod="user")
        entries = record_events(agent)
        node.write_config(config.replace("/dev/x*", "/dev/none*").replace("/dev/y*", "/dev/?0"))
        await next_event(entries, Event.CONFIG_LOADED)
        await node.kubelet.wait_for_list(X, lambda devices: not devices)
        assert node.kubelet.devices(Y).ids == {"y0"}
        await node.kubelet.remove_pod("user")
        await node.kubelet.wait_for_list(Y, healthy={"x0", "y0"}, timeout=15)
