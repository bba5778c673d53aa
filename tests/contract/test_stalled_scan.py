"""A file that hangs while devices are scanned or the configuration is read delays nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from genplug.agent import Agent
from genplug.hardware.discovery import scan_resource, select_scans
from genplug.observe.events import Event
from genplug.observe.status import ResourceStatus
from genplug.spec.model import Resource
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.hanging_files import HangingFiles
from tests.support.http import get
from tests.support.loop import MAX_BLOCKED_SECONDS, measured_loop
from tests.support.mounts import mount_hanging_files

pytestmark = pytest.mark.fuse

HUNG, OTHER, PROBED, NEW = (f"example.com/{name}" for name in ("hung", "other", "probed", "new"))
HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
HUNG_SPEC = (
    f"  {HUNG}: {{devices: [{{glob: '/dev/hung*', attributes: {{state: {{path: '/sys/hung/${{name}}'}}}}, "
    "where: {state: ok}}]}\n"
)
OTHER_SPEC = f"  {OTHER}: {{devices: [{{glob: '/dev/other*'}}]}}\n"
PROBED_SPEC = (
    f"  {PROBED}: {{devices: [{{glob: '/dev/probed*'}}], health: {{periodSeconds: 0.1, failureThreshold: 1, "
    "probes: [{file: {path: '/sys/probed/${name}', equals: ok}}]}}\n"
)
CONFIG = HEAD + HUNG_SPEC + OTHER_SPEC + PROBED_SPEC


@pytest.fixture
def endless_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the deadline of a scan that hangs above the duration of a test."""
    monkeypatch.setattr("genplug.agent.scan_job.STALL_SECONDS", 3600.0)


def plug_all(node: FakeNode) -> None:
    for name in ("hung0", "hung1", "other0", "other1", "probed0"):
        node.plug(f"/dev/{name}")
    node.write("/sys/probed/probed0", "ok")


@asynccontextmanager
async def running(node: FakeNode, config: str = CONFIG) -> AsyncIterator[Agent]:
    """Run the agent with frequent full scans, so that a file that hangs is read."""
    async with node.run_agent(config, rescan_seconds=0.3, listen=("127.0.0.1", 0)) as agent:
        yield agent


def resource(agent: Agent, name: str) -> ResourceStatus:
    (found,) = [status for status in agent.status.resources if status.name == name]
    return found


@pytest.mark.usefixtures("endless_scans")
async def test_hung_attribute_delays_neither_devices_nor_reload_nor_probes_of_others(node: FakeNode) -> None:
    with mount_hanging_files(node.locate("/sys/hung"), "hung0", "hung1") as files:
        plug_all(node)
        async with running(node):
            await node.kubelet.wait_for_list(HUNG, healthy={"hung0", "hung1"})
            await node.kubelet.wait_for_list(PROBED, healthy={"probed0"})
            async with measured_loop() as lateness:
                files.hang("hung0")
                await asyncio.to_thread(files.wait_for_reader, "hung0")
                node.unplug("/dev/other1")
                node.write("/sys/probed/probed0", "bad")
                node.write_config(CONFIG + OTHER_SPEC.replace("other", "new"))
                node.plug("/dev/new0")
                await node.kubelet.wait_for_list(OTHER, healthy={"other0"}, unhealthy={"other1"})
                await node.kubelet.wait_for_list(PROBED, unhealthy={"probed0"})
                await node.kubelet.wait_for_list(NEW, healthy={"new0"})
            assert node.kubelet.devices(HUNG).healthy == {"hung0", "hung1"}
            assert lateness.blocked < MAX_BLOCKED_SECONDS


async def test_stalled_scan_is_visible_in_log_status_readiness_and_metric(node: FakeNode) -> None:
    with mount_hanging_files(node.locate("/sys/hung"), "hung0", "hung1") as files:
        files.hang("hung1")
        node.plug("/dev/hung0")
        node.plug("/dev/other0")
        # Without frequent scans: the end of the hang is noticed as such.
        async with node.run_agent(HEAD + HUNG_SPEC + OTHER_SPEC, listen=("127.0.0.1", 0)) as agent:
            await node.kubelet.wait_for_list(HUNG, healthy={"hung0"})
            await node.kubelet.wait_for_list(OTHER, healthy={"other0"})
            events = record_events(agent)
            node.plug("/dev/hung1")
            stalled = await next_event(events, Event.SCAN_STALLED)
            reason = "read of /sys/hung/hung1 does not return (since 20"
            assert stalled.facts["resource"] == HUNG
            assert f"{HUNG}: scan stalled: {reason}" in stalled.text
            assert any(f"scan stalled: {reason}" in note for note in resource(agent, HUNG).notes)
            assert not resource(agent, OTHER).notes
            code, text = await get(agent, "/readyz?verbose")
            assert code == 503
            assert f"[-] {HUNG}: scan stalled: {reason}" in text
            _, metrics = await get(agent, "/metrics")
            assert f'genplug_scan_stalled{{resource="{HUNG}"}} 1.0' in metrics
            assert f'genplug_scan_stalled{{resource="{OTHER}"}} 0.0' in metrics

            files.release("hung1")
            assert HUNG in (await next_event(events, Event.SCAN_RESUMED)).text
            await node.kubelet.wait_for_list(HUNG, healthy={"hung0", "hung1"})
            assert (await get(agent, "/readyz"))[0] == 200
            _, metrics = await get(agent, "/metrics")
            assert f'genplug_scan_stalled{{resource="{HUNG}"}} 0.0' in metrics


