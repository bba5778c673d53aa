"""Policies on a running node: at the start, when they change and when they are invalid."""

from pathlib import Path
from typing import Literal

import grpc
import pytest

from genplug.observe.events import Event
from genplug.testing.kubelet import AdmissionError, KubeletStandIn
from genplug.testing.node.config_files import WRITE_METHODS, swap_config_map, write_in_place
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import POLICY_HEADER
from tests.support.resources import XY_CONFIG, X, Y, build_config, build_x_config, plug_devices

MOUNT_CONFIG = XY_CONFIG.replace(
    "'/dev/x*'}]", "'/dev/x*'}], allocate: {mounts: [{hostPath: '/opt/${name}', containerPath: /m}]}"
)
NO_X1 = POLICY_HEADER + "devices: {deny: [/dev/x1]}\n"


@pytest.fixture
def policy(node: FakeNode) -> Path:
    """Give the path of the policy, in a directory without other files, like a ConfigMap volume; plug three devices."""
    plug_devices(node, "x0", "x1", "y0")
    directory = node.directory / "p"
    directory.mkdir()
    return directory / "policy.yaml"


def list_registered(kubelet: KubeletStandIn) -> list[str]:
    """Return the names of the resources with an attempt to register, each once."""
    return sorted({attempt.resource for attempt in kubelet.attempts})


async def test_default_policy_denies_disks_and_memory(node: FakeNode) -> None:
    node.plug("/dev/x0")
    node.plug("/dev/x1", major=1, minor=1)
    node.plug("/dev/x2", major=8, minor=0, kind="block")
    async with node.run_agent(XY_CONFIG) as agent:
        assert (await node.kubelet.wait_for_list(X, healthy={"x0"})).ids == {"x0"}
        # The status shows why the other devices are missing.
        (notes,) = (resource.notes for resource in agent.status.resources if resource.name == X)
        assert any(note.startswith("/dev/x1: refused by the built-in list") for note in notes)
        assert any(note.startswith("/dev/x2: refused by 'devices.block' of the default policy") for note in notes)


async def test_policy_that_allows_a_dangerous_node_is_logged_and_applied(node: FakeNode, policy: Path) -> None:
    node.plug("/dev/uinput", major=10, minor=223)
    write_in_place(policy, POLICY_HEADER + "devices: {unsafe: [/dev/uinput]}\n")
    async with node.run_agent(XY_CONFIG.replace("'/dev/x*'", "/dev/uinput"), policy=policy) as agent:
        entries = record_events(agent)
        assert (
            "allows device nodes with which a container can gain control"
            in (await next_event(entries, Event.POLICY_UNSAFE, "/dev/uinput")).text
        )
        await node.kubelet.wait_for_list(X, healthy={"uinput"})


async def test_policy_denies_devices_plugged_later(node: FakeNode, policy: Path) -> None:
    write_in_place(policy, NO_X1.replace("x1", "x2"))
    async with node.run_agent(XY_CONFIG, policy=policy):
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
    WRITE_METHODS[how](policy, POLICY_HEADER)
    async with node.run_agent(XY_CONFIG, policy=policy):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        WRITE_METHODS[how](policy, NO_X1)
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        with pytest.raises(AdmissionError):
            await node.kubelet.admit(X, ids={"x1"})
        WRITE_METHODS[how](policy, POLICY_HEADER)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        # A changed policy needs no registration.
        assert len(node.kubelet.attempts) == 2


INVALID = {
    "missing": (None, "no such file or directory"),
    "not YAML": (POLICY_HEADER + "devices: [\n", "policy.yaml:3:10: error[GP002]"),
    "unknown value": (POLICY_HEADER + "devices: {block: maybe}\n", "policy.yaml:3:18: error[GP008]"),
    "another kind": (XY_CONFIG, "policy.yaml:2:7: error[GP005]"),
    "empty": ("", "policy.yaml:1:1: error[GP008]"),
}


@pytest.mark.parametrize(("text", "error"), INVALID.values(), ids=INVALID)
async def test_invalid_policy_at_start_offers_nothing_until_fixed(
    node: FakeNode, policy: Path, text: str | None, error: str
) -> None:
    if text is not None:
        write_in_place(policy, text)
    async with node.run_agent(XY_CONFIG, policy=policy) as agent:
        entries = record_events(agent)
        invalid = await next_event(entries, Event.CONFIG_INVALID)
        assert error in invalid.text
        assert "nothing is offered until it is fixed" in invalid.text
        assert not agent.status.is_ready
        assert any(error in reason for reason in agent.status.unready)
        assert agent.snapshot is None
        assert not node.kubelet.attempts
        write_in_place(policy, NO_X1)
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert not agent.status.config.error


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        (XY_CONFIG, None, "the policy cannot be read; "),
        (XY_CONFIG, POLICY_HEADER + "devces: {}\n", "the policy was rejected; "),
        ("resources: 1\n", POLICY_HEADER, "the configuration was rejected; "),
        ("resources: 1\n", None, "the configuration and the policy were rejected; "),
    ],
)
async def test_event_states_whether_the_configuration_or_the_policy_is_invalid(
    node: FakeNode, policy: Path, config: str, text: str | None, expected: str
) -> None:
    if text is not None:
        write_in_place(policy, text)
    async with node.run_agent(config, policy=policy) as agent:
        invalid = await next_event(record_events(agent), Event.CONFIG_INVALID)
        assert invalid.text.startswith(expected)


