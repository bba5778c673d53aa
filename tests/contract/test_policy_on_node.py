"""What the agent does about a policy, on a node and before a kubelet: from the start, with changes, with mistakes."""

from pathlib import Path
from typing import Literal

import pytest

from genplug.observe.events import Event
from genplug.testing.kubelet.records import AdmissionError
from genplug.testing.kubelet.stand_in import KubeletStandIn
from genplug.testing.node.config_files import WRITE_METHODS, swap_config_map, write_in_place
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode

X, Y = "example.com/x", "example.com/y"
CONFIG = (
    "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
    "  example.com/x: {devices: [{glob: /dev/x*}]}\n"
    "  example.com/y: {devices: [{glob: /dev/y*}]}\n"
)
MOUNTING = CONFIG.replace("/dev/x*}]", "/dev/x*}], allocate: {mounts: [{hostPath: '/opt/${name}', containerPath: /m}]}")
HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\n"
NO_X1 = HEAD + "devices: {deny: [/dev/x1]}\n"


@pytest.fixture
def policy(node: FakeNode) -> Path:
    """The policy's file, alone in its directory as a ConfigMap of its own is."""
    for path in ("/dev/x0", "/dev/x1", "/dev/y0"):
        node.plug(path)
    directory = node.directory / "p"
    directory.mkdir()
    return directory / "policy.yaml"


def registered(kubelet: KubeletStandIn) -> list[str]:
    return sorted({one.resource for one in kubelet.attempts})


async def test_default_policy_denies_disks_and_memory(node: FakeNode) -> None:
    node.plug("/dev/x0")
    node.plug("/dev/x1", major=1, minor=1)
    node.plug("/dev/x2", major=8, minor=0, kind="block")
    async with node.run_agent(CONFIG) as agent:
        assert (await node.kubelet.wait_for_list(X, healthy={"x0"})).ids == {"x0"}
        # Whoever looks is told why it is only one.
        (notes,) = (one.notes for one in agent.status.resources if one.name == X)
        assert any(note.startswith("/dev/x1: refused by the built-in list") for note in notes)
        assert any(note.startswith("/dev/x2: refused by 'devices.block' of the default policy") for note in notes)


async def test_policy_denies_devices_plugged_later(node: FakeNode, policy: Path) -> None:
    write_in_place(policy, NO_X1.replace("x1", "x2"))
    async with node.run_agent(CONFIG, policy=policy):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        node.plug("/dev/x2")
        node.plug("/dev/x3", major=5, minor=1)
        node.plug("/dev/x4")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x4"})
        assert all({"x2", "x3"}.isdisjoint(message.devices) for message in node.kubelet.messages(X))


@pytest.mark.parametrize("how", sorted(WRITE_METHODS))
async def test_changed_policy_is_applied_for_every_way_of_writing(
    node: FakeNode, policy: Path, how: Literal["in_place", "rename", "editor", "configmap"]
) -> None:
    WRITE_METHODS[how](policy, HEAD)
    async with node.run_agent(CONFIG, policy=policy):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        WRITE_METHODS[how](policy, NO_X1)
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        with pytest.raises(AdmissionError):
            await node.kubelet.admit(X, ids={"x1"})
        WRITE_METHODS[how](policy, HEAD)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        # Nothing was registered anew for it.
        assert len(node.kubelet.attempts) == 2


def unlink(path: Path) -> None:
    path.unlink()


BROKEN = {
    "it is missing": (None, "no such file or directory"),
    "it is no YAML": (HEAD + "devices: [\n", "policy.yaml:3:10: error[GP002]"),
    "it has a mistake": (HEAD + "devices: {block: maybe}\n", "policy.yaml:3:18: error[GP008]"),
    "it is a configuration": (CONFIG, "policy.yaml:2:7: error[GP005]"),
    "it is empty": ("", "policy.yaml:1:1: error[GP008]"),
}


@pytest.mark.parametrize(("text", "words"), BROKEN.values(), ids=BROKEN)
async def test_invalid_policy_at_start_offers_nothing_until_fixed(
    node: FakeNode, policy: Path, text: str | None, words: str
) -> None:
    if text is not None:
        write_in_place(policy, text)
    async with node.run_agent(CONFIG, policy=policy) as agent:
        entries = record_events(agent)
        said = await next_event(entries, Event.CONFIG_INVALID)
        assert words in said.text
        assert "nothing is offered until it is fixed" in said.text
        assert not agent.status.is_ready
        assert any(words in reason for reason in agent.status.unready)
        assert agent.snapshot is None
        assert not node.kubelet.attempts
        write_in_place(policy, NO_X1)
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert not agent.status.config.error


@pytest.mark.parametrize(("text", "words"), BROKEN.values(), ids=BROKEN)
async def test_policy_that_becomes_invalid_keeps_the_previous_policy_active(
    node: FakeNode, policy: Path, text: str | None, words: str
) -> None:
    write_in_place(policy, NO_X1)
    async with node.run_agent(CONFIG, policy=policy) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        unlink(policy)
        if text is not None:
            write_in_place(policy, text)
        said = await next_event(entries, Event.CONFIG_INVALID, words)
        assert "the last good configuration is kept" in said.text
        assert words in agent.status.config.error
        node.plug("/dev/x2")
        assert (await node.kubelet.wait_for_list(X, healthy={"x0", "x2"})).ids == {"x0", "x2"}
        assert len(node.kubelet.attempts) == 2
        write_in_place(policy, NO_X1)
        await next_event(entries, Event.CONFIG_UNCHANGED)
        assert not agent.status.config.error