async def test_attribute_of_sysfs_that_hangs_keeps_its_device(node: FakeNode) -> None:
    config = HEAD + f"  {HUNG}: {{devices: [{{glob: '/dev/hung*', where: {{attr.state: ok}}}}]}}\n" + OTHER_SPEC
    node.plug("/dev/hung0", minor=70)
    node.plug("/dev/other0", minor=71)
    node.link("/sys/dev/char/240:70", "../../devices/hung0")
    with HangingFiles(node.locate("/sys/devices/hung0"), {"state": "ok\n"}) as files:
        async with node.run_agent(config, rescan_seconds=0.3) as agent:
            await node.kubelet.wait_for_list(HUNG, healthy={"hung0"})
            events = record_events(agent)
            files.hang("state")
            logged = await next_event(events, Event.SCAN_STALLED)
            assert "read of /sys/devices/hung0/state does not return" in logged.text
            assert "last known state kept for /dev/hung0" in logged.text
            assert node.kubelet.devices(HUNG).healthy == {"hung0"}


async def test_stalled_resource_keeps_what_hangs_and_follows_the_rest(node: FakeNode) -> None:
    with mount_hanging_files(node.locate("/sys/hung"), "hung0", "hung1", "hung2") as files:
        plug_all(node)
        async with running(node) as agent:
            await node.kubelet.wait_for_list(HUNG, healthy={"hung0", "hung1"})
            events = record_events(agent)
            files.hang("hung0")
            await next_event(events, Event.SCAN_STALLED)
            node.unplug("/dev/hung1")
            node.plug("/dev/hung2")
            await node.kubelet.wait_for_list(HUNG, healthy={"hung0", "hung2"}, unhealthy={"hung1"})
            files.write("hung0", "bad\n")
            files.release("hung0")
            await node.kubelet.wait_for_list(HUNG, healthy={"hung2"}, unhealthy={"hung0", "hung1"})


@pytest.mark.usefixtures("endless_scans")
async def test_first_scan_that_hangs_delays_no_other_resource(node: FakeNode) -> None:
    with mount_hanging_files(node.locate("/sys/hung"), "hung0", "hung1") as files:
        files.hang("hung0")
        plug_all(node)
        async with running(node) as agent:
            await node.kubelet.wait_for_list(OTHER, healthy={"other0", "other1"})
            await node.kubelet.wait_for_list(PROBED, healthy={"probed0"})
            assert not agent.status.is_ready
            assert "its first scan has not finished" in resource(agent, HUNG).reason


async def test_first_scan_that_hangs_leaves_only_its_device_out(node: FakeNode) -> None:
    with mount_hanging_files(node.locate("/sys/hung"), "hung0", "hung1") as files:
        files.hang("hung0")
        plug_all(node)
        async with running(node) as agent:
            await node.kubelet.wait_for_list(HUNG, healthy={"hung1"})
            assert any("/dev/hung0: cannot be examined: read of" in note for note in resource(agent, HUNG).notes)
            files.release("hung0")
            await node.kubelet.wait_for_list(HUNG, healthy={"hung0", "hung1"})


async def test_device_that_hangs_at_the_first_scan_does_not_move_to_a_later_resource(node: FakeNode) -> None:
    with mount_hanging_files(node.locate("/sys/hung"), "hung0", "hung1") as files:
        files.hang("hung0")
        plug_all(node)
        later = f"  {OTHER}: {{devices: [{{glob: ['/dev/hung*', '/dev/other*']}}]}}\n"
        async with running(node, HEAD + HUNG_SPEC + later) as agent:
            await node.kubelet.wait_for_list(HUNG, healthy={"hung1"})
            await node.kubelet.wait_for_list(OTHER, healthy={"other0", "other1"})
            text = f"withheld: {HUNG}, which may claim it first, has not been scanned"
            assert agent.snapshot is not None
            assert agent.snapshot.inventory.withheld == {(OTHER, "hung0"): text}
            files.release("hung0")
            await node.kubelet.wait_for_list(HUNG, healthy={"hung0", "hung1"})
            assert all(message.devices.ids <= {"other0", "other1"} for message in node.kubelet.messages(OTHER))


