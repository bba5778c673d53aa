"""A changed configuration, however it is changed: what is touched, what stays (contract 10: 68 to 70, 72 to 75)."""

import asyncio
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Iterable
from typing import Literal

import pytest

from genplug.agent import Agent
from genplug.observe.events import Event
from genplug.testing.kubelet.stand_in import KubeletStandIn
from genplug.testing.node.config_files import WRITE_METHODS, swap_config_map
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\n"
X, Y, Z = "example.com/x", "example.com/y", "example.com/z"
FIRST = HEAD + "resources: {example.com/x: {devices: [{glob: '/dev/x[0-4]'}]}}"
SECOND = HEAD + "resources: {example.com/x: {devices: [{glob: '/dev/x[1-5]'}]}}"


def offering(resources: Iterable[str]) -> str:
    """A configuration with these resources, each with the devices of its last letter."""
    return HEAD + f"resources: {{{', '.join(f'{one}: {{devices: [{{glob: /dev/{one[-1]}*}}]}}' for one in resources)}}}"


async def metric(agent: Agent, name: str) -> float:
    def page() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{agent.listens_on}/metrics") as answer:
            return str(answer.read().decode())

    [line] = [line for line in (await asyncio.to_thread(page)).splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def sockets(kubelet: KubeletStandIn) -> dict[str, int]:
    """The plugins' sockets by name, with their inodes."""
    return {path.name: path.stat().st_ino for path in kubelet.plugins_dir.glob("*.sock") if path != kubelet.socket}


def deafened(node: FakeNode, text: str) -> None:
    """Change the configuration's file so that no event tells: through a link from elsewhere (inotify(7), caveats)."""
    outside = node.directory / "outside"
    if not outside.exists():
        os.link(node.config_dir / "genplug.yaml", outside)
    outside.write_text(text)


@pytest.mark.parametrize("how", sorted(WRITE_METHODS))
async def test_changed_file_is_loaded_for_every_way_of_writing(
    node: FakeNode, how: Literal["in_place", "rename", "editor", "configmap"]
) -> None:
    for number in range(6):
        node.plug(f"/dev/x{number}")
    node.write_config(FIRST, how=how)
    async with node.run_agent():
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"})
        written = time.monotonic()
        for text, healthy in ((SECOND, "12345"), (FIRST, "01234")):
            node.write_config(text, how=how)
            await node.kubelet.wait_for_list(X, healthy={f"x{number}" for number in healthy}, unhealthy=())
        assert node.kubelet.messages(X)[1].time - written < 0.5
        assert len(node.kubelet.registrations) == 1


async def test_requested_reload_loads_a_change_without_an_event(node: FakeNode) -> None:
    for number in range(6):
        node.plug(f"/dev/x{number}")
    async with node.run_agent(FIRST) as agent:
        entries = record_events(agent)
        # The second look, at what changed before the directory was watched.
        await next_event(entries, Event.CONFIG_UNCHANGED)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"})
        deafened(node, SECOND)
        # It was not told: what is found now is found with the old configuration.
        node.unplug("/dev/x0")
        await node.kubelet.wait_for_list(X, healthy={"x1", "x2", "x3", "x4"}, unhealthy={"x0"})
        agent.reload()
        await next_event(entries, Event.CONFIG_LOADED)
        await node.kubelet.wait_for_list(X, healthy={"x1", "x2", "x3", "x4", "x5"}, unhealthy=())


async def test_sighup_requests_a_reload(node: FakeNode, kubelet: KubeletStandIn) -> None:
    for number in range(6):
        node.plug(f"/dev/x{number}")
    node.write_config(FIRST)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "genplug", "run", "--log-level", "debug", "--config", node.config_dir),
        *("--root", node.root, "--kubelet-dir", node.kubelet_dir),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"})
        assert process.stderr is not None
        # The second look, at what changed before the directory was watched.
        await process.stderr.readuntil(Event.CONFIG_UNCHANGED.code.encode())
        deafened(node, SECOND)
        process.send_signal(signal.SIGHUP)
        await kubelet.wait_for_list(X, healthy={"x1", "x2", "x3", "x4", "x5"}, timeout=5)
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0


async def test_rescan_loads_a_configuration_change_without_an_event(node: FakeNode) -> None:
    for number in range(6):
        node.plug(f"/dev/x{number}")
    async with node.run_agent(FIRST, rescan=0.3):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"})
        for text, healthy in ((SECOND, "12345"), (FIRST, "01234")):
            deafened(node, text)
            await node.kubelet.wait_for_list(X, healthy={f"x{number}" for number in healthy}, timeout=3)


