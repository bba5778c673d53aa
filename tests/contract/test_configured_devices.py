"""From the configuration to the kubelet and the container: names, IDs, groups, selectors and texts."""

import asyncio
import os

import grpc
import pytest

from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.metrics import read_metrics
from tests.support.processes import wait_until_at_most
from tests.support.resources import X_CONFIG, X, Y, build_config, build_x_config, list_host_paths, plug_devices


async def allocate_paths(kubelet: KubeletStandIn, resource: str, device_id: str) -> list[str]:
    """Return the host paths of the device nodes that a container gets for an ID."""
    (response,) = (await kubelet.plugin(resource).allocate([[device_id]])).container_responses
    return list_host_paths(response)


async def wait_for_first_list(kubelet: KubeletStandIn, resource: str) -> None:
    """Wait until a resource has a list, which may be empty."""
    await kubelet.wait_for(lambda: bool(kubelet.messages(resource)))


def collect_listed_ids(kubelet: KubeletStandIn, resource: str) -> set[str]:
    """Return the IDs of all lists of a resource."""
    return {device_id for message in kubelet.messages(resource) for device_id in message.devices}


async def test_device_changes_are_listed_after_every_kubelet_restart(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(X_CONFIG) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED)
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        tasks = len(asyncio.all_tasks())
        for start in range(1, 5):
            await node.kubelet.restart()
            await next_event(entries, Event.REGISTERED)
            await node.kubelet.wait_for_list(X, healthy={f"x{number}" for number in range(start)})
            node.plug(f"/dev/x{start}")
            await node.kubelet.wait_for_list(X, healthy={f"x{number}" for number in range(start + 1)})
            assert agent.status.resources[0].streams == node.kubelet.stream_count(X) == 1
        # Each start of the kubelet has two lists: the first and that of the change.
        assert [len(message.devices) for message in node.kubelet.messages(X)] == [1, 1, 2, 2, 3, 3, 4, 4, 5]
        await wait_until_at_most(lambda: len(asyncio.all_tasks()), tasks)


@pytest.mark.parametrize("glob", ["'/dev/[x'", "dev/x*", "''", "'/dev/{x0,x1'", "/dev/x**", "/dev/../dev/x0", "/"])
async def test_invalid_glob_is_rejected_with_its_location(node: FakeNode, glob: str) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(f"{CONFIG_HEADER}resources:\n  {X}:\n    devices:\n    - glob: {glob}\n") as agent:
        invalid = await next_event(record_events(agent), Event.CONFIG_INVALID)
        assert f"{node.config_dir}/genplug.yaml:6:" in invalid.text
        assert "glob" in invalid.text
        assert not agent.status.is_ready
        assert not node.kubelet.attempts


async def test_glob_without_match_is_noted_with_its_location(node: FakeNode) -> None:
    async with node.run_agent(X_CONFIG) as agent:
        await next_event(record_events(agent), Event.REGISTERED)
        [note] = agent.status.resources[0].notes
    assert note.startswith("nothing matches /dev/x* (")
    assert f"{node.config_dir}/genplug.yaml:3:" in note


@pytest.mark.parametrize("kind", ["Device", "DEVICE", "usb", "''", "null"])
async def test_unknown_device_type_is_rejected(node: FakeNode, kind: str) -> None:
    node.plug("/dev/x0")
    config = build_x_config(source=f"type: {kind}")
    async with node.run_agent(config) as agent:
        invalid = await next_event(record_events(agent), Event.CONFIG_INVALID)
        # The position of a quoted string is behind its quote.
        column = config.splitlines()[2].index(kind + "}]") + 1 + kind.startswith("'")
        assert f"genplug.yaml:3:{column}: error" in invalid.text
        assert not node.kubelet.attempts


async def test_every_listed_id_allocates_a_device_node(node: FakeNode) -> None:
    plug_devices(node, "x0", "y0")
    node.write("/dev/xfile", "")
    node.write("/dev/xdir/file", "")
    node.link("/dev/xlink", "/dev/nowhere")
    config = CONFIG_HEADER + (
        "resources:\n"
        "  example.com/x: {devices: [{glob: /dev/x*}], replicas: 2}\n"
        "  example.com/y: {devices: [{glob: /dev/y*}], tokens: 2}\n"
    )
    async with node.run_agent(config) as agent:
        for resource, path in ((X, "/dev/x0"), (Y, "/dev/y0")):
            devices = await node.kubelet.wait_for_list(resource)
            assert len(devices.healthy) == len(devices) == 2
            for device_id in devices:
                assert await allocate_paths(node.kubelet, resource, device_id) == [path]
        notes = " ".join(agent.status.resources[0].notes)
    for reason in (
        "/dev/xfile: is a regular file",
        "/dev/xdir: is a directory",
        "/dev/xlink: is a symlink to /dev/now",
    ):
        assert reason in notes