async def test_configuration_denied_by_the_policy_is_rejected(node: FakeNode, policy: Path) -> None:
    write_in_place(policy, HEAD + "resources: [example.com/y]\n")
    async with node.run_agent(CONFIG, policy=policy) as agent:
        said = await next_event(record_events(agent), Event.CONFIG_INVALID)
        assert f"genplug.yaml:4:3: error[GP019]: the resource '{X}' is refused by 'resources' of {policy}" in said.text
        assert not node.kubelet.attempts
        node.write_config(CONFIG.replace("  example.com/x: {devices: [{glob: /dev/x*}]}\n", ""))
        await node.kubelet.wait_for_list(Y, healthy={"y0"})
        assert registered(node.kubelet) == [Y]


async def test_stricter_policy_applies_to_the_active_configuration_at_once(node: FakeNode, policy: Path) -> None:
    write_in_place(policy, HEAD)
    async with node.run_agent(CONFIG, policy=policy, drain=0.1) as agent:
        entries = record_events(agent)
        for resource in (X, Y):
            await node.kubelet.wait_for_list(resource)
        write_in_place(policy, NO_X1.replace("x1", "y0") + "resources: [example.com/y]\n")
        await next_event(entries, Event.CONFIG_INVALID, "error[GP019]")
        assert (await next_event(entries, Event.RESOURCE_DRAINED)).facts["resource"] == X
        await node.kubelet.wait_for_list(Y, healthy=())
        assert "error[GP019]" in agent.status.config.error

        # What the configuration says, it says still: a wider policy is all that it takes.
        write_in_place(policy, HEAD)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await node.kubelet.wait_for_list(Y, healthy={"y0"})
        assert not agent.status.config.error


async def test_stricter_policy_applies_while_the_configuration_is_invalid(node: FakeNode, policy: Path) -> None:
    swap_config_map(policy.parent, {policy.name: HEAD})
    async with node.run_agent(CONFIG, policy=policy) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        node.write_config("resources: [")
        await next_event(entries, Event.CONFIG_INVALID)
        swap_config_map(policy.parent, {policy.name: NO_X1})
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert "error[GP002]" in agent.status.config.error


async def test_changed_policy_applies_despite_a_device_node_conflict(node: FakeNode, policy: Path) -> None:
    write_in_place(policy, HEAD + "devices: {deny: [/dev/y0]}\n")
    async with node.run_agent(CONFIG.replace("/dev/x*", "'/dev/{x,y}*'"), policy=policy) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        write_in_place(policy, NO_X1)
        await next_event(entries, Event.DEVICE_NODE_CONFLICT, "the first keeps it")
        await node.kubelet.wait_for_list(X, healthy={"x0", "y0"})


async def test_mounts_are_limited_to_the_directories_of_the_policy(node: FakeNode, policy: Path) -> None:
    for name in ("x0", "x1"):
        node.write(f"/opt/{name}/file", "")
    node.locate("/opt/x1/file").unlink()
    node.locate("/opt/x1").rmdir()
    node.link("/opt/x1", "/etc")
    node.write("/etc/shadow", "")
    write_in_place(policy, HEAD + "mounts: {allow: [/opt]}\n")
    async with node.run_agent(MOUNTING, policy=policy) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        allocation = await node.kubelet.admit(X, ids={"x0"})
        [mount] = allocation.response.mounts
        assert (mount.host_path, mount.container_path, mount.read_only) == ("/opt/x0", "/m", True)
        with pytest.raises(AdmissionError) as rejected:
            await node.kubelet.admit(X, ids={"x1"}, pod="escape")
        rule = f"is refused by 'mounts.allow' of {policy}, which allows /opt"
        assert f"the mount of /opt/x1, which leads to /etc, {rule}" in rejected.value.cause

        # The configuration is refused now; what it requests is refused to the next pod.
        write_in_place(policy, HEAD)
        await next_event(entries, Event.CONFIG_INVALID, "error[GP019]")
        await node.kubelet.remove_pod("pod")
        with pytest.raises(AdmissionError) as rejected:
            await node.kubelet.admit(X, ids={"x0"}, pod="late")
        assert "which allows nothing" in rejected.value.cause


async def test_policy_in_the_configuration_directory_is_rejected_with_a_hint(node: FakeNode, policy: Path) -> None:
    write_in_place(policy, HEAD)
    write_in_place(node.config_dir / "policy.yaml", HEAD)
    async with node.run_agent(CONFIG, policy=policy) as agent:
        said = await next_event(record_events(agent), Event.CONFIG_INVALID)
        assert f"{node.config_dir}/policy.yaml:2:7: error[GP005]" in said.text
        assert "pass its file with --policy" in said.text
        assert not node.kubelet.attempts
