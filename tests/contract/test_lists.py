"""Lists of devices: their content and rate, and when none is sent (points 31, 33, 36 to 43, 46 and 79)."""

import ast
import asyncio
import itertools
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

import genplug
from genplug.kubelet import servicer
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.list_timer import LIST_BUDGET
from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.lists import assert_limited_rate
from tests.support.mounts import bind_mount, remount
from tests.support.resources import X_CONFIG, X, Y, build_x_config, list_host_paths, plug_devices


def decode_lists(kubelet: KubeletStandIn, resource: str = X) -> list[list[tuple[str, str]]]:
    """Return IDs and health of each list of a resource as they were sent, duplicates included."""
    lists = (pb.ListAndWatchResponse.FromString(message.raw) for message in kubelet.messages(resource))
    return [[(device.ID, device.health) for device in response.devices] for response in lists]


async def test_31_allocate_answers_with_twenty_idle_connections_open(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(X_CONFIG):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        async with node.kubelet.open_idle_connections(X, 20):
            allocation = await node.kubelet.admit(X)
    assert allocation.ids == ("x0",)


@pytest.mark.root
async def test_33_read_only_directory_is_reported_and_retried(node: FakeNode, kubelet: KubeletStandIn) -> None:
    node.plug("/dev/x0")
    mounted = node.directory / "m"
    with bind_mount(node.kubelet_dir, mounted, "ro"):
        async with node.run_agent(X_CONFIG, kubelet_dir=mounted, poll_seconds=0.1) as agent:
            entries = record_events(agent)
            unusable = await next_event(entries, Event.PLUGIN_DIR_UNUSABLE)
            assert str(mounted / "device-plugins") in unusable.text
            assert "Read-only file system. Mount the directory read-write" in unusable.text
            await next_event(entries, Event.CONFIG_LOADED)
            assert not agent.status.is_ready
            assert agent.status.unready[0] == f"kubelet: {unusable.text}"
            assert not kubelet.attempts

            remount(mounted, "rw")
            await next_event(entries, Event.REGISTERED)
            assert agent.status.is_ready
            await kubelet.wait_for_list(X, healthy={"x0"})


async def test_33_missing_directory_is_reported_and_awaited(node: FakeNode) -> None:
    node.plug("/dev/x0")
    late = KubeletStandIn(node.directory / "l")
    async with node.run_agent(X_CONFIG, kubelet_dir=node.directory / "l", poll_seconds=0.1) as agent:
        entries = record_events(agent)
        unusable = await next_event(entries, Event.PLUGIN_DIR_UNUSABLE)
        assert str(node.directory / "l" / "device-plugins") in unusable.text
        assert not agent.status.is_ready
        async with late:
            await late.wait_for_list(X, healthy={"x0"})


async def test_36_wall_clock_jumps_have_no_effect(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    now, jumps = time.time, itertools.cycle([0, 86400, 0, -86400])
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    plug_devices(node, "x0", "x1", "y0")
    config = (
        CONFIG_HEADER
        + "resources:\n"
        + "".join(
            f"  {name}: {{devices: [{{glob: '/dev/{letter}*'}}], health: {{removalGracePeriodSeconds: {seconds}}}}}\n"
            for name, letter, seconds in ((X, "x", 1), (Y, "y", 3600))
        )
    )
    async with node.run_agent(config, rescan_seconds=0.2, poll_seconds=0.2) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await node.kubelet.wait_for_list(Y, healthy={"y0"})
        node.unplug("/dev/x1")
        node.unplug("/dev/y0")
        await node.kubelet.wait_for_list(Y, unhealthy={"y0"})
        # A period of a second ends in spite of the jumps, and a period of an hour does not.
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={})
        assert node.kubelet.devices(Y).unhealthy == {"y0"}

        await node.kubelet.restart()
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await next_event(entries, Event.CONFIG_UNCHANGED, times=3)
        assert [registration.resource for registration in node.kubelet.registrations].count(X) == 2


def test_36_code_reads_the_wall_clock_only_for_display() -> None:
    package = Path(genplug.__file__).parent
    wall_clock = re.compile(r"time\.(time|time_ns|localtime|gmtime)|datetime\.(now|utcnow|today)")
    # The packages that an agent runs; the others print times or are for tests.
    layers = ("agent", "allocation", "config", "hardware", "health", "kubelet", "spec")
    paths = [path for layer in layers for path in (package / layer).rglob("*.py")]
    # The audit log records when an event occurred.
    paths = [path for path in paths if not path.name.startswith("audit_")]
    arguments = [
        f"{path.relative_to(package)}: {ast.unparse(call.func)}({ast.unparse(argument)})"
        for path in paths
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        for argument in (*call.args, *(keyword.value for keyword in call.keywords))
        if isinstance(argument, ast.Call) and wall_clock.fullmatch(ast.unparse(argument.func))
    ]
    reads = sum(len(wall_clock.findall(path.read_text())) for path in paths)
    assert sorted(arguments) == [
        "agent/config_reloader.py: ConfigStatus(time.time())",
        "agent/driver_service.py: self._set_registration(time.time())",
    ]
    assert reads == len(arguments), "a read of the wall clock is not the argument of a call in the list above"


async def test_37_empty_list_is_sent_immediately(node: FakeNode) -> None:
    async with node.run_agent(X_CONFIG):
        # Nothing changes: the next scan is a minute away.
        await node.kubelet.wait_for(lambda: bool(node.kubelet.messages(X)))
        assert node.kubelet.messages(X)[0].raw == b""
        assert node.kubelet.node_status().capacity == {X: 0}

        async with node.kubelet.connect(X) as second:
            message = await anext(second.watch())
        assert message.raw == b""


async def test_79_resource_without_devices_is_registered_and_agent_is_ready(node: FakeNode) -> None:
    async with node.run_agent(X_CONFIG) as agent:
        await next_event(record_events(agent), Event.REGISTERED)
        await node.kubelet.wait_for(lambda: bool(node.kubelet.messages(X)))
        assert agent.status.is_ready
        assert node.kubelet.node_status().capacity == node.kubelet.node_status().allocatable == {X: 0}
        assert node.kubelet.stream_count(X) == 1


async def test_38_each_change_sends_a_single_full_list(node: FakeNode) -> None:
    plug_devices(node, "x0", "ctl")
    config = build_x_config(source="with: [/dev/ctl]")
    changes: list[tuple[Callable[[], None], set[str], set[str]]] = [
        (partial(node.plug, "/dev/x1"), {"x0", "x1"}, set()),
        (partial(node.unplug, "/dev/x1"), {"x0"}, {"x1"}),
        (partial(node.unplug, "/dev/ctl"), set(), {"x0", "x1"}),
    ]
    async with node.run_agent(config, rescan_seconds=0.05, poll_seconds=0.05) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        # Each rescan reads the configuration, the devices and the kubelet's directory.
        await next_event(entries, Event.CONFIG_UNCHANGED, times=20)
        assert len(node.kubelet.messages(X)) == 1

        for change, healthy, unhealthy in changes:
            change()
            await node.kubelet.wait_for_list(X, healthy=healthy, unhealthy=unhealthy)
        await next_event(entries, Event.CONFIG_UNCHANGED, times=20)

    assert [[device_id for device_id, _ in devices] for devices in decode_lists(node.kubelet)] == [
        ["x0"],
        ["x0", "x1"],
        ["x0", "x1"],
        ["x0", "x1"],
    ]


async def test_first_changes_are_sent_at_once_and_later_changes_are_combined(node: FakeNode) -> None:
    names = [f"x{number}" for number in range(30)]
    node.plug("/dev/x0")
    async with node.run_agent(X_CONFIG):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        for name in names[1:]:
            node.plug(f"/dev/{name}")
            # The burst lasts longer than a second.
            await asyncio.sleep(0.04)
        await node.kubelet.wait_for_list(X, healthy=names)

    assert_limited_rate(node.kubelet, X)
    assert len(node.kubelet.messages(X)) < len(names)


async def test_rate_of_lists_is_limited_after_any_kind_of_change(node: FakeNode) -> None:
    plug_devices(node, "x0", "y0", "z0")
    async with node.run_agent(X_CONFIG) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.CONFIG_UNCHANGED)
        for letters in ("y", "z", "xy", "xyz", "x", "y", "xz", "yz", "xyz"):
            node.write_config(build_x_config(glob=f"'/dev/[{letters}]*'"))
            await next_event(entries, Event.CONFIG_LOADED)
        node.plug("/dev/x1")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "y0", "z0"}, unhealthy=())
    assert_limited_rate(node.kubelet, X)
    assert decode_lists(node.kubelet)[1] == [("y0", "Healthy")]