async def test_rescan_lists_a_device_change_without_an_event() -> None:
    async with FakeNode(stand_ins=True) as node:
        for number in range(2):
            node.plug(f"/dev/x{number}")
        outside = node.directory / "outside"
        os.link(node.locate("/dev/x1"), outside)
        async with node.run_agent(FIRST, rescan=0.3):
            await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
            # Whatever looks are due after the start are over when this is found.
            node.plug("/dev/x2")
            await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"})
            outside.write_text("broken")
            await node.kubelet.wait_for_list(X, healthy={"x0", "x2"}, unhealthy={"x1"}, timeout=3)


INVALID = {
    "not YAML": (HEAD + "resources: [\n", "3:12"),
    "unknown key": (HEAD + "resources:\n  example.com/x: {devices: [{golb: /dev/x*}]}\n", "4:30"),
    "wrong type": (HEAD + "resources:\n  example.com/x: {devices: /dev/x*}\n", "4:28"),
    "two mistakes": (HEAD + "resources:\n  example.com/x: {devices: [{glob: x}], replicas: none}\n", "4:36 4:51"),
    "empty file": ("", "1:1"),
    "key deleted": (HEAD, "1:1"),
    "null resources": (HEAD + "resources:\n", "3:1"),
    "another kind": (FIRST.replace("DevicePluginConfig", "ConfigMap"), "2:7"),
}


@pytest.mark.parametrize(("text", "positions"), INVALID.values(), ids=INVALID)
async def test_68_invalid_file_is_reported_and_changes_nothing(node: FakeNode, text: str, positions: str) -> None:
    kubelet = node.kubelet
    node.plug("/dev/x0")
    async with node.run_agent(FIRST, listen=("127.0.0.1", 0)) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED)
        before, in_force = sockets(kubelet), agent.status.config
        assert await metric(agent, "genplug_config_last_reload_successful") == 1

        node.write_config(text)
        said = await next_event(entries, Event.CONFIG_INVALID)
        for one in positions.split():
            assert f"{node.config_dir}/genplug.yaml:{one}: error" in said.text
            assert f"{node.config_dir}/genplug.yaml:{one}: error" in agent.status.config.error
        assert agent.status.config.sha256 == in_force.sha256
        assert agent.status.is_ready
        assert await metric(agent, "genplug_config_last_reload_successful") == 0

        # The last good one is in force, for devices too; no stream or socket was touched.
        node.plug("/dev/x1")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert [len(message.devices) for message in kubelet.messages(X)] == [1, 2]
        assert sockets(kubelet) == before
        assert len(kubelet.attempts) == kubelet.stream_count(X) == 1

        node.write_config(FIRST)
        await next_event(entries, Event.CONFIG_UNCHANGED)
        assert not agent.status.config.error
        assert await metric(agent, "genplug_config_last_reload_successful") == 1


async def test_68_deleted_file_keeps_the_last_good_configuration(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(FIRST) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED)
        (node.config_dir / "genplug.yaml").unlink()
        said = await next_event(entries, Event.CONFIG_INVALID)
        assert str(node.config_dir) in said.text
        node.plug("/dev/x1")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert len(node.kubelet.attempts) == 1

        node.write_config(SECOND)
        await node.kubelet.wait_for_list(X, healthy={"x1"}, unhealthy=())
        assert not agent.status.config.error