async def test_duplicate_resource_name_is_rejected_with_both_locations(node: FakeNode) -> None:
    resource = "  example.com/x: {devices: [{glob: /dev/x*}]}\n"
    async with node.run_agent(f"{CONFIG_HEADER}resources:\n{resource}  a.io/y: {{devices: []}}\n{resource}") as agent:
        invalid = await next_event(record_events(agent), Event.CONFIG_INVALID)
    assert f"{node.config_dir}/genplug.yaml:6:3: error" in invalid.text
    assert "4:3" in invalid.text


async def test_resource_names_with_every_allowed_character_are_registered(node: FakeNode) -> None:
    names = ["a.io/x", "a/b", "example.com/A_b.C-d", "9.io/9", "example.com/X"]
    node.plug("/dev/x0")
    resource = "{devices: [{glob: /dev/x0}], share: {overlap: true}}"
    async with node.run_agent(f"{CONFIG_HEADER}resources: {{{', '.join(f'{name}: {resource}' for name in names)}}}"):
        for name in names:
            (device_id,) = await node.kubelet.wait_for_list(name)
            assert await allocate_paths(node.kubelet, name, device_id) == ["/dev/x0"]


async def test_resource_names_of_any_length_are_registered(node: FakeNode) -> None:
    domain = ".".join(("d" * 60, "o" * 60, "m" * 60, "a" * 61))
    names = [f"{domain}/{'n' * 62}{last}" for last in "xy"] + [f"squat.ai/{'m' * 31}"]
    assert len(domain) == 244
    assert max(map(len, names)) == 244 + 1 + 63
    parts = [name.rpartition("/")[2] for name in names]
    plug_devices(node, *parts)
    async with node.run_agent(build_config(names)):
        for name in names:
            await node.kubelet.wait_for_list(name, lambda devices: len(devices.healthy) == 1)
    endpoints = [registration.endpoint for registration in node.kubelet.registrations]
    assert len(set(endpoints)) == 3
    assert max(len(os.fsencode(f"/var/lib/kubelet/device-plugins/{endpoint}")) for endpoint in endpoints) <= 107


async def test_group_ids_are_stable_when_members_come_and_go(node: FakeNode) -> None:
    config = CONFIG_HEADER + (
        "resources:\n"
        "  example.com/x:\n"
        "    devices:\n"
        "    - glob: /dev/{a,b}*\n"
        "      groupBy: unit${index}\n"
        "      with: [{path: '/dev/extra${index}', optional: true}]\n"
    )
    for number in range(3):
        node.plug(f"/dev/a{number}")
        node.plug(f"/dev/b{number}")
    async with node.run_agent(config):
        first, second, third = await node.kubelet.wait_for_list(X)
        await node.kubelet.admit(X, pod="user", ids={second})
        node.unplug("/dev/b1")
        node.unplug("/dev/a0")
        node.unplug("/dev/b0")
        await node.kubelet.wait_for_list(X, healthy={second, third}, unhealthy={first})
        assert await allocate_paths(node.kubelet, X, second) == ["/dev/a1"]
        node.plug("/dev/extra2")
        node.plug("/dev/b1")
        node.plug("/dev/b0")
        await node.kubelet.wait_for_list(X, healthy={first, second, third})
        assert await allocate_paths(node.kubelet, X, first) == ["/dev/b0"]
        assert await allocate_paths(node.kubelet, X, second) == ["/dev/a1", "/dev/b1"]
        assert await allocate_paths(node.kubelet, X, third) == ["/dev/a2", "/dev/b2", "/dev/extra2"]
        assert collect_listed_ids(node.kubelet, X) == {first, second, third}


async def test_replugged_adapter_keeps_its_id_under_another_number(node: FakeNode) -> None:
    link = "/dev/serial/by-id/usb-FTDI_A1"
    node.plug("/dev/ttyUSB0")
    node.link(link, "../../ttyUSB0")
    async with node.run_agent(build_x_config(glob="/dev/serial/by-id/*")):
        (device_id,) = await node.kubelet.wait_for_list(X)
        await node.kubelet.admit(X, pod="user")
        node.unplug(link)
        node.unplug("/dev/ttyUSB0")
        await node.kubelet.wait_for_list(X, unhealthy={device_id})
        node.plug("/dev/ttyUSB1")
        node.link(link, "../../ttyUSB1")
        await node.kubelet.wait_for_list(X, healthy={device_id}, unhealthy=())
        assert await allocate_paths(node.kubelet, X, device_id) == ["/dev/ttyUSB1"]
        assert collect_listed_ids(node.kubelet, X) == {device_id}