async def test_directory_that_hangs_keeps_the_devices_of_its_resource(node: FakeNode) -> None:
    config = (
        HEAD + f"  {HUNG}: {{devices: [{{glob: '/run/udev/data/hung/*', type: file}}], allocate: {{env: {{A: b}}}}}}\n"
    )
    with HangingFiles(node.locate("/run/udev/data/hung"), {"hung0": ""}) as files:
        node.plug("/dev/other0")
        async with running(node, config + OTHER_SPEC) as agent:
            await node.kubelet.wait_for_list(HUNG)
            known = node.kubelet.devices(HUNG).healthy
            assert len(known) == 1
            events = record_events(agent)
            async with measured_loop() as lateness:
                files.hang_lookups()
                await asyncio.to_thread(files.wait_for_lookup)
                node.plug("/dev/other1")
                await node.kubelet.wait_for_list(OTHER, healthy={"other0", "other1"})
                await next_event(events, Event.SCAN_STALLED)
            assert node.kubelet.devices(HUNG).healthy == known
            files.release_lookups()
            await next_event(events, Event.SCAN_RESUMED)
            assert lateness.blocked < MAX_BLOCKED_SECONDS


@pytest.mark.usefixtures("endless_scans")
async def test_resource_that_hangs_under_a_new_policy_is_withheld(node: FakeNode) -> None:
    policy = node.directory / "policy.yaml"
    head = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\n"
    policy.write_text(head)
    with mount_hanging_files(node.locate("/sys/hung"), "hung0") as files:
        node.plug("/dev/hung0")
        node.plug("/dev/other0")
        async with node.run_agent(HEAD + HUNG_SPEC + OTHER_SPEC, policy=policy) as agent:
            await node.kubelet.wait_for_list(HUNG, healthy={"hung0"})
            events = record_events(agent)
            files.hang("hung0")
            policy.write_text(head + "devices: {deny: [/dev/hung*]}\n")
            agent.reload()
            await next_event(events, Event.CONFIG_LOADED)
            await node.kubelet.wait_for_list(HUNG, healthy=())


async def test_internal_error_in_one_scan_leaves_the_others_up_to_date(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[str] = []

    def fail(spec: Resource, *arguments: Any, **options: Any) -> Any:
        if spec.name in broken:
            raise ValueError("a bug")
        return scan_resource(spec, *arguments, **options)

    monkeypatch.setattr("genplug.agent.scan_job.scan_resource", fail)
    node.plug("/dev/other0")
    async with running(node, HEAD + HUNG_SPEC + OTHER_SPEC) as agent:
        await node.kubelet.wait_for_list(OTHER, healthy={"other0"})
        events = record_events(agent)
        broken.append(HUNG)
        logged = await next_event(events, Event.INTERNAL_ERROR)
        assert logged.facts["resource"] == HUNG
        assert "ValueError('a bug')" in logged.text
        node.plug("/dev/other1")
        await node.kubelet.wait_for_list(OTHER, healthy={"other0", "other1"})
        broken.clear()
        await next_event(events, Event.SCAN_RESUMED)


async def test_task_that_fails_is_started_again_and_readiness_says_so(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genplug.agent.supervision.RESTART_SECONDS", 0.05)
    failures: list[str] = []

    def fail_once(*arguments: Any) -> Any:
        if failures:
            raise ValueError(failures.pop())
        return select_scans(*arguments)

    monkeypatch.setattr("genplug.agent.device_scanner.select_scans", fail_once)
    node.plug("/dev/other0")
    async with running(node, HEAD + OTHER_SPEC) as agent:
        await node.kubelet.wait_for_list(OTHER, healthy={"other0"})
        events = record_events(agent)
        failures.append("a bug")
        await next_event(events, Event.INTERNAL_ERROR, "device scanner")
        code, text = await get(agent, "/readyz?verbose")
        assert code == 503
        assert "the device scanner failed and is started again: ValueError('a bug')" in text
        _, metrics = await get(agent, "/metrics")
        assert 'genplug_internal_errors_total{resource=""} 1.0' in metrics
        node.plug("/dev/other1")
        await node.kubelet.wait_for_list(OTHER, healthy={"other0", "other1"})


async def test_configuration_directory_that_hangs_delays_only_reloads(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genplug.agent.config_reloader.LOAD_SECONDS", 0.3)
    plug_all(node)
    with HangingFiles(node.config_dir, {"genplug.yaml": HEAD + OTHER_SPEC + PROBED_SPEC}) as files:
        async with node.run_agent(rescan_seconds=0.3) as agent:
            await node.kubelet.wait_for_list(OTHER, healthy={"other0", "other1"})
            await node.kubelet.wait_for_list(PROBED, healthy={"probed0"})
            events = record_events(agent)
            async with measured_loop() as lateness:
                files.hang("genplug.yaml")
                logged = await next_event(events, Event.CONFIG_INVALID)
                node.unplug("/dev/other1")
                node.write("/sys/probed/probed0", "bad")
                await node.kubelet.wait_for_list(OTHER, healthy={"other0"}, unhealthy={"other1"})
                await node.kubelet.wait_for_list(PROBED, unhealthy={"probed0"})
            assert "the configuration cannot be read; the last good configuration is kept" in logged.text
            assert f"reading {node.config_dir} has not returned within 0.3 s" in agent.status.config.error
            files.write("genplug.yaml", HEAD + OTHER_SPEC)
            files.release("genplug.yaml")
            await next_event(events, Event.CONFIG_LOADED)
            assert not agent.status.config.error
            assert lateness.blocked < MAX_BLOCKED_SECONDS