async def test_first_changes_do_not_wait_for_the_budget(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tokens return after an hour: a list that waited for a token would never arrive.
    monkeypatch.setattr(servicer, "LIST_BUDGET", replace(LIST_BUDGET, refill_seconds=3600))
    plug_devices(node, "x0", "x1")
    async with node.run_agent(X_CONFIG):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        for number in range(5):
            if number % 2:
                node.plug("/dev/x1")
                await node.kubelet.wait_for_list(X, healthy={"x0", "x1"}, unhealthy=())
            else:
                node.unplug("/dev/x1")
                await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})


async def test_39_thousand_events_in_a_second_are_combined_into_few_messages(node: FakeNode) -> None:
    paths = [f"/dev/x{number}" for number in range(50)]

    def plug_and_unplug() -> None:
        for _ in range(10):
            for path in paths:
                node.plug(path)
            for path in paths:
                node.unplug(path)
        node.plug("/dev/x0")

    async with node.run_agent(X_CONFIG):
        await node.kubelet.wait_registered(X)
        await asyncio.to_thread(plug_and_unplug)
        await node.kubelet.wait_for_list(X, lambda devices: devices.healthy == {"x0"})
        assert_limited_rate(node.kubelet, X)
        assert len(node.kubelet.messages(X)) <= 10