@pytest.mark.parametrize(("text", "error"), INVALID.values(), ids=INVALID)
async def test_policy_that_becomes_invalid_keeps_the_previous_policy_active(
    node: FakeNode, policy: Path, text: str | None, error: str
) -> None:
    write_in_place(policy, NO_X1)
    async with node.run_agent(XY_CONFIG, policy=policy) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        policy.unlink()  # noqa: ASYNC240 - it does not wait
        if text is not None:
            write_in_place(policy, text)
        invalid = await next_event(entries, Event.CONFIG_INVALID, error)
        assert "the last good configuration is kept" in invalid.text
        assert error in agent.status.config.error
        node.plug("/dev/x2")
        assert (await node.kubelet.wait_for_list(X, healthy={"x0", "x2"})).ids == {"x0", "x2"}
        assert len(node.kubelet.attempts) == 2
        write_in_place(policy, NO_X1)
        await next_event(entries, Event.CONFIG_UNCHANGED)
        assert not agent.status.config.error


async def test_configuration_denied_by_the_policy_is_rejected(node: FakeNode, policy: Path) -> None:
    write_in_place(policy, POLICY_HEADER + "resources: [example.com/y]\n")
    async with node.run_agent(XY_CONFIG, policy=policy) as agent:
        invalid = await next_event(record_events(agent), Event.CONFIG_INVALID)
        assert (
            f"genplug.yaml:4:5: error[GP019]: the resource '{X}' is refused by 'resources' of {policy}" in invalid.text
        )
        assert not node.kubelet.attempts
        node.write_config(build_config([Y]))
        await node.kubelet.wait_for_list(Y, healthy={"y0"})
        assert list_registered(node.kubelet) == [Y]


async def test_stricter_policy_applies_to_the_active_configuration_at_once(node: FakeNode, policy: Path) -> None:
    write_in_place(policy, POLICY_HEADER)
    async with node.run_agent(XY_CONFIG, policy=policy, drain_seconds=0.1) as agent:
        entries = record_events(agent)
        for resource in (X, Y):
            await node.kubelet.wait_for_list(resource)
        write_in_place(policy, NO_X1.replace("x1", "y0") + "resources: [example.com/y]\n")
        await next_event(entries, Event.CONFIG_INVALID, "error[GP019]")
        assert (await next_event(entries, Event.RESOURCE_DRAINED)).facts["resource"] == X
        await node.kubelet.wait_for_list(Y, healthy=())
        assert "error[GP019]" in agent.status.config.error

        # The configuration is the same: a more permissive policy suffices.
        write_in_place(policy, POLICY_HEADER)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        await node.kubelet.wait_for_list(Y, healthy={"y0"})
        assert not agent.status.config.error


async def test_resource_returns_when_a_later_policy_allows_it_and_forbids_others(node: FakeNode, policy: Path) -> None:
    write_in_place(policy, POLICY_HEADER)
    async with node.run_agent(XY_CONFIG, policy=policy) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        write_in_place(policy, POLICY_HEADER + "resources: [other.com/*]\n")
        await node.kubelet.wait_for_list(X, healthy=())
        await node.kubelet.wait_for_list(Y, healthy=())
        assert list(agent.status.config.withdrawn) == [X, Y]
        write_in_place(policy, POLICY_HEADER + "resources: [example.com/x]\n")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert list(agent.status.config.withdrawn) == [Y]
        assert " refuses 1 of 2 resources, " in agent.status.config.withdrawal


async def test_stricter_policy_applies_while_the_configuration_is_invalid(node: FakeNode, policy: Path) -> None:
    swap_config_map(policy.parent, {policy.name: POLICY_HEADER})
    async with node.run_agent(XY_CONFIG, policy=policy) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        node.write_config("resources: [")
        await next_event(entries, Event.CONFIG_INVALID)
        swap_config_map(policy.parent, {policy.name: NO_X1})
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert "error[GP002]" in agent.status.config.error


