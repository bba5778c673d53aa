"""A file system that does not respond fails the Allocate calls that need it, and delays nothing else."""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from genplug.observe.events import Event
from genplug.testing.kubelet.stand_in import KubeletStandIn
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.hanging_files import HangingFiles
from tests.support.agent_process import HANG_SECONDS
from tests.support.loop import MAX_BLOCKED_SECONDS, measured_loop

pytestmark = pytest.mark.fuse

X, Y = "example.com/x", "example.com/y"
HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
Y_SPEC = f"  {Y}: {{devices: [{{glob: '/dev/y*'}}]}}\n"
MOUNTS = "mounts: [{hostPath: /mnt/dead/lib, containerPath: /opt/lib}]"
MOUNTING = f"  {X}: {{devices: [{{glob: '/dev/x*'}}], allocate: {{{MOUNTS}}}}}\n"
POLICY = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\n"


def plug(node: FakeNode, *names: str) -> None:
    for name in names:
        node.plug(f"/dev/{name}")


async def refused(node: FakeNode, resource: str, *ids: str) -> tuple[grpc.StatusCode, str]:
    """Return the status code and the message of an allocation that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await node.kubelet.plugin(resource).allocate([ids])
    return error.value.code(), error.value.details() or ""


@pytest.fixture
def endless_allocations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the deadline of an allocation that hangs above the duration of a test."""
    monkeypatch.setattr("genplug.agent.bounded_state.ALLOCATE_SECONDS", 3600.0)


@pytest.mark.usefixtures("endless_allocations")
async def test_dead_mount_source_delays_no_other_resource(node: FakeNode) -> None:
    plug(node, "x0", "y0")
    policy = node.directory / "policy.yaml"
    policy.write_text(POLICY + "mounts: {allow: [/mnt]}\n")
    with HangingFiles(node.locate("/mnt/dead"), {"lib": ""}) as files:
        async with node.run_agent(HEAD + MOUNTING + Y_SPEC, policy=policy):
            await node.kubelet.wait_for_list(X, healthy={"x0"})
            await node.kubelet.wait_for_list(Y, healthy={"y0"})
            files.hang_lookups()
            async with measured_loop() as lateness:
                waiting = asyncio.create_task(node.kubelet.plugin(X).allocate([["x0"]]))
                await asyncio.to_thread(files.wait_for_lookup)
                await node.kubelet.plugin(Y).allocate([["y0"]])
                plug(node, "y1")
                await node.kubelet.wait_for_list(Y, healthy={"y0", "y1"})
                assert not waiting.done()
            assert lateness.blocked < MAX_BLOCKED_SECONDS
            files.release_lookups()
            await waiting


async def test_dead_mount_source_fails_its_allocations(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    plug(node, "x0", "y0")
    policy = node.directory / "policy.yaml"
    policy.write_text(POLICY + "mounts: {allow: [/mnt]}\n")
    with HangingFiles(node.locate("/mnt/dead"), {"lib": ""}) as files:
        async with node.run_agent(HEAD + MOUNTING + Y_SPEC, policy=policy):
            await node.kubelet.wait_for_list(X, healthy={"x0"})
            await node.kubelet.wait_for_list(Y, healthy={"y0"})
            response = await node.kubelet.plugin(X).allocate([["x0"]])
            assert [mount.host_path for mount in response.container_responses[0].mounts] == ["/mnt/dead/lib"]

            files.hang_lookups()
            code, message = await refused(node, X, "x0")
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "example.com/x device x0 cannot be allocated: stat of /mnt/dead" in message
            assert "does not return" in message

            # A path that is known to hang is refused at once: the kubelet admits no other pod meanwhile.
            monkeypatch.setattr("genplug.agent.bounded_state.ALLOCATE_SECONDS", 3600.0)
            await refused(node, X, "x0")

            files.release_lookups()
            async with asyncio.timeout(30):
                # No event reports that the file system responds again to what only Allocate uses.
                while True:
                    try:
                        await node.kubelet.plugin(X).allocate([["x0"]])
                        break
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.01)


async def test_concurrent_allocations_with_mounts_never_give_a_device_under_two_names(node: FakeNode) -> None:
    plug(node, "x0")
    policy = node.directory / "policy.yaml"
    policy.write_text(POLICY + "mounts: {allow: [/mnt]}\n")
    alias = "example.com/old"
    config = HEAD + MOUNTING.replace("{devices", f"{{aliases: [{alias}], devices")
    with HangingFiles(node.locate("/mnt/dead"), {"lib": ""}) as files:
        async with node.run_agent(config, policy=policy):
            for name in (X, alias):
                await node.kubelet.wait_for_list(name, healthy={"x0"})
            files.hang_lookups()
            plugins = [node.kubelet.plugin(name) for name in (X, alias)]
            both = [asyncio.create_task(plugin.allocate([["x0"]])) for plugin in plugins]
            await asyncio.to_thread(files.wait_for_lookup)
            # Both wait for the same file now, within the deadline.
            files.release_lookups()
            await asyncio.wait(both)
            errors = [error for task in both if (error := task.exception()) is not None]
            assert len(errors) == 1
            assert "a pod uses it as" in str(errors[0])