async def test_68_invalid_file_at_start_offers_nothing_until_fixed(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(INVALID["not YAML"][0]) as agent:
        said = await next_event(record_events(agent), Event.CONFIG_INVALID)
        assert not agent.status.is_ready
        assert any("no configuration is loaded" in reason for reason in agent.status.unready)
        assert f"{node.config_dir}/genplug.yaml:3:12: error" in said.text
        assert not node.kubelet.attempts
        node.write_config(FIRST)
        await node.kubelet.wait_for_list(X, healthy={"x0"})


async def test_69_change_of_a_resource_does_not_affect_other_resources(node: FakeNode) -> None:
    kubelet = node.kubelet
    for name in ("x0", "y0", "y1"):
        node.plug(f"/dev/{name}")
    async with node.run_agent(offering([X, Y])):
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0", "y1"})
        before = sockets(kubelet)

        node.write_config(offering([X, Y]).replace("/dev/y*", "/dev/y1"))
        await kubelet.wait_for_list(Y, healthy={"y1"}, unhealthy=())
        # A list that was wrongly sent would stand before this one.
        node.plug("/dev/x1")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert [len(message.devices) for message in kubelet.messages(X)] == [1, 2]
        assert [len(message.devices) for message in kubelet.messages(Y)] == [2, 1]
        assert sockets(kubelet) == before
        assert len(kubelet.attempts) == 2


async def test_69_comment_changes_nothing_and_allocate_change_sends_no_list(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(offering([X])) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED)
        before = sockets(node.kubelet)
        node.write_config("# Written by somebody.\n" + offering([X]))
        await next_event(entries, Event.CONFIG_UNCHANGED)

        node.write_config(offering([X]).replace("}]}", "}], allocate: {env: {NEW: '${path}'}}}"))
        await next_event(entries, Event.CONFIG_LOADED)
        allocation = await node.kubelet.admit(X)
        assert dict(allocation.response.envs) == {"NEW": "/dev/x0"}

        node.plug("/dev/x1")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert len(node.kubelet.messages(X)) == 2
        assert sockets(node.kubelet) == before
        assert len(node.kubelet.attempts) == 1


async def test_70_changed_globs_are_listed_on_the_open_stream(node: FakeNode) -> None:
    kubelet = node.kubelet
    for number in range(6):
        node.plug(f"/dev/x{number}")
    async with node.run_agent(FIRST):
        await kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"})
        before = sockets(kubelet)
        for text, healthy in ((SECOND, "12345"), (FIRST.replace("[0-4]", "nothing"), ""), (FIRST, "01234")):
            node.write_config(text, how="rename")
            # What the configuration no longer asks for is not gone: it does not linger.
            await kubelet.wait_for_list(X, healthy={f"x{number}" for number in healthy}, unhealthy=())
        assert sockets(kubelet) == before
        assert len(kubelet.attempts) == kubelet.stream_count(X) == 1
        assert {message.endpoint for message in kubelet.messages(X)} == {str(kubelet.plugins_dir / next(iter(before)))}


async def test_71_changed_options_are_registered_and_changed_policies_are_not(node: FakeNode) -> None:
    kubelet = node.kubelet
    for name in ("x0", "y0"):
        node.plug(f"/dev/{name}")

    def preferring(policy: str) -> str:
        x = f"{X}: {{devices: [{{glob: /dev/x*}}], preferredAllocation: {{policy: {policy}}}}}"
        return HEAD + f"resources: {{{x}, {Y}: {{devices: [{{glob: /dev/y*}}]}}}}"

    async with node.run_agent(preferring("none")):
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        before = sockets(kubelet)

        node.write_config(preferring("packed"))
        registered = await kubelet.wait_registered(X, 2)
        assert registered.get_preferred_allocation_available
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert len(sockets(kubelet).items() & before.items()) == 1
        assert kubelet.stream_count(X) == kubelet.stream_count(Y) == 1

        node.write_config(preferring("spread"))
        # A registration that was wrongly made would come before this list.
        node.plug("/dev/x1")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert sorted(one.resource for one in kubelet.attempts) == [X, X, Y]


async def test_72_added_resource_is_registered_and_renamed_resource_is_replaced(node: FakeNode) -> None:
    kubelet = node.kubelet
    for name in ("x0", "y0"):
        node.plug(f"/dev/{name}")
    async with node.run_agent(offering([X]), drain=0.1) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        before = sockets(kubelet)
        node.write_config(offering([X, Y]))
        await kubelet.wait_for_list(Y, healthy={"y0"})
        assert sockets(kubelet).items() > before.items()
        assert len(kubelet.messages(X)) == 1

        renamed = offering([X, Y]).replace(Y, "example.com/renamed")
        node.write_config(renamed)
        await kubelet.wait_for_list("example.com/renamed", healthy={"y0"})
        assert (await next_event(entries, Event.RESOURCE_DRAINED)).facts["resource"] == Y
        await kubelet.wait_for(lambda: kubelet.stream_count(Y) == 0)
        assert [len(message.devices) for message in kubelet.messages(Y)] == [1, 0]
        assert [one.resource for one in kubelet.registrations] == [X, Y, "example.com/renamed"]
        await kubelet.wait_for(lambda: len(sockets(kubelet)) == 2)
        assert [one.name for one in agent.status.resources] == [X, "example.com/renamed"]
        assert kubelet.stream_count(X) == len(kubelet.messages(X)) == 1


async def test_73_removed_resource_answers_until_its_last_pod_ends(node: FakeNode) -> None:
    kubelet = node.kubelet
    for name in ("x0", "y0", "z0"):
        node.plug(f"/dev/{name}")
    async with node.run_agent(offering([X, Y, Z]), drain=0.1) as agent:
        entries = record_events(agent)
        for resource in (X, Y, Z):
            await kubelet.wait_for_list(resource)
        held = await kubelet.admit(X, pod="user")

        node.write_config(offering([Y, Z]), how="rename")
        await next_event(entries, Event.RESOURCE_REMOVED)
        await kubelet.wait_for_list(X, lambda devices: not devices)
        # That these two end, one after the other, shows that the pods were looked for meanwhile.
        for remaining, resource in (([Z], Y), ([], Z)):
            node.write_config(offering(remaining), how="rename")
            assert (await next_event(entries, Event.RESOURCE_DRAINED)).facts["resource"] == resource
        [removed] = agent.status.resources
        assert (removed.name, removed.is_removed, removed.is_registered) == (X, True, True)
        # What the kubelet needs to start the container again: a connected endpoint, and PreStartContainer.
        assert kubelet.stream_count(X) == 1
        await kubelet.plugin(X).pre_start_container(held.ids)
        assert kubelet.node_status().capacity[X] == 0

        # So it is after a restart of the kubelet, for the pod is still there.
        await kubelet.restart()
        await kubelet.wait_registered(X, times=2)
        await kubelet.wait_for(lambda: kubelet.stream_count(X) == 1)
        await kubelet.plugin(X).pre_start_container(held.ids)

        await kubelet.remove_pod("user")
        assert (await next_event(entries, Event.RESOURCE_DRAINED)).facts["resource"] == X
        await kubelet.wait_for(lambda: kubelet.stream_count(X) == 0)
        assert agent.status.resources == ()


async def test_73_removed_resource_is_kept_while_pod_resources_are_unavailable(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(offering([X]), drain=0.1) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X)
        pods = node.kubelet.pod_resources_socket
        pods.rename(pods.with_name("away"))
        node.write_config(HEAD + "resources: {}")
        said = await next_event(entries, Event.POD_RESOURCES_UNAVAILABLE)
        assert X in said.text
        assert agent.status.resources[0].is_registered
        pods.with_name("away").rename(pods)
        await next_event(entries, Event.RESOURCE_DRAINED)


async def test_73_restored_resource_keeps_its_endpoint(node: FakeNode) -> None:
    kubelet = node.kubelet
    node.plug("/dev/x0")
    async with node.run_agent(offering([X]), drain=0.1) as agent:
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.admit(X, pod="user")
        before = sockets(kubelet)
        node.write_config(HEAD + "resources: {}")
        await kubelet.wait_for_list(X, lambda devices: not devices)
        node.write_config(offering([X]))
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.remove_pod("user")

        # It is not drained any more: another resource that was removed later is.
        entries = record_events(agent)
        node.write_config(offering([X, Y]))
        await kubelet.wait_registered(Y)
        node.write_config(offering([X]))
        assert (await next_event(entries, Event.RESOURCE_DRAINED)).facts["resource"] == Y
        assert kubelet.stream_count(X) == 1
        assert before.items() <= sockets(kubelet).items()
        assert [one.resource for one in kubelet.registrations] == [X, Y]
        assert not agent.status.resources[0].is_removed


async def test_74_two_config_map_swaps_in_a_row_end_with_the_newest(node: FakeNode) -> None:
    kubelet = node.kubelet
    for name in ("x0", "y0", "z0"):
        node.plug(f"/dev/{name}")
    swap_config_map(node.config_dir, {"genplug.yaml": FIRST})
    async with node.run_agent() as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        for first, second in (("z", "y"), ("y", "z")):
            for letter in (first, second):
                swap_config_map(node.config_dir, {"genplug.yaml": FIRST.replace("/dev/x", f"/dev/{letter}")})
            await kubelet.wait_for_list(X, healthy={f"{second}0"}, unhealthy=())
        # And stays so: this is found with the configuration in force.
        node.plug("/dev/z1")
        await kubelet.wait_for_list(X, healthy={"z0", "z1"}, unhealthy=())
        assert kubelet.stream_count(X) == len(kubelet.attempts) == 1
    assert Event.CONFIG_INVALID not in {entries.get_nowait().event for _ in range(entries.qsize())}


async def test_75_reload_storm_ends_with_the_last_configuration_in_few_reloads(node: FakeNode) -> None:
    kubelet = node.kubelet
    for number in range(100):
        node.plug(f"/dev/x{number}")

    def config(number: int) -> str:
        return HEAD + f"resources: {{example.com/x: {{devices: [{{glob: '/dev/x{number}'}}]}}}}"

    def storm() -> None:
        for number in range(1, 100):
            node.write_config(config(number), how="rename")
            # The pace of the storm: a change every few milliseconds.
            time.sleep(0.005)

    async with node.run_agent(config(0)) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED)
        started = time.monotonic()
        await asyncio.to_thread(storm)
        lasted = time.monotonic() - started
        await kubelet.wait_for_list(X, healthy={"x99"}, unhealthy=())
        read = sum(entries.get_nowait().event is Event.CONFIG_LOADED for _ in range(entries.qsize()))
        assert 0 < read < 30
        assert len(kubelet.messages(X)) <= 3 + lasted
        assert len(kubelet.attempts) == kubelet.stream_count(X) == 1
