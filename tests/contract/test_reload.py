"""Changes of the configuration, and what each must not affect (points 68 to 75)."""

import asyncio
import os
import signal
import time
from typing import Literal

import pytest

from genplug.agent.debounce import DEBOUNCE_SECONDS
from genplug.cli.main import main
from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.config_files import WRITE_METHODS, swap_config_map
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.agent_process import read_log_entry, start_agent, wait_for_exit
from tests.support.configs import CONFIG_HEADER
from tests.support.events import drain_events
from tests.support.lists import assert_limited_rate
from tests.support.metrics import read_metrics
from tests.support.resources import X, Y, Z, build_config, build_x_config, plug_devices
from tests.support.sockets import list_plugin_sockets

FIRST = build_x_config(glob="'/dev/x[0-4]'")
SECOND = build_x_config(glob="'/dev/x[1-5]'")
SIX_DEVICES = [f"x{number}" for number in range(6)]


def write_without_event(node: FakeNode, text: str) -> None:
    """Write the configuration file through a hard link in another directory, of which inotify does not notify."""
    link = node.directory / "link"
    if not link.exists():
        os.link(node.config_dir / "genplug.yaml", link)
    link.write_text(text)


@pytest.mark.parametrize("how", sorted(WRITE_METHODS))
async def test_changed_file_is_loaded_for_every_way_of_writing(
    node: FakeNode, how: Literal["in_place", "rename", "editor", "configmap"]
) -> None:
    plug_devices(node, *SIX_DEVICES)
    node.write_config(FIRST, how=how)
    async with node.run_agent():
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"})
        # Long before the next scan, which would also load the change.
        for text, healthy in ((SECOND, "12345"), (FIRST, "01234")):
            node.write_config(text, how=how)
            await node.kubelet.wait_for_list(X, healthy={f"x{number}" for number in healthy}, unhealthy=())
        assert len(node.kubelet.registrations) == 1


async def test_requested_reload_loads_a_change_without_an_event(node: FakeNode) -> None:
    plug_devices(node, *SIX_DEVICES)
    async with node.run_agent(FIRST) as agent:
        entries = record_events(agent)
        # The second read finds changes from before the directory was watched.
        await next_event(entries, Event.CONFIG_UNCHANGED)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"})
        write_without_event(node, SECOND)
        # The agent does not know of the change: it scans with the first configuration.
        node.unplug("/dev/x0")
        await node.kubelet.wait_for_list(X, healthy={"x1", "x2", "x3", "x4"}, unhealthy={"x0"})
        agent.reload()
        await next_event(entries, Event.CONFIG_LOADED)
        await node.kubelet.wait_for_list(X, healthy={"x1", "x2", "x3", "x4", "x5"}, unhealthy=())


async def test_sighup_requests_a_reload(node: FakeNode, kubelet: KubeletStandIn) -> None:
    plug_devices(node, *SIX_DEVICES)
    node.write_config(FIRST)
    async with start_agent(node, "--log-level", "debug") as process:
        await kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"})
        # The second read finds changes from before the directory was watched.
        await read_log_entry(process, Event.CONFIG_UNCHANGED)
        write_without_event(node, SECOND)
        process.send_signal(signal.SIGHUP)
        await kubelet.wait_for_list(X, healthy={"x1", "x2", "x3", "x4", "x5"})
        process.terminate()
        assert await wait_for_exit(process) == 0