@pytest.mark.parametrize("globs", ["[/dev/x*, /dev/by-id/*]", "[/dev/by-id/*, /dev/x*]"])
async def test_late_symlink_does_not_rename_its_device(node: FakeNode, globs: str) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(build_x_config(glob=globs)):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await node.kubelet.admit(X, pod="user")
        node.link("/dev/by-id/late", "../x0")
        # The scan that finds this device finds the link. With another ID, the device would be free for another pod.
        node.plug("/dev/x1")
        await node.kubelet.wait_for_list(X, lambda devices: "x1" in devices.healthy)
        assert collect_listed_ids(node.kubelet, X) == {"x0", "x1"}


async def test_identical_adapters_are_separate_devices(node: FakeNode) -> None:
    for number in range(2):
        node.plug(f"/dev/ttyUSB{number}")
        node.link(f"/dev/serial/by-path/pci-0000:00:14.0-usb-0:{number}:1.0-port0", f"../../ttyUSB{number}")
    async with node.run_agent(build_x_config(glob="/dev/serial/by-path/*")):
        first, second = await node.kubelet.wait_for_list(X)
        assert await allocate_paths(node.kubelet, X, first) == ["/dev/ttyUSB0"]
        assert await allocate_paths(node.kubelet, X, second) == ["/dev/ttyUSB1"]


async def test_incomplete_group_is_unhealthy_and_not_allocated(node: FakeNode) -> None:
    config = build_x_config(source="nodes: [{path: '${path}'}, {path: '/dev/control${index}'}]")
    plug_devices(node, "x0", "x1", "control0")
    async with node.run_agent(config) as agent:
        complete, incomplete = await node.kubelet.wait_for_list(X)
        await node.kubelet.wait_for_list(X, healthy={complete}, unhealthy={incomplete})
        [_, status] = agent.status.resources[0].devices
        assert "/dev/control1 does not exist" in status.reason
        with pytest.raises(grpc.aio.AioRpcError, match="/dev/control1 does not exist"):
            await allocate_paths(node.kubelet, X, incomplete)
        node.plug("/dev/control1")
        await node.kubelet.wait_for_list(X, healthy={complete, incomplete})
        assert await allocate_paths(node.kubelet, X, incomplete) == ["/dev/x1", "/dev/control1"]


async def test_selector_matches_numbers_exactly_as_written(node: FakeNode) -> None:
    for minor in (8, 10, 16, 2838, 10296):
        node.plug(f"/dev/x-minor-{minor}", minor=minor)
    selected = {
        "'10'": ["10"],
        "'2838'": ["2838"],
        "010": [],
        "['8', '1?']": ["8", "10", "16"],
        "{max: 10}": ["8", "10"],
    }
    resource = "{{devices: [{{glob: /dev/x*, where: {{minor: {}}}}}], share: {{overlap: true}}}}"
    resources = (f"  example.com/{number}: {resource.format(text)}\n" for number, text in enumerate(selected))
    async with node.run_agent(f"{CONFIG_HEADER}resources:\n{''.join(resources)}") as agent:
        entries = record_events(agent)
        for number, minors in enumerate(selected.values()):
            name = f"example.com/{number}"
            await wait_for_first_list(node.kubelet, name)
            paths = [await allocate_paths(node.kubelet, name, device_id) for device_id in node.kubelet.devices(name)]
            assert paths == [[f"/dev/x-minor-{minor}"] for minor in minors]

        # A number of YAML must be quoted, so that its text is not ambiguous.
        node.write_config(build_x_config(source="where: {minor: 2838}"))
        assert 'quote it: "2838"' in (await next_event(entries, Event.CONFIG_INVALID)).text


async def test_env_values_reach_the_container_as_written(node: FakeNode) -> None:
    texts = ["0403", "0x10de", "22:22", "0000:00:02.0", "on", "no", "12e03x", "1_000", "0o17", "2026-11-23"]
    node.plug("/dev/x0")
    env = ", ".join(f"V{number}: {text}" for number, text in enumerate(texts))
    async with node.run_agent(build_x_config(f"allocate: {{env: {{{env}}}}}")) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        allocation = await node.kubelet.admit(X)
        assert [allocation.response.envs[f"V{number}"] for number in range(len(texts))] == texts

        entries = record_events(agent)
        node.write_config(build_x_config("allocate: {env: {PRODUCT: 2838}}"))
        assert 'quote it: "2838"' in (await next_event(entries, Event.CONFIG_INVALID)).text