@pytest.mark.usefixtures("endless_allocations")
async def test_dead_companion_fails_its_allocations_and_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeNode(stand_ins=True) as node:
        plug(node, "x0", "y0")
        policy = node.directory / "policy.yaml"
        policy.write_text(POLICY + "devices: {allow: ['/dev/**', '/mnt/**']}\n")
        spec = f"  {X}: {{devices: [{{glob: '/dev/x*', with: ['/mnt/dead/control']}}]}}\n"
        with HangingFiles(node.locate("/mnt/dead"), {"control": "char 240:99"}) as files:
            async with node.run_agent(HEAD + spec + Y_SPEC, policy=policy):
                await node.kubelet.wait_for_list(X, healthy={"x0"})
                await node.kubelet.wait_for_list(Y, healthy={"y0"})
                await node.kubelet.plugin(X).allocate([["x0"]])
                files.hang("control")
                async with measured_loop() as lateness:
                    waiting = asyncio.create_task(node.kubelet.plugin(X).allocate([["x0"]]))
                    await asyncio.to_thread(files.wait_for_reader, "control")
                    await node.kubelet.plugin(Y).allocate([["y0"]])
                    assert not waiting.done()
                    monkeypatch.setattr("genplug.agent.bounded_state.ALLOCATE_SECONDS", 0.5)
                    assert "read of /mnt/dead/control does not return" in (await refused(node, X, "x0"))[1]
                    files.release("control")
                    await waiting
                assert lateness.blocked < MAX_BLOCKED_SECONDS


async def test_dead_cdi_directory_withholds_the_devices_of_its_resources_only(node: FakeNode) -> None:
    plug(node, "x0", "y0")
    spec = f"  {X}: {{devices: [{{glob: '/dev/x*'}}], allocate: {{inject: cdi}}}}\n"
    with ExitStack() as mounted:
        mounted.enter_context(HangingFiles(node.locate("/var/run/cdi"), {})).hang_lookups()
        async with node.run_agent(HEAD + spec + Y_SPEC, poll_seconds=0.2) as agent, measured_loop() as lateness:
            await node.kubelet.wait_for_list(Y, healthy={"y0"})
            events = record_events(agent)
            (waiting,) = [resource for resource in agent.status.resources if resource.name == X]
            assert waiting.reason == "the CDI file of its devices has not been written yet"
            assert not agent.status.is_ready
            said = await next_event(events, Event.CDI_UNWRITABLE)
            assert "stat of /var/run/cdi does not return" in said.text
            await node.kubelet.wait_for_list(X, unhealthy={"x0"})
            assert lateness.blocked < MAX_BLOCKED_SECONDS
            mounted.close()
            await node.kubelet.wait_for_list(X, healthy={"x0"})


@asynccontextmanager
async def process(node: FakeNode, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A ``genplug run`` of its own; killed in the end."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "genplug", "run", "--config", str(node.config_dir)),
        *("--root", str(node.root), "--kubelet-dir", str(node.kubelet_dir), *flags),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


def is_locked(directory: Path) -> bool:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


SCANNED = f"  {X}: {{devices: [{{glob: '/dev/x*', attributes: {{a: {{path: '/mnt/dead/lib'}}}}, where: {{a: ok}}}}]}}\n"


async def test_sigterm_ends_the_process_although_a_scan_and_the_configuration_hang(
    node: FakeNode, kubelet: KubeletStandIn
) -> None:
    plug(node, "x0", "y0")
    policy = node.directory / "policy.yaml"
    policy.write_text(POLICY + "read: {allow: [/mnt/**]}\n")
    node.write_config(HEAD + SCANNED + Y_SPEC)
    with HangingFiles(node.locate("/mnt/dead"), {"lib": "ok"}) as files:
        files.hang("lib")
        async with process(node, "--policy", str(policy)) as running:
            await kubelet.wait_for_list(Y, healthy={"y0"})
            await asyncio.to_thread(files.wait_for_reader, "lib")
            with HangingFiles(node.config_dir, {"genplug.yaml": ""}) as configuration:
                configuration.hang_lookups()
                running.send_signal(signal.SIGHUP)
                await asyncio.to_thread(configuration.wait_for_lookup)
                running.terminate()
                assert await asyncio.wait_for(running.wait(), HANG_SECONDS) == 0


async def test_sigterm_ends_the_process_although_an_allocation_hangs(node: FakeNode, kubelet: KubeletStandIn) -> None:
    plug(node, "x0")
    policy = node.directory / "policy.yaml"
    policy.write_text(POLICY + "mounts: {allow: [/mnt]}\n")
    node.write_config(HEAD + MOUNTING)
    with HangingFiles(node.locate("/mnt/dead"), {"lib": ""}) as files:
        async with process(node, "--policy", str(policy)) as running:
            await kubelet.wait_for_list(X, healthy={"x0"})
            files.hang_lookups()
            hanging = asyncio.create_task(kubelet.plugin(X).allocate([["x0"]]))
            await asyncio.to_thread(files.wait_for_lookup)
            running.terminate()
            assert await asyncio.wait_for(running.wait(), HANG_SECONDS) == 0
            await asyncio.wait({hanging})
            assert hanging.cancelled() or hanging.exception() is not None


async def test_sigterm_frees_the_node_although_a_driver_keeps_the_process_from_exiting(
    node: FakeNode, kubelet: KubeletStandIn
) -> None:
    plug(node, "x0", "y0")
    policy = node.directory / "policy.yaml"
    policy.write_text(POLICY + "read: {allow: [/mnt/**]}\n")
    node.write_config(HEAD + SCANNED + Y_SPEC)
    with HangingFiles(node.locate("/mnt/dead"), {"lib": "ok"}, is_killable=False) as files:
        files.hang("lib")
        async with process(node, "--policy", str(policy)) as running:
            await kubelet.wait_for_list(Y, healthy={"y0"})
            await asyncio.to_thread(files.wait_for_reader, "lib")
            assert is_locked(kubelet.plugins_dir)
            running.terminate()
            async with asyncio.timeout(HANG_SECONDS):
                # The kernel reports no end of a lock.
                while is_locked(kubelet.plugins_dir):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert [path for path in kubelet.plugins_dir.glob("*.sock") if path != kubelet.socket] == []
            files.release("lib")
            assert await asyncio.wait_for(running.wait(), HANG_SECONDS) == 0