async def test_reload_command_requests_a_reload_and_a_scan(
    node: FakeNode, kubelet: KubeletStandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    plug_devices(node, *SIX_DEVICES)
    node.write_config(FIRST)
    command = ["reload", "--kubelet-dir", str(node.kubelet_dir)]
    assert main(command) == 1
    assert f"no agent of this PID namespace serves {node.kubelet_dir}/device-plugins" in capfd.readouterr().err
    async with start_agent(node, "--log-level", "debug") as process:
        await kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"})
        await read_log_entry(process, Event.CONFIG_UNCHANGED)
        write_without_event(node, SECOND)
        assert main(command) == 0
        assert f"process {process.pid} reads its configuration" in capfd.readouterr().err
        await kubelet.wait_for_list(X, healthy={"x1", "x2", "x3", "x4", "x5"})


async def test_rescan_loads_a_configuration_change_without_an_event(node: FakeNode) -> None:
    plug_devices(node, *SIX_DEVICES)
    async with node.run_agent(FIRST, rescan_seconds=0.3):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"})
        for text, healthy in ((SECOND, "12345"), (FIRST, "01234")):
            write_without_event(node, text)
            await node.kubelet.wait_for_list(X, healthy={f"x{number}" for number in healthy})


async def test_rescan_lists_a_device_change_without_an_event() -> None:
    async with FakeNode(stand_ins=True) as node:
        plug_devices(node, "x0", "x1")
        link = node.directory / "link"
        os.link(node.locate("/dev/x1"), link)
        async with node.run_agent(FIRST, rescan_seconds=0.3):
            await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
            # The scans that belong to the start are over when this device is found.
            node.plug("/dev/x2")
            await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"})
            link.write_text("broken")
            await node.kubelet.wait_for_list(X, healthy={"x0", "x2"}, unhealthy={"x1"})


INVALID = {
    "not YAML": (CONFIG_HEADER + "resources: [\n", "3:12"),
    "unknown key": (CONFIG_HEADER + "resources:\n  example.com/x: {devices: [{golb: /dev/x*}]}\n", "4:30"),
    "wrong type": (CONFIG_HEADER + "resources:\n  example.com/x: {devices: /dev/x*}\n", "4:28"),
    "two errors": (
        CONFIG_HEADER + "resources:\n  example.com/x: {devices: [{glob: x}], replicas: none}\n",
        "4:36 4:51",
    ),
    "empty file": ("", "1:1"),
    "key deleted": (CONFIG_HEADER, "1:1"),
    "null resources": (CONFIG_HEADER + "resources:\n", "3:1"),
    "another kind": (FIRST.replace("DevicePluginConfig", "ConfigMap"), "2:7"),
}


@pytest.mark.parametrize(("text", "positions"), INVALID.values(), ids=INVALID)
async def test_68_invalid_file_is_reported_and_changes_nothing(node: FakeNode, text: str, positions: str) -> None:
    kubelet = node.kubelet
    node.plug("/dev/x0")
    async with node.run_agent(FIRST, listen=("127.0.0.1", 0)) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED)
        before, active = list_plugin_sockets(kubelet), agent.status.config
        assert (await read_metrics(agent))["genplug_config_last_reload_successful"] == 1

        node.write_config(text)
        invalid = await next_event(entries, Event.CONFIG_INVALID)
        for position in positions.split():
            assert f"{node.config_dir}/genplug.yaml:{position}: error" in invalid.text
            assert f"{node.config_dir}/genplug.yaml:{position}: error" in agent.status.config.error
        assert agent.status.config.sha256 == active.sha256
        assert agent.status.is_ready
        assert (await read_metrics(agent))["genplug_config_last_reload_successful"] == 0

        # The last good configuration is active, for devices too; streams and sockets are kept.
        node.plug("/dev/x1")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert [len(message.devices) for message in kubelet.messages(X)] == [1, 2]
        assert list_plugin_sockets(kubelet) == before
        assert len(kubelet.attempts) == kubelet.stream_count(X) == 1

        node.write_config(FIRST)
        await next_event(entries, Event.CONFIG_UNCHANGED)
        assert not agent.status.config.error
        assert (await read_metrics(agent))["genplug_config_last_reload_successful"] == 1


async def test_68_deleted_file_keeps_the_last_good_configuration(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(FIRST) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED)
        (node.config_dir / "genplug.yaml").unlink()
        invalid = await next_event(entries, Event.CONFIG_INVALID)
        assert str(node.config_dir) in invalid.text
        node.plug("/dev/x1")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert len(node.kubelet.attempts) == 1

        node.write_config(SECOND)
        await node.kubelet.wait_for_list(X, healthy={"x1"}, unhealthy=())
        assert not agent.status.config.error