async def test_changed_policy_applies_despite_a_device_node_conflict(node: FakeNode, policy: Path) -> None:
    write_in_place(policy, POLICY_HEADER + "devices: {deny: [/dev/y0]}\n")
    async with node.run_agent(XY_CONFIG.replace("/dev/x*", "/dev/{x,y}*"), policy=policy) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        write_in_place(policy, NO_X1)
        await next_event(entries, Event.DEVICE_NODE_CONFLICT, "the first gets it")
        await node.kubelet.wait_for_list(X, healthy={"x0", "y0"})


async def test_mounts_are_limited_to_the_directories_of_the_policy(node: FakeNode, policy: Path) -> None:
    for name in ("x0", "x1"):
        node.write(f"/opt/{name}/file", "")
    node.locate("/opt/x1/file").unlink()
    node.locate("/opt/x1").rmdir()
    node.link("/opt/x1", "/etc")
    node.write("/etc/shadow", "")
    write_in_place(policy, POLICY_HEADER + "mounts: {allow: [/opt]}\n")
    async with node.run_agent(MOUNT_CONFIG, policy=policy) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        allocation = await node.kubelet.admit(X, ids={"x0"})
        [mount] = allocation.response.mounts
        assert (mount.host_path, mount.container_path, mount.read_only) == ("/opt/x0", "/m", True)
        with pytest.raises(AdmissionError) as rejected:
            await node.kubelet.admit(X, ids={"x1"}, pod="symlink")
        rule = f"is refused by 'mounts.allow' of {policy}, which allows /opt"
        assert f"the mount of /opt/x1, which leads to /etc, {rule}" in rejected.value.cause

        # The configuration is rejected now, and no device is offered for which a pod would get the mount.
        write_in_place(policy, POLICY_HEADER)
        await next_event(entries, Event.CONFIG_INVALID, "error[GP019]")
        await node.kubelet.wait_for_list(X, healthy=())
        assert node.kubelet.devices(X).unhealthy == {"x0", "x1"}
        (status,) = (resource for resource in agent.status.resources if resource.name == X)
        assert all("which allows nothing" in device.reason for device in status.devices)
        with pytest.raises(grpc.aio.AioRpcError, match=r"is refused by 'mounts\.allow' of [^ ]*, which allows nothing"):
            await node.kubelet.plugin(X).allocate([["x0"]])


async def test_policy_in_the_configuration_directory_is_rejected_with_a_hint(node: FakeNode, policy: Path) -> None:
    write_in_place(policy, POLICY_HEADER)
    write_in_place(node.config_dir / "policy.yaml", POLICY_HEADER)
    async with node.run_agent(XY_CONFIG, policy=policy) as agent:
        invalid = await next_event(record_events(agent), Event.CONFIG_INVALID)
        assert f"{node.config_dir}/policy.yaml:2:7: error[GP005]" in invalid.text
        assert "pass its file with --policy" in invalid.text
        assert not node.kubelet.attempts


LIMITED = {
    "mounts": ("mounts: {allow: [/opt]}", "allocate: {mounts: [{hostPath: /opt/m, containerPath: /m}]}"),
    "env": ("env: {allow: [LD_PRELOAD]}", "allocate: {env: {LD_PRELOAD: /x}}"),
    "read.env": ("read: {env: [SITE]}", "allocate: {env: {SITE: '${env.SITE}'}}"),
    "annotations": ("annotations: {allow: [a.io/b]}", "allocate: {annotations: {a.io/b: x}}"),
    "exec": ("exec: {allow: [/opt/reset]}", "preStart: {exec: {command: [/opt/reset]}, timeoutSeconds: 1}"),
    "supplementalGroups": ("supplementalGroups: {allow: [44]}", "allocate: {inject: cdi, supplementalGroups: [44]}"),
}


@pytest.mark.parametrize(("rules", "options"), LIMITED.values(), ids=LIMITED)
async def test_device_is_unhealthy_with_the_rule_when_the_policy_forbids_what_a_pod_would_get(
    node: FakeNode, policy: Path, monkeypatch: pytest.MonkeyPatch, rules: str, options: str
) -> None:
    monkeypatch.setenv("SITE", "a")
    node.write("/opt/m", "")
    write_in_place(policy, f"{POLICY_HEADER}{rules}\n")
    async with node.run_agent(build_x_config(options, glob="/dev/x0"), policy=policy) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        write_in_place(policy, POLICY_HEADER)
        await node.kubelet.wait_for_list(X, healthy=())
        assert node.kubelet.devices(X).unhealthy == {"x0"}
        [device] = agent.status.resources[0].devices
        assert f"of {policy}" in device.reason
        write_in_place(policy, f"{POLICY_HEADER}{rules}\n")
        await node.kubelet.wait_for_list(X, healthy={"x0"})