async def test_40_ten_thousand_devices_are_sent_in_a_single_small_list(node: FakeNode) -> None:
    plug_devices(node, *(f"x{number}" for number in range(10)))
    async with node.run_agent(build_x_config("replicas: 1000")):
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 10_000)
        (message,) = node.kubelet.messages(X)
        assert len(message.raw) < 4 << 20


async def test_slow_reader_gets_the_newest_list_without_missed_lists(node: FakeNode, kubelet: KubeletStandIn) -> None:
    plug_devices(node, *(f"x{number}" for number in range(20)))
    gate = kubelet.faults.stop_reading(X)
    # The buffers of gRPC and of the socket hold some lists of hundreds of kilobytes, and not all twenty.
    async with node.run_agent(build_x_config("replicas: 980")) as agent:
        entries = record_events(agent)
        await gate.wait_reached()
        for replicas in range(981, 1000):
            node.write_config(build_x_config(f"replicas: {replicas}"), how="rename")
            await next_event(entries, Event.CONFIG_LOADED, times=1 if replicas > 981 else 2)
        gate.open()
        await kubelet.wait_for_list(X, lambda devices: len(devices) == 20 * 999)
    read = [len(message.devices) // 20 for message in kubelet.messages(X)]
    assert read[-1] == 999
    assert len(read) < 20


@pytest.mark.parametrize("globs", ["[/dev/x*, /dev/x0, /dev/by-id/*]", "[/dev/by-id/*, /dev/x0, /dev/x*]"])
async def test_41_device_node_matched_by_four_globs_is_a_single_device(node: FakeNode, globs: str) -> None:
    node.plug("/dev/x0")
    node.link("/dev/by-id/first", "../x0")
    config = CONFIG_HEADER + f"resources: {{example.com/x: {{devices: [{{glob: {globs}}}, {{glob: '/dev/x[0-9]'}}]}}}}"
    async with node.run_agent(config) as agent:
        await node.kubelet.wait_for_list(X)
        [[(device_id, health)]] = decode_lists(node.kubelet)
        assert health == "Healthy"
        assert agent.snapshot is not None
        assert not agent.snapshot.inventory.conflicts
        allocation = await node.kubelet.admit(X, ids={device_id})
        assert list_host_paths(allocation.response) == ["/dev/x0"]


async def test_42_device_node_matched_by_two_resources_belongs_to_the_first(node: FakeNode) -> None:
    node.plug("/dev/x0")
    node.link("/dev/by-id/first", "/dev/x0")
    config = CONFIG_HEADER + (
        "resources:\n"
        "  example.com/x:\n"
        "    devices: [{glob: '/dev/x*'}]\n"
        "  example.com/y:\n"
        "    devices: [{glob: /dev/by-id/*}]\n"
    )
    async with node.run_agent(config) as agent:
        conflict = await next_event(record_events(agent), Event.DEVICE_NODE_CONFLICT)
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await node.kubelet.wait_for(lambda: bool(node.kubelet.messages(Y)))
        assert decode_lists(node.kubelet, Y) == [[]]
    for part in (X, Y, "genplug.yaml:5:", "genplug.yaml:7:", "share: {overlap: true}"):
        assert part in conflict.text


async def test_42_overlapping_resources_list_different_ids(node: FakeNode) -> None:
    node.plug("/dev/x0")
    resource = "{devices: [{glob: '/dev/x*'}], share: {overlap: true}}"
    async with node.run_agent(f"{CONFIG_HEADER}resources: {{{X}: {resource}, {Y}: {resource}}}"):
        first, second = await node.kubelet.wait_for_list(X), await node.kubelet.wait_for_list(Y)
        assert len(first.healthy) == len(second.healthy) == 1
        assert first.ids.isdisjoint(second.ids)
        for name in (X, Y):
            allocation = await node.kubelet.admit(name, pod=name)
            assert list_host_paths(allocation.response) == ["/dev/x0"]


async def test_42_config_change_with_a_device_node_conflict_keeps_the_other_devices(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    async with node.run_agent(X_CONFIG) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        node.write_config(
            CONFIG_HEADER
            + "resources: {example.com/y: {devices: [{glob: /dev/x0}]}, example.com/x: {devices: [{glob: /dev/x*}]}}"
        )
        await next_event(entries, Event.CONFIG_LOADED)
        conflict = await next_event(entries, Event.DEVICE_NODE_CONFLICT)
        assert X in conflict.text
        assert Y in conflict.text
        await node.kubelet.wait_for_list(Y, healthy={"x0"})
        await node.kubelet.wait_for_list(X, healthy={"x1"}, unhealthy=())


async def test_43_vanished_allocated_device_is_kept_unhealthy_and_keeps_its_id(
    node: FakeNode,
) -> None:
    plug_devices(node, "x0", "x1")
    async with node.run_agent(build_x_config("health: {removalGracePeriodSeconds: 1.5}")) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await node.kubelet.admit(X, pod="user", ids={"x1"})
        unplugged = time.monotonic()
        node.unplug("/dev/x1")
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        [gone] = [device for device in agent.status.resources[0].devices if not device.healthy]
        assert gone.id == "x1"
        assert "/dev/x1" in gone.reason
        assert "gone" in gone.reason
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy=())
        assert node.kubelet.messages(X)[-1].time - unplugged > 1.5

        node.plug("/dev/x1")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"}, unhealthy=())


async def test_43_zero_grace_period_removes_a_device_immediately(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    async with node.run_agent(build_x_config("health: {removalGracePeriodSeconds: 0}")):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        node.unplug("/dev/x1")
        await node.kubelet.wait_for_list(X, lambda devices: devices.healthy == {"x0"})
    assert decode_lists(node.kubelet)[-1] == [("x0", "Healthy")]


UNUSUAL_NAMES = (
    "xUSB0",
    "x:1",
    "x_1",
    "x.1",
    "x-r0",
    "x-t1",
    "x-abcdef",
    "x y",
    "xé",
    "x" * 80,
    "x" * 79 + "y",
    "xbus/usb/001/002",
    "xbus-usb-001-002",
)


async def test_46_health_and_ids_are_valid_and_survive_restart_and_reload(node: FakeNode) -> None:
    plug_devices(node, "x0", *UNUSUAL_NAMES, "y0", "gone")
    config = CONFIG_HEADER + (
        "resources:\n"
        "  example.com/x:\n"
        "    devices: [{glob: ['/dev/x*', /dev/x*/*/*/*]}]\n"
        "  example.com/y:\n"
        "    devices: [{glob: /dev/y0}]\n"
        "    replicas: 2\n"
        "  example.com/pool:\n"
        "    devices: [{glob: /dev/gone}]\n"
        "    tokens: 2\n"
    )
    names = (X, Y, "example.com/pool")

    async def wait_for_lists() -> dict[str, list[tuple[str, str]]]:
        for name in names:
            await node.kubelet.wait_for_list(name)
        return {name: decode_lists(node.kubelet, name)[-1] for name in names}

    async with node.run_agent(config) as agent:
        first = await wait_for_lists()
        entries = record_events(agent)
        node.write_config(config.replace("replicas: 2", "replicas: 2\n    allocate: {env: {A: b}}"))
        await next_event(entries, Event.CONFIG_LOADED)
        node.unplug("/dev/gone")
        await node.kubelet.wait_for_list("example.com/pool", healthy=())
        assert {health for _, health in decode_lists(node.kubelet, "example.com/pool")[-1]} == {"Unhealthy"}
        node.plug("/dev/gone")
        await node.kubelet.wait_for_list("example.com/pool", unhealthy=())
        assert await wait_for_lists() == first
    await node.kubelet.restart()
    async with node.run_agent():
        assert await wait_for_lists() == first

    ids = [device_id for name in names for device_id, _ in first[name]]
    label = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
    assert len(set(ids)) == len(ids) == 1 + len(UNUSUAL_NAMES) + 2 + 2
    assert [device_id for device_id in ids if not label.fullmatch(device_id)] == []
    assert {health for name in names for _, health in first[name]} == {"Healthy"}
    assert ("x0", "Healthy") in first[X]