async def test_68_invalid_file_at_start_offers_nothing_until_fixed(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(INVALID["not YAML"][0]) as agent:
        invalid = await next_event(record_events(agent), Event.CONFIG_INVALID)
        assert not agent.status.is_ready
        assert any("no configuration is loaded" in reason for reason in agent.status.unready)
        assert f"{node.config_dir}/genplug.yaml:3:12: error" in invalid.text
        assert not node.kubelet.attempts
        node.write_config(FIRST)
        await node.kubelet.wait_for_list(X, healthy={"x0"})


async def test_warnings_of_the_active_configuration_are_logged(node: FakeNode) -> None:
    node.plug("/dev/x0")
    text = FIRST.replace("'/dev/x[0-4]'", "[/dev/x0, /dev/nvidia.*]")
    async with node.run_agent(text) as agent:
        entry = await next_event(record_events(agent), Event.CONFIG_WARNING)
        assert "1 warning" in entry.text
        assert "genplug.yaml" in entry.text
        assert "warning[GP102]: '/dev/nvidia.*' looks like a regular expression" in entry.text
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert agent.status.is_ready


async def test_warning_about_a_file_that_is_added_and_ignored_is_logged(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(FIRST) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        entries = record_events(agent)
        await next_event(entries, Event.CONFIG_UNCHANGED)
        assert not agent.status.config.warnings
        (node.config_dir / "more.conf").write_text("resources:\n  example.com/y: {devices: [{glob: /dev/y*}]}\n")
        entry = await next_event(entries, Event.CONFIG_WARNING)
        assert "warning[GP106]: 'more.conf' contains a configuration, and genplug ignores it" in entry.text
        assert len(agent.status.config.warnings) == 1
        assert len(node.kubelet.registrations) == 1


async def test_69_change_of_a_resource_does_not_affect_other_resources(node: FakeNode) -> None:
    kubelet = node.kubelet
    plug_devices(node, "x0", "y0", "y1")
    async with node.run_agent(build_config([X, Y])):
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0", "y1"})
        before = list_plugin_sockets(kubelet)

        node.write_config(build_config([X, Y]).replace("/dev/y*", "/dev/y1"))
        await kubelet.wait_for_list(Y, healthy={"y1"}, unhealthy=())
        # A list that must not be sent would precede this list.
        node.plug("/dev/x1")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert [len(message.devices) for message in kubelet.messages(X)] == [1, 2]
        assert [len(message.devices) for message in kubelet.messages(Y)] == [2, 1]
        assert list_plugin_sockets(kubelet) == before
        assert len(kubelet.attempts) == 2


async def test_69_comment_changes_nothing_and_allocate_change_sends_no_list(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(build_config([X])) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED)
        before = list_plugin_sockets(node.kubelet)
        node.write_config("# A comment.\n" + build_config([X]))
        await next_event(entries, Event.CONFIG_UNCHANGED)

        node.write_config(build_config([X]).replace("}]}", "}], allocate: {env: {NEW: '${path}'}}}"))
        await next_event(entries, Event.CONFIG_LOADED)
        allocation = await node.kubelet.admit(X)
        assert dict(allocation.response.envs) == {"NEW": "/dev/x0"}

        node.plug("/dev/x1")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert len(node.kubelet.messages(X)) == 2
        assert list_plugin_sockets(node.kubelet) == before
        assert len(node.kubelet.attempts) == 1


async def test_70_changed_globs_are_listed_on_the_open_stream(node: FakeNode) -> None:
    kubelet = node.kubelet
    plug_devices(node, *SIX_DEVICES)
    async with node.run_agent(FIRST):
        await kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3", "x4"})
        before = list_plugin_sockets(kubelet)
        for text, healthy in ((SECOND, "12345"), (FIRST.replace("[0-4]", "nothing"), ""), (FIRST, "01234")):
            node.write_config(text, how="rename")
            # Devices that the globs no longer match have no grace period, since they still exist.
            await kubelet.wait_for_list(X, healthy={f"x{number}" for number in healthy}, unhealthy=())
        assert list_plugin_sockets(kubelet) == before
        assert len(kubelet.attempts) == kubelet.stream_count(X) == 1
        assert {message.endpoint for message in kubelet.messages(X)} == {str(kubelet.plugins_dir / next(iter(before)))}


async def test_71_changed_options_are_registered_and_changed_policies_are_not(node: FakeNode) -> None:
    kubelet = node.kubelet
    plug_devices(node, "x0", "y0")

    def build_policy_config(policy: str) -> str:
        x = f"{X}: {{devices: [{{glob: /dev/x*}}], preferredAllocation: {{policy: {policy}}}}}"
        return CONFIG_HEADER + f"resources: {{{x}, {Y}: {{devices: [{{glob: /dev/y*}}]}}}}"

    async with node.run_agent(build_policy_config("none")):
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        before = list_plugin_sockets(kubelet)

        node.write_config(build_policy_config("packed"))
        registered = await kubelet.wait_registered(X, 2)
        assert registered.get_preferred_allocation_available
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert len(list_plugin_sockets(kubelet).items() & before.items()) == 1
        assert kubelet.stream_count(X) == kubelet.stream_count(Y) == 1

        node.write_config(build_policy_config("spread"))
        # A registration that must not happen would precede this list.
        node.plug("/dev/x1")
        await kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert sorted(attempt.resource for attempt in kubelet.attempts) == [X, X, Y]


async def test_72_added_resource_is_registered_and_renamed_resource_is_replaced(node: FakeNode) -> None:
    kubelet = node.kubelet
    plug_devices(node, "x0", "y0")
    async with node.run_agent(build_config([X]), drain_seconds=0.1) as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        before = list_plugin_sockets(kubelet)
        node.write_config(build_config([X, Y]))
        await kubelet.wait_for_list(Y, healthy={"y0"})
        assert list_plugin_sockets(kubelet).items() > before.items()
        assert len(kubelet.messages(X)) == 1

        renamed = build_config([X, Y]).replace(Y, "example.com/renamed")
        node.write_config(renamed)
        await kubelet.wait_for_list("example.com/renamed", healthy={"y0"})
        assert (await next_event(entries, Event.RESOURCE_DRAINED)).facts["resource"] == Y
        await kubelet.wait_for(lambda: kubelet.stream_count(Y) == 0)
        assert [len(message.devices) for message in kubelet.messages(Y)] == [1, 0]
        assert [registration.resource for registration in kubelet.registrations] == [X, Y, "example.com/renamed"]
        await kubelet.wait_for(lambda: len(list_plugin_sockets(kubelet)) == 2)
        assert [resource.name for resource in agent.status.resources] == [X, "example.com/renamed"]
        assert kubelet.stream_count(X) == len(kubelet.messages(X)) == 1


async def test_73_removed_resource_answers_until_its_last_pod_ends(node: FakeNode) -> None:
    kubelet = node.kubelet
    plug_devices(node, "x0", "y0", "z0")
    async with node.run_agent(build_config([X, Y, Z]), drain_seconds=0.1) as agent:
        entries = record_events(agent)
        for resource in (X, Y, Z):
            await kubelet.wait_for_list(resource)
        allocation = await kubelet.admit(X, pod="user")

        node.write_config(build_config([Y, Z]), how="rename")
        await next_event(entries, Event.RESOURCE_REMOVED)
        await kubelet.wait_for_list(X, lambda devices: not devices)
        # Two other resources drain one after the other: the agent has asked for the pods in the meantime.
        for remaining, resource in (([Z], Y), ([], Z)):
            node.write_config(build_config(remaining), how="rename")
            assert (await next_event(entries, Event.RESOURCE_DRAINED)).facts["resource"] == resource
        [removed] = agent.status.resources
        assert (removed.name, removed.is_removed, removed.is_registered) == (X, True, True)
        # To start the container again, the kubelet needs a connected endpoint and PreStartContainer.
        assert kubelet.stream_count(X) == 1
        await kubelet.plugin(X).pre_start_container(allocation.ids)
        assert kubelet.node_status().capacity[X] == 0

        # After a restart of the kubelet too, since the pod still exists.
        await kubelet.restart()
        await kubelet.wait_registered(X, times=2)
        await kubelet.wait_for(lambda: kubelet.stream_count(X) == 1)
        await kubelet.plugin(X).pre_start_container(allocation.ids)

        await kubelet.remove_pod("user")
        assert (await next_event(entries, Event.RESOURCE_DRAINED)).facts["resource"] == X
        await kubelet.wait_for(lambda: kubelet.stream_count(X) == 0)
        assert agent.status.resources == ()


async def test_73_removed_resource_is_kept_while_pod_resources_are_unavailable(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(build_config([X]), drain_seconds=0.1) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X)
        pods = node.kubelet.pod_resources_socket
        pods.rename(pods.with_name("away"))
        node.write_config(CONFIG_HEADER + "resources: {}")
        unavailable = await next_event(entries, Event.POD_RESOURCES_UNAVAILABLE)
        assert X in unavailable.text
        assert f"{pods} does not exist. Check that --pod-resources-dir is the directory" in unavailable.text
        assert agent.status.resources[0].is_registered
        pods.with_name("away").rename(pods)
        await next_event(entries, Event.RESOURCE_DRAINED)


async def test_73_sockets_of_the_kubelet_can_be_in_directories_that_are_apart(node: FakeNode) -> None:
    kubelet = node.kubelet
    await kubelet.start()
    directories = {
        "kubelet_dir": node.directory / "missing",
        "device_plugins_dir": kubelet.plugins_dir,
        "pod_resources_dir": kubelet.pod_resources_socket.parent,
    }
    node.plug("/dev/x0")
    async with node.run_agent(build_config([X]), drain_seconds=0.1, **directories) as agent:
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.admit(X, pod="user")
        entries = record_events(agent)
        node.write_config(CONFIG_HEADER + "resources: {}")
        await next_event(entries, Event.RESOURCE_REMOVED)
        await kubelet.remove_pod("user")
        # The agent knows from the pod-resources API that the pod has ended.
        await next_event(entries, Event.RESOURCE_DRAINED)


async def test_73_restored_resource_keeps_its_endpoint(node: FakeNode) -> None:
    kubelet = node.kubelet
    node.plug("/dev/x0")
    async with node.run_agent(build_config([X]), drain_seconds=0.1) as agent:
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.admit(X, pod="user")
        before = list_plugin_sockets(kubelet)
        node.write_config(CONFIG_HEADER + "resources: {}")
        await kubelet.wait_for_list(X, lambda devices: not devices)
        node.write_config(build_config([X]))
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.remove_pod("user")

        # The restored resource is not drained; a resource that is removed later is.
        entries = record_events(agent)
        node.write_config(build_config([X, Y]))
        await kubelet.wait_registered(Y)
        node.write_config(build_config([X]))
        assert (await next_event(entries, Event.RESOURCE_DRAINED)).facts["resource"] == Y
        assert kubelet.stream_count(X) == 1
        assert before.items() <= list_plugin_sockets(kubelet).items()
        assert [registration.resource for registration in kubelet.registrations] == [X, Y]
        assert not agent.status.resources[0].is_removed


async def test_74_two_config_map_swaps_in_a_row_end_with_the_newest(node: FakeNode) -> None:
    kubelet = node.kubelet
    plug_devices(node, "x0", "y0", "z0")
    swap_config_map(node.config_dir, {"genplug.yaml": FIRST})
    async with node.run_agent() as agent:
        entries = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        for first, second in (("z", "y"), ("y", "z")):
            for letter in (first, second):
                swap_config_map(node.config_dir, {"genplug.yaml": FIRST.replace("/dev/x", f"/dev/{letter}")})
            await kubelet.wait_for_list(X, healthy={f"{second}0"}, unhealthy=())
        # The newest configuration stays active: this device is found with it.
        node.plug("/dev/z1")
        await kubelet.wait_for_list(X, healthy={"z0", "z1"}, unhealthy=())
        assert kubelet.stream_count(X) == len(kubelet.attempts) == 1
    events = drain_events(entries)
    assert Event.CONFIG_LOADED in events
    assert Event.CONFIG_INVALID not in events


async def test_75_reload_storm_ends_with_the_last_configuration_in_few_reloads(node: FakeNode) -> None:
    kubelet = node.kubelet
    plug_devices(node, *(f"x{number}" for number in range(100)))

    def write_configs() -> None:
        for number in range(1, 100):
            node.write_config(build_x_config(glob=f"/dev/x{number}"), how="rename")
            # The pause between two changes.
            time.sleep(0.005)

    async with node.run_agent(build_x_config(glob="/dev/x0")) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED)
        started = time.monotonic()
        await asyncio.to_thread(write_configs)
        writing = time.monotonic() - started
        await kubelet.wait_for_list(X, healthy={"x99"}, unhealthy=())
        # How many writes follow each other closely depends on the machine; the pauses of the agent do not.
        assert 0 < drain_events(entries).count(Event.CONFIG_LOADED) <= 3 + writing / DEBOUNCE_SECONDS
        assert_limited_rate(kubelet, X)
        assert len(kubelet.attempts) == kubelet.stream_count(X) == 1
