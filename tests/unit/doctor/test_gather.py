"""Facts of the kubelet and of the configuration, with real sockets, devices and files that hang."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from genplug.agent import Settings
from genplug.doctor.bounded import BoundedRead
from genplug.doctor.facts import Configuration, Facts, Machine, Unknown, require
from genplug.doctor.findings import Severity
from genplug.doctor.gather import gather_facts
from genplug.doctor.kubelet import CHECKPOINT, read_kubelet
from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER, POLICY_HEADER
from tests.support.mounts import bind_mount, mount_hanging_files
from tests.unit.doctor.example import expect_finding

ERROR, WARNING, OK, UNKNOWN = Severity.ERROR, Severity.WARNING, Severity.OK, Severity.UNKNOWN
CONFIG = CONFIG_HEADER + (
    "resources:\n"
    "  a.io/x:\n"
    "    devices: [{glob: /dev/x*}]\n"
    "    expect: {min: 2}\n"
    "    health:\n"
    "      probes:\n"
    "      - {exec: {command: [/opt/check, '${path}']}}\n"
    "      - {file: {path: /sys/state, equals: ok}}\n"
    "      - {kernelLog: {fail: [broken]}}\n"
)


@pytest_asyncio.fixture
async def started(node: FakeNode) -> AsyncIterator[FakeNode]:
    await node.kubelet.start()
    yield node


def machine_of(node: FakeNode, text: str | None = None) -> Machine:
    config = () if text is None else (node.write_config(text),)
    policy = node.directory / "policy.yaml"
    policy.write_text(POLICY_HEADER + "exec: {allow: [/opt/check, /bin/sh]}\n")
    return Machine(Settings(config, root=node.root, kubelet_dir=node.kubelet_dir, policy=policy))


async def gather(machine: Machine) -> Facts:
    """Gather in a thread, because the kubelet stand-in needs the event loop."""
    return await asyncio.to_thread(gather_facts, machine)


async def test_kubelet_that_runs_is_ok(started: FakeNode) -> None:
    facts = await gather(machine_of(started))
    for name in ("kubelet-directory", "kubelet-socket", "pod-resources-socket"):
        expect_finding(name, facts, OK, "")


async def test_kubelet_that_has_ended_is_an_error(started: FakeNode) -> None:
    await started.kubelet.crash()
    path = started.kubelet_dir / "device-plugins/kubelet.sock"
    facts = await gather(machine_of(started))
    # A kubelet that was killed leaves its socket.
    expect_finding("kubelet-socket", facts, ERROR, "refuses connections" if path.exists() else "does not exist")
    path.unlink(missing_ok=True)
    path.write_text("")
    facts = await gather(machine_of(started))
    expect_finding("kubelet-socket", facts, ERROR, f"{path} is not a socket")
    (started.kubelet_dir / "pod-resources/kubelet.sock").unlink(missing_ok=True)
    facts = await gather(machine_of(started))
    expect_finding("pod-resources-socket", facts, WARNING, "pod-resources/kubelet.sock does not exist")


async def test_directory_that_does_not_exist_is_an_error(node: FakeNode) -> None:
    machine = Machine(Settings((), root=node.root, kubelet_dir=node.directory / "none"))
    expect_finding("kubelet-directory", await gather(machine), ERROR, "none/device-plugins: No such file")


@pytest.mark.root
async def test_directory_that_is_mounted_read_only_is_an_error(started: FakeNode) -> None:
    target = started.directory / "mounted"
    with bind_mount(started.kubelet_dir / "device-plugins", target, "ro"):
        machine = Machine(Settings((), root=started.root, device_plugins_dir=target))
        expect_finding("kubelet-directory", await gather(machine), ERROR, "read-only")


async def test_directory_with_a_long_path_is_an_error(node: FakeNode) -> None:
    directory = node.directory / ("d" * 100)
    directory.mkdir()
    machine = Machine(Settings((), root=node.root, device_plugins_dir=directory))
    expect_finding("kubelet-directory", await gather(machine), ERROR, "is too long")


async def test_resource_of_another_plugin_is_found_in_the_checkpoint(started: FakeNode) -> None:
    started.plug("/dev/x0")
    directory = started.kubelet_dir / "device-plugins"
    text = CONFIG_HEADER + "resources: {a.io/x: {devices: [{glob: /dev/x*}]}}\n"
    registered = {"Data": {"PodDeviceEntries": None, "RegisteredDevices": {"a.io/x": ["0"]}}, "Checksum": 1}
    (directory / CHECKPOINT).write_text(json.dumps(registered))
    facts = await gather(machine_of(started, text))
    expect_finding("other-plugins", facts, WARNING, "other device IDs for a.io/x")
    registered["Data"] = {"RegisteredDevices": {"a.io/x": ["x0"], "b.io/y": ["0"]}}
    (directory / CHECKPOINT).write_text(json.dumps(registered))
    facts = await gather(machine_of(started, text))
    expect_finding("other-plugins", facts, OK, "no agent serves the directory now; sockets of other plugins: none")
    (directory / CHECKPOINT).write_text("[]")
    expect_finding("other-plugins", await gather(machine_of(started, text)), UNKNOWN, "does not have the format")


async def test_running_agent_is_recognized_and_not_disturbed(node: FakeNode) -> None:
    node.plug("/dev/x0")
    text = CONFIG_HEADER + "resources: {a.io/x: {devices: [{glob: /dev/x*}]}}\n"
    async with node.run_agent(text) as agent:
        await next_event(record_events(agent), Event.REGISTERED)
        (node.kubelet_dir / "device-plugins" / CHECKPOINT).write_text('{"Data": {"RegisteredDevices": {}}}')
        facts = await gather(machine_of(node, text))
        expect_finding("other-plugins", facts, OK, "an agent of genplug serves the directory")
        assert agent.status.is_ready


def test_features_and_root_dir_are_those_of_the_kubelet_process(node: FakeNode) -> None:
    process = node.directory / "proc" / "77"
    process.mkdir(parents=True)
    (process / "comm").write_text("kubelet\n")
    (process / "cmdline").write_bytes(b"/usr/bin/kubelet\0--root-dir=/data/kubelet\0--config\0/etc/kubelet.yaml\0")
    node.write("/etc/kubelet.yaml", "kind: KubeletConfiguration\nfeatureGates: {DevicePlugins: false, Other: true}\n")
    machine = replace(machine_of(node), proc=node.directory / "proc")
    kubelet = read_kubelet(machine)
    assert kubelet.root_dir == "/data/kubelet"
    assert kubelet.config_file == str(node.root / "etc/kubelet.yaml")
    assert kubelet.features == {"DevicePlugins": False, "Other": True}
    (process / "status").write_text("Name:\tkubelet\nUid:\t99999\t99999\t99999\t99999\n")
    assert read_kubelet(machine).root_dir == ""


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("featureGates: {A: true, B: No, C: maybe, D: [x]}", {"A": True, "B": False}),
        ("featureGates: {A: true, B: 2001-99-99}", {"A": True}),
        ("featureGates: {A: true, B: !!int x}", {"A": True}),
        ("featureGates: {A: true, B: !!timestamp x}", {"A": True}),
        ("featureGates: {A: true, B: !!float ''}", {"A": True}),
        ("featureGates: [A]", {}),
        ("featureGates: 1", {}),
        ("1", {}),
    ],
)
def test_broken_values_of_the_kubelet_configuration_are_ignored(
    node: FakeNode, text: str, features: dict[str, bool]
) -> None:
    node.write("/var/lib/kubelet/config.yaml", text)
    machine = replace(machine_of(node), proc=node.directory)
    assert read_kubelet(machine).features == features


async def test_configuration_is_compared_with_the_machine(node: FakeNode) -> None:
    node.plug("/dev/x0")
    node.write("/sys/state", "ok")
    facts = await gather(machine_of(node, CONFIG))
    expect_finding("configuration", facts, OK, "valid; resources: 1")
    expect_finding("devices", facts, OK, "resources: 1, devices: 1")
    expect_finding("expected-devices", facts, ERROR, "a.io/x has 1 of 2 expected healthy devices")
    expect_finding("programs", facts, ERROR, "/opt/check does not exist")
    expect_finding("kernel-log", facts, ERROR, "No such file or directory, and a probe needs it")
    expect_finding("memory-limit", facts, OK, "needs about")
    node.plug("/dev/x1")
    facts = await gather(machine_of(node, CONFIG.replace("/opt/check", "/bin/sh")))
    expect_finding("expected-devices", facts, OK, "resources with expect.min: 1")
    expect_finding("programs", facts, OK, "programs: 1, each is")
    needs = require(facts.configuration).needs
    assert (needs.read_probes, needs.call_probes, needs.resource_names, needs.kernel_log) == (2, 2, 1, True)


async def test_resource_without_a_device_has_the_reason(node: FakeNode) -> None:
    facts = await gather(machine_of(node, CONFIG))
    expect_finding("devices", facts, WARNING, "a.io/x has no device: nothing matches /dev/x*")


async def test_invalid_configuration_is_an_error_with_the_location(node: FakeNode) -> None:
    facts = await gather(machine_of(node, CONFIG.replace("glob", "golb")))
    finding = expect_finding("configuration", facts, ERROR, "GP")
    assert "genplug.yaml:5:" in finding.observation.found
    assert "genplug validate" in finding.observation.action


async def test_machine_without_a_configuration_is_unknown(node: FakeNode) -> None:
    expect_finding("configuration", await gather(machine_of(node)), UNKNOWN, "pass its files or directories")


async def test_archive_has_no_facts_of_a_kernel(node: FakeNode) -> None:
    node.plug("/dev/x0")
    facts = await gather(replace(machine_of(node, CONFIG), is_archive=True))
    expect_finding("devices", facts, OK, "resources: 1, devices: 1")
    expect_finding("programs", facts, UNKNOWN, "has no programs")
    for name in ("kubelet-directory", "kubelet-socket", "inotify-watches", "memory-limit", "dev", "clock", "user"):
        expect_finding(name, facts, UNKNOWN, "an archive of 'genplug capture' does not contain it")


@pytest.mark.fuse
def test_file_that_hangs_is_named_and_does_not_hang_the_command(node: FakeNode) -> None:
    hanging = node.root / "sys/hanging"
    hanging.mkdir()
    node.plug("/dev/x0")
    text = CONFIG_HEADER + (
        "resources:\n  a.io/x:\n    devices:\n    - glob: /dev/x*\n"
        "      attributes: {state: {path: /sys/hanging/state}}\n      where: {state: ok}\n"
    )
    with mount_hanging_files(hanging, "state") as files:
        files.hang("state")
        facts = gather_facts(machine_of(node, text), scan_seconds=0.5)
        expect_finding("devices", facts, UNKNOWN, "read of /sys/hanging/state does not return")
        expect_finding("kubelet-directory", facts, ERROR, "No such file or directory")
        files.release("state")


def test_read_that_waits_is_unknown_at_the_deadline(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def read() -> str:
        return (tmp_path / "pipe").read_text()

    waiting = BoundedRead("the pipe", read)
    found = waiting.wait(time.monotonic() + 0.1)
    assert found == Unknown("the pipe cannot be read, because a file or a server does not respond")
    (tmp_path / "pipe").write_text("done")
    assert waiting.wait(time.monotonic() + 10) == "done"
    missing = BoundedRead("the file", (tmp_path / "missing").read_text).wait(time.monotonic() + 10)
    assert missing == Unknown(f"the file cannot be read: {tmp_path}/missing: No such file or directory")


def test_defect_in_a_reader_is_an_unknown_fact() -> None:
    def fail() -> Configuration:
        raise ValueError("defect")

    found = BoundedRead("x", fail).wait(time.monotonic() + 10)
    assert isinstance(found, Unknown)
    assert "please report it" in found.reason