async def test_device_belongs_to_a_single_resource_and_is_counted_once(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    config = CONFIG_HEADER + (
        "resources:\n"
        "  example.com/x: {devices: [{glob: [/dev/x*, /dev/x0]}, {glob: /dev/x1}]}\n"
        "  example.com/y: {devices: [{glob: /dev/x*}]}\n"
    )
    async with node.run_agent(config, listen=("127.0.0.1", 0)) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await wait_for_first_list(node.kubelet, Y)
        assert not node.kubelet.devices(Y)
        with pytest.raises(grpc.aio.AioRpcError, match="no device 'x0'"):
            await allocate_paths(node.kubelet, Y, "x0")
        assert X in " ".join(agent.status.resources[1].notes)

        await node.kubelet.admit(X, 2)
        await next_event(entries, Event.ALLOCATED)
        metrics = await read_metrics(agent)
    assert metrics['genplug_devices{resource="example.com/x",state="healthy"}'] == 2
    assert metrics['genplug_devices{resource="example.com/y",state="healthy"}'] == 0
    assert metrics['genplug_allocations_total{resource="example.com/x",result="success"}'] == 1
    assert metrics['genplug_devices_in_use{resource="example.com/x"}'] == 2
    assert metrics['genplug_devices_free{resource="example.com/x"}'] == 0


async def test_allocation_is_in_use_at_once_although_the_use_was_read_a_moment_ago(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    async with node.run_agent(X_CONFIG, listen=("127.0.0.1", 0)) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        for count in range(2):
            assert (await read_metrics(agent))['genplug_devices_in_use{resource="example.com/x"}'] == count
            await node.kubelet.admit(X, pod=f"pod-{count}")
            await next_event(entries, Event.ALLOCATED)
        assert (await read_metrics(agent))['genplug_devices_in_use{resource="example.com/x"}'] == 2


async def test_values_of_several_devices_are_listed_in_the_order_of_the_devices(node: FakeNode) -> None:
    """Three DAX devices of 2, 1 and 2 GiB: each size is at the position of its path."""
    sizes = {"dax0.0": 2 << 30, "dax1.0": 1 << 30, "dax10.0": 2 << 30}
    for number, (name, size) in enumerate(sizes.items()):
        node.plug(f"/dev/{name}", major=252, minor=number)
        node.write(f"/sys/devices/{name}/size", f"{size}\n")
        node.link(f"/sys/dev/char/252:{number}", f"/sys/devices/{name}")
    config = build_x_config(
        "allocate: {env: {D: '${path}', S: '${attr.size}', U: '${attr.size|gib|unique}', N: '${attr.size|count}'}}",
        glob="/dev/dax*",
    )
    async with node.run_agent(config):
        listed = await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == len(sizes))
        (response,) = (await node.kubelet.plugin(X).allocate([sorted(listed, reverse=True)])).container_responses
    assert response.envs == {
        "D": "/dev/dax0.0,/dev/dax1.0,/dev/dax10.0",
        "S": "2147483648,1073741824,2147483648",
        "U": "2,1",
        "N": "3",
    }


async def test_functions_behind_one_pcie_switch_are_given_together(node: FakeNode) -> None:
    bridge = "/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0"
    paths = {
        "0000:3d:00.0": f"{bridge}/0000:3c:04.0/0000:3d:00.0",
        "0000:af:00.0": "/sys/devices/pci0000:ae/0000:ae:00.0/0000:ad:00.0/0000:ae:01.0/0000:af:00.0",
        "0000:3e:00.0": f"{bridge}/0000:3c:08.0/0000:3e:00.0",
    }
    for address, path in paths.items():
        node.write(f"{path}/vendor", "0x1d0f\n")
        node.link(f"/sys/bus/pci/devices/{address}", path)
    config = CONFIG_HEADER + (
        "resources:\n"
        "  example.com/x:\n"
        "    devices:\n"
        "    - glob: /sys/bus/pci/devices/*\n"
        "      attributes:\n"
        "        switch: {value: '${sysfs}', find: '/([^/]+)/[^/]+/[^/]+$'}\n"
        "        label: {path: ['${sysfs}/label', '${sysfs}/vendor']}\n"
        "      where: {label: {notIn: [onboard], missing: ok}}\n"
        "      groupBy: ${switch}\n"
        "      id: ${pci.slot|first|or:name}\n"
        "    allocate: {env: {F: '${pci.address}', L: '${label}', S: '${switch|unique}', P: '${name|count|pad:3}'}}\n"
    )
    async with node.run_agent(config):
        listed = await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 2)
        island, single = sorted(listed)
        (response,) = (await node.kubelet.plugin(X).allocate([[single, island]])).container_responses
    assert response.envs == {
        "F": "0000:3d:00.0,0000:3e:00.0,0000:af:00.0",
        "L": "0x1d0f,0x1d0f,0x1d0f",
        "S": "0000:3b:00.0,0000:ad:00.0",
        "P": "003",
    }
