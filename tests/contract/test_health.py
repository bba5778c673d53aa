"""Health of devices by probes, from a file or the kernel log to the list of the kubelet (points 44, 47, 48, 78)."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from genplug.agent import Agent
from genplug.observe.events import Event
from genplug.observe.status import DeviceStatus
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.held_files import hold_file
from tests.support.agent_process import start_agent, wait_for_exit
from tests.support.configs import CONFIG_HEADER
from tests.support.events import drain_events
from tests.support.lists import assert_limited_rate
from tests.support.mounts import mount_hanging_files, mount_tmpfs
from tests.support.processes import list_probe_workers
from tests.support.resources import X_CONFIG, X, plug_devices, write_policy
from tests.support.workers import wait_until_awaited

OLD = "example.com/old"
STATE_PROBE = "file: {path: '/sys/${name}/state', equals: ok}"


def build_probe_config(*probes: str, health: str = "", resource: str = "") -> str:
    """Return a configuration of ``example.com/x`` with these probes.

    ``health`` replaces the times and thresholds, which are short by default; ``resource`` is a further key of the
    resource.
    """
    thresholds = "periodSeconds: 0.1, timeoutSeconds: 5, failureThreshold: 1, successThreshold: 1"
    extra = f"    {resource}\n" if resource else ""
    return (
        f"{CONFIG_HEADER}resources:\n  {X}:\n    devices: [{{glob: /dev/x*}}]\n{extra}"
        f"    health: {{{health or thresholds}, probes: [{', '.join(f'{{{probe}}}' for probe in probes)}]}}\n"
    )


def plug_with_state(node: FakeNode, *names: str, state: str = "ok") -> None:
    """Create device nodes, each with a file of its state, which the probe of ``STATE_PROBE`` reads."""
    for name in names:
        node.write(f"/sys/{name}/state", state)
        node.plug(f"/dev/{name}")


def get_device(agent: Agent, device_id: str) -> DeviceStatus:
    """Return the status of a device of the first resource."""
    (device,) = [device for device in agent.status.resources[0].devices if device.id == device_id]
    return device


async def wait_for_probe_runs(agent: Agent, runs: int) -> None:
    """Wait until every probe has run ``runs`` more times."""
    target = agent.status.health.min_runs + runs
    async with asyncio.timeout(30):
        # A run that changes nothing has no event.
        while agent.status.health.min_runs < target:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_probe_failure_and_recovery_are_listed_and_logged_with_the_reason(node: FakeNode) -> None:
    plug_with_state(node, "x0", "x1")
    async with node.run_agent(build_probe_config(STATE_PROBE)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        entries = record_events(agent)
        node.write("/sys/x1/state", "dead")
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        unhealthy = await next_event(entries, Event.DEVICE_UNHEALTHY)
        assert unhealthy.text == "example.com/x: x1 is unhealthy: probe state: /sys/x1/state is 'dead', expected 'ok'"
        device = get_device(agent, "x1")
        assert (device.probe, device.reason) == ("state", "probe state: /sys/x1/state is 'dead', expected 'ok'")
        with pytest.raises(grpc.aio.AioRpcError, match="expected 'ok'"):
            await node.kubelet.plugin(X).allocate([["x1"]])
        node.write("/sys/x1/state", "ok")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert (await next_event(entries, Event.DEVICE_HEALTHY)).text == "example.com/x: x1 is healthy again"


async def test_device_unhealthy_at_start_is_never_listed_as_healthy(node: FakeNode) -> None:
    plug_with_state(node, *(f"x{number}" for number in range(20)))
    node.write("/sys/x7/state", "dead")
    health = "periodSeconds: 0.1, failureThreshold: 3"
    async with node.run_agent(build_probe_config(STATE_PROBE, health=health)) as agent:
        await node.kubelet.wait_for_list(X)
        await wait_for_probe_runs(agent, 3)
        (message,) = node.kubelet.messages(X)
        assert message.devices.unhealthy == {"x7"}


async def test_new_device_is_listed_after_its_first_probe_result(node: FakeNode) -> None:
    plug_with_state(node, "x0")
    async with node.run_agent(build_probe_config(STATE_PROBE)):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        plug_with_state(node, "x1", state="dead")
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        assert [len(message.devices.by_id) for message in node.kubelet.messages(X)] == [1, 2]


async def test_44_flapping_device_stays_healthy_until_the_failure_threshold(node: FakeNode) -> None:
    plug_with_state(node, "x0", "x1")
    health = "periodSeconds: 0.1, failureThreshold: 3, successThreshold: 2"
    async with node.run_agent(build_probe_config(STATE_PROBE, health=health)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        for _ in range(10):
            # The file has this text for a run of the probe, or at most for two.
            node.write("/sys/x0/state", "down")
            await wait_for_probe_runs(agent, 1)
            node.write("/sys/x0/state", "ok")
            await wait_for_probe_runs(agent, 2)
        assert len(node.kubelet.messages(X)) == 1
        node.write("/sys/x0/state", "down")
        await node.kubelet.wait_for_list(X, healthy={"x1"}, unhealthy={"x0"})
        node.write("/sys/x0/state", "ok")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_44_rate_of_lists_of_a_flapping_device_is_limited(node: FakeNode) -> None:
    plug_with_state(node, "x0")
    async with node.run_agent(build_probe_config(STATE_PROBE)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        for number in range(30):
            node.write("/sys/x0/state", "down" if number % 2 else "ok")
            await wait_for_probe_runs(agent, 1)
        assert_limited_rate(node.kubelet, X)
        assert 1 < len(node.kubelet.messages(X)) < 30


@pytest.mark.fuse
async def test_47_hung_probe_makes_only_its_device_unhealthy(node: FakeNode) -> None:
    names = [f"x{number}" for number in range(8)]
    with mount_hanging_files(node.locate("/sys/hanging"), *names) as files:
        for name in names:
            node.plug(f"/dev/{name}")
        probe = (
            "name: status, timeoutSeconds: 0.2, onError: unhealthy, file: {path: '/sys/hanging/${name}', equals: ok}"
        )
        async with node.run_agent(build_probe_config(probe)) as agent:
            await node.kubelet.wait_for_list(X, healthy=names)
            entries = record_events(agent)
            files.hang("x3")
            await node.kubelet.wait_for_list(X, healthy=set(names) - {"x3"}, unhealthy={"x3"})
            assert get_device(agent, "x3").reason.startswith("probe status: timed out after 0.2 s")
            error = await next_event(entries, Event.PROBE_ERROR)
            assert error.text == "example.com/x: probe status cannot check x3: timed out after 0.2 s"
            # The other devices are probed and allocated as before.
            files.write("x5", "dead\n")
            await node.kubelet.wait_for_list(X, healthy=set(names) - {"x3", "x5"}, unhealthy={"x3", "x5"})
            await node.kubelet.admit(X, 6)
            assert agent.status.health.read_workers.hung == 1
            assert agent.status.is_ready
            files.release("x3")
            files.write("x5", "ok\n")
            await node.kubelet.wait_for_list(X, healthy=names)
            assert agent.status.health.read_workers.hung == 0
            assert agent.status.health.errors == ()
            await next_event(entries, Event.PROBE_RECOVERED)


@pytest.mark.fuse
async def test_47_hung_probe_at_start_does_not_delay_the_first_list(node: FakeNode) -> None:
    with mount_hanging_files(node.locate("/sys/hanging"), "x0", "x1") as files:
        files.hang("x0")
        for name in ("x0", "x1"):
            node.plug(f"/dev/{name}")
        probe = "timeoutSeconds: 60, file: {path: '/sys/hanging/${name}', equals: ok}"
        async with node.run_agent(build_probe_config(probe)):
            # The list is sent before the timeout of the hung probe.
            await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


@pytest.fixture
def held_files(node: FakeNode) -> Iterator[contextlib.ExitStack]:
    """Plug ten devices with a held file each; closing the stack releases the files."""
    with contextlib.ExitStack() as stack:
        for number in range(10):
            node.plug(f"/dev/x{number}")
            node.write(f"/sys/x{number}", "ok")
            stack.enter_context(hold_file(node.locate(f"/sys/x{number}")))
        yield stack


async def test_presence_and_calls_are_still_monitored_when_all_workers_that_read_hang(
    node: FakeNode, held_files: contextlib.ExitStack
) -> None:
    names = [f"x{number}" for number in range(10)]
    probe = "timeoutSeconds: 0.1, file: {path: '/sys/${name}', equals: ok}"
    # No resource can take the places of all workers: each of these devices has its own.
    others = "".join(
        f"  example.com/{name}:\n    devices: [{{glob: /dev/{name}}}]\n"
        f"    health: {{periodSeconds: 0.1, probes: [{{{probe}}}]}}\n"
        for name in names[1:]
    )
    called = (
        "  example.com/called:\n    devices: [{glob: /dev/called}]\n"
        "    health: {failureThreshold: 1, periodSeconds: 0.1, probes: [{unixSocket: {path: '/run/${name}.sock'}}]}\n"
    )
    node.plug("/dev/called")
    node.locate("/run").mkdir(parents=True, exist_ok=True)
    listener = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), node.locate("/run/called.sock"))
    config = build_probe_config(probe).replace("/dev/x*", "/dev/x0")
    policy = write_policy(node, "unixSocket: {allow: [/run/*.sock]}\n")
    async with node.run_agent(config + others + called, policy=policy) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy=names[:1])
        exhausted = await next_event(entries, Event.PROBE_WORKERS_EXHAUSTED)
        suspended = "probes that read files or open device nodes are suspended, because 8 runs hang"
        assert exhausted.text.startswith(suspended)
        assert f"health: {suspended}" in agent.status.unready
        await node.kubelet.wait_for_list("example.com/called", healthy={"called"})
        listener.close()
        await node.kubelet.wait_for_list("example.com/called", unhealthy={"called"})
        node.unplug("/dev/x4")
        await node.kubelet.wait_for_list("example.com/x4", unhealthy={"x4"})
        await node.kubelet.admit(X, 1)
        held_files.close()
        await next_event(entries, Event.PROBE_RECOVERED, "probes that read files or open device nodes run again")
        assert agent.status.is_ready


async def test_slow_probes_of_a_resource_do_not_delay_the_probes_of_others(node: FakeNode) -> None:
    # The kernel completes the connections; no program accepts them or answers.
    with socket.create_server(("127.0.0.1", 0), backlog=256) as tarpit, contextlib.ExitStack() as held:
        port = tarpit.getsockname()[1]
        urls = f"http: {{url: 'http://127.0.0.1:{port}/${{name}}'}}"
        config = build_probe_config(urls, health="periodSeconds: 0.1, timeoutSeconds: 60").replace(
            "/dev/x*", "/dev/slow*"
        )
        health = "health: {periodSeconds: 0.1, failureThreshold: 1, successThreshold: 1, timeoutSeconds: 60, probes: "
        config += (
            f"  example.com/reads: {{devices: [{{glob: '/dev/read*'}}], {health}[{{{STATE_PROBE}}}]}}}}\n"
            f"  example.com/files: {{devices: [{{glob: /dev/file}}], {health}[{{{STATE_PROBE}}}]}}}}\n"
            f"  example.com/sockets: {{devices: [{{glob: /dev/socket}}], {health}"
            "[{unixSocket: {path: '/run/probed.sock'}}]}}\n"
        )
        for number in range(64):
            node.plug(f"/dev/slow{number}")
        plug_with_state(node, "file", "read0", "read1", "read2")
        for number in range(3):
            held.enter_context(hold_file(node.locate(f"/sys/read{number}/state")))
        node.plug("/dev/socket")
        node.locate("/run").mkdir(parents=True, exist_ok=True)
        path = node.locate("/run/probed.sock")
        listener = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), path)
        policy = write_policy(node, "unixSocket: {allow: [/run/probed.sock]}\n")
        async with node.run_agent(config, policy=policy):
            for resource, device in (("example.com/files", "file"), ("example.com/sockets", "socket")):
                await node.kubelet.wait_for_list(resource, healthy={device})
            node.write("/sys/file/state", "bad")
            listener.close()
            # The timeout of the slow probes is longer than these waits.
            await node.kubelet.wait_for_list("example.com/files", unhealthy={"file"})
            await node.kubelet.wait_for_list("example.com/sockets", unhealthy={"socket"})


async def test_hung_probe_does_not_delay_process_exit(node: FakeNode) -> None:
    plug_with_state(node, "x0")
    node.write_config(build_probe_config(STATE_PROBE))
    await node.kubelet.start()
    async with start_agent(node) as process:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        with hold_file(node.locate("/sys/x0/state")) as held:
            await wait_until_awaited(held)
            process.terminate()
            code = await wait_for_exit(process)
        assert code == 0


async def test_48_probe_exception_is_reported_and_keeps_the_stream_open(node: FakeNode) -> None:
    plug_with_state(node, "x0")
    # For device x0 the port is not a number.
    broken = "onError: unhealthy, http: {url: 'http://127.0.0.1:${name}/'}"
    async with node.run_agent(build_probe_config(broken, STATE_PROBE)) as agent:
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        assert get_device(agent, "x0").reason.startswith("probe http: ValueError: Port could not be cast")
        node.write_config(build_probe_config(STATE_PROBE))
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert node.kubelet.stream_count(X) == 1
        assert len(node.kubelet.attempts) == 1


@pytest.mark.root
async def test_78_open_probe_without_permission_follows_the_on_error_setting(node: FakeNode) -> None:
    policy = write_policy(node, "openProbe: true\n")
    directory = node.locate("/dev")
    # On a mount with nodev, as with a device cgroup, a device node exists and cannot be opened.
    with mount_tmpfs(directory, "nodev"):
        os.mknod(directory / "x0", 0o666 | 0o020000, os.makedev(1, 3))
        async with node.run_agent(build_probe_config("open: {}"), policy=policy) as agent:
            entries = record_events(agent)
            await node.kubelet.wait_for_list(X, healthy={"x0"})
            (error,) = agent.status.health.errors
            assert error.error.startswith("genplug is not permitted to open /dev/x0")
            node.write_config(build_probe_config("onError: unhealthy, open: {}"))
            await node.kubelet.wait_for_list(X, unhealthy={"x0"})
            assert "genplug is not permitted" in get_device(agent, "x0").reason
            assert "genplug is not permitted" in (await next_event(entries, Event.DEVICE_UNHEALTHY)).text


@pytest.mark.parametrize(
    ("resource", "unhealthy"),
    [
        ("replicas: 3", {"x0-r0", "x0-r1", "x0-r2"}),
        ("slices: 2", {"x0-s0", "x0-s1"}),
        ("aliases: [example.com/old]", {"x0"}),
    ],
)
async def test_probe_failure_reaches_replicas_and_aliases_in_a_single_message(
    node: FakeNode, resource: str, unhealthy: set[str]
) -> None:
    plug_with_state(node, "x0", "x1")
    async with node.run_agent(build_probe_config(STATE_PROBE, resource=resource)):
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 2 * len(unhealthy))
        previous = len(node.kubelet.messages(X))
        node.write("/sys/x0/state", "dead")
        for name in (X, OLD) if "aliases" in resource else (X,):
            await node.kubelet.wait_for_list(name, lambda devices: devices.unhealthy == unhealthy)
        assert len(node.kubelet.messages(X)) == previous + 1


async def test_token_pool_is_unhealthy_when_all_devices_are_unhealthy(node: FakeNode) -> None:
    plug_with_state(node, "x0", "x1")
    async with node.run_agent(build_probe_config(STATE_PROBE, resource="tokens: 5")):
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 5)
        node.write("/sys/x0/state", "dead")
        node.write("/sys/x1/state", "dead")
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.unhealthy) == 5)
        node.write("/sys/x1/state", "ok")
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 5)


async def test_returned_device_is_judged_as_a_new_device(node: FakeNode) -> None:
    plug_with_state(node, "x0", "x1")
    health = "periodSeconds: 0.1, failureThreshold: 1, successThreshold: 1000"
    async with node.run_agent(build_probe_config(STATE_PROBE, health=health)) as agent:
        node.write("/sys/x1/state", "dead")
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        entries = record_events(agent)
        node.unplug("/dev/x0")
        node.unplug("/dev/x1")
        await node.kubelet.wait_for_list(X, unhealthy={"x0", "x1"})
        # x1 was unhealthy before too, so the list does not show whether the agent has noticed that it is gone.
        await next_event(entries, Event.DEVICE_UNHEALTHY, "x1 is gone")
        node.write("/sys/x0/state", "dead")
        node.write("/sys/x1/state", "ok")
        plug_devices(node, "x0", "x1")
        await node.kubelet.wait_for_list(X, healthy={"x1"}, unhealthy={"x0"})
        # No list showed the failed device as healthy after its return.
        assert not any(message.devices["x0"].healthy for message in node.kubelet.messages(X)[-2:])


async def test_returned_device_whose_probe_cannot_run_is_healthy(node: FakeNode) -> None:
    node.plug("/dev/x0")
    probe = "http: {url: 'http://127.0.0.1:1/'}"
    async with node.run_agent(build_probe_config(probe, health="periodSeconds: 0.1")):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        node.unplug("/dev/x0")
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        node.plug("/dev/x0")
        await node.kubelet.wait_for_list(X, healthy={"x0"})


async def test_sticky_failure_ends_when_the_device_is_plugged_in_again(node: FakeNode) -> None:
    plug_with_state(node, "x0", "x1")
    health = "periodSeconds: 0.1, failureThreshold: 1, successThreshold: 1, sticky: true"
    async with node.run_agent(build_probe_config(STATE_PROBE, health=health)) as agent:
        node.write("/sys/x0/state", "dead")
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        node.write("/sys/x0/state", "ok")
        await wait_for_probe_runs(agent, 3)
        assert node.kubelet.devices(X).unhealthy == {"x0"}
        entries = record_events(agent)
        node.unplug("/dev/x0")
        await next_event(entries, Event.DEVICE_UNHEALTHY, "is gone")
        node.plug("/dev/x0")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_sticky_failure_ends_when_the_agent_restarts(node: FakeNode) -> None:
    plug_with_state(node, "x0", "x1")
    health = "periodSeconds: 0.1, failureThreshold: 1, successThreshold: 1, sticky: true"
    async with node.run_agent(build_probe_config(STATE_PROBE, health=health)):
        node.write("/sys/x0/state", "dead")
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        node.write("/sys/x0/state", "ok")
    await node.kubelet.wait_disconnected(X)
    async with node.run_agent():
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_reload_replaces_probes_and_keeps_unaffected_health(node: FakeNode) -> None:
    plug_with_state(node, "x0", "x1")
    node.write("/sys/x0/state", "dead")
    async with node.run_agent(build_probe_config(STATE_PROBE)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x1"}, unhealthy={"x0"})
        since = get_device(agent, "x0").since
        entries = record_events(agent)
        node.write_config(
            build_probe_config(STATE_PROBE, "name: other, file: {path: '/sys/${name}/other', missing: ok}")
        )
        await next_event(entries, Event.CONFIG_LOADED)
        await wait_for_probe_runs(agent, 2)
        assert (get_device(agent, "x0").since, len(node.kubelet.messages(X))) == (since, 1)
        node.write_config(build_probe_config("file: {path: '/sys/${name}/state', equals: dead}"))
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        node.write_config(X_CONFIG)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert agent.status.health.probes == 0


async def test_kernel_log_probe_evaluates_earlier_and_later_lines(node: FakeNode) -> None:
    plug_with_state(node, "x0", "x1", "x2")
    node.write_kernel_log("x0: fault 1", "x1: fault 2", "x1: reset")
    log = "kernelLog: {fail: '${name}: fault', ignore: 'fault 9', clear: '${name}: reset'}"
    async with node.run_agent(build_probe_config(log)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x1", "x2"}, unhealthy={"x0"})
        assert get_device(agent, "x0").reason == "probe kernelLog: the kernel logged: x0: fault 1"
        assert len(node.kubelet.messages(X)) == 1
        node.write_kernel_log("x0: reset", "x1: fault 9", "x2: fault 3")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"}, unhealthy={"x2"})


async def test_unreadable_kernel_log_is_reported_once(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    async with node.run_agent(build_probe_config("kernelLog: {fail: fault}")) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        (error,) = agent.status.health.errors
        assert error.devices == ("x0", "x1")
        assert "the kernel log" in error.error
        assert "cannot be read: No such file or directory" in error.error
        plug_devices(node, "x2")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"})
        assert drain_events(entries).count(Event.PROBE_ERROR) == 1


async def test_failure_with_the_severity_of_a_warning_leaves_the_device_healthy(node: FakeNode) -> None:
    plug_with_state(node, "x0", "x1")
    async with node.run_agent(build_probe_config(f"severity: warning, {STATE_PROBE}")) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        entries = record_events(agent)
        node.write("/sys/x1/state", "worn")
        warned = await next_event(entries, Event.PROBE_WARNING)
        reason = "/sys/x1/state is 'worn', expected 'ok'"
        assert warned.text == f"{X}: probe state warns about x1: {reason}; the health is unchanged"
        (warning,) = agent.status.health.warnings
        assert (warning.probe, warning.devices, warning.reason) == ("state", ("x1",), reason)
        assert get_device(agent, "x1").healthy
        await node.kubelet.plugin(X).allocate([["x1"]])
        node.write("/sys/x1/state", "ok")
        await next_event(entries, Event.PROBE_WARNING_RESOLVED)
        assert agent.status.health.warnings == ()
        assert len(node.kubelet.messages(X)) == 1


async def test_warning_of_a_removed_probe_ends(node: FakeNode) -> None:
    plug_with_state(node, "x0", state="worn")
    async with node.run_agent(build_probe_config(f"severity: warning, {STATE_PROBE}")) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert len(agent.status.health.warnings) == 1
        # The same probe as a failure.
        node.write_config(build_probe_config(STATE_PROBE))
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        assert not agent.status.health.warnings


async def test_device_fails_while_its_value_exceeds_that_of_another_file(node: FakeNode) -> None:
    plug_with_state(node, "x0", "x1", state="70")
    node.write("/sys/limit", "80")
    probe = "file: {path: '/sys/${name}/state', maxFile: /sys/limit}"
    async with node.run_agent(build_probe_config(probe)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        node.write("/sys/x1/state", "81")
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        assert get_device(agent, "x1").reason.endswith("is '81', expected at most '80', the value of /sys/limit")
        node.write("/sys/limit", "90")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_device_fails_while_a_file_exists_that_must_not_exist(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    probe = "file: {path: '/sys/${name}/survivability_mode', exists: false}"
    async with node.run_agent(build_probe_config(probe)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        node.write("/sys/x1/survivability_mode", "")
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        assert "/sys/x1/survivability_mode exists" in get_device(agent, "x1").reason
        node.locate("/sys/x1/survivability_mode").unlink()
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_text_that_is_not_a_number_is_not_an_error_of_the_probe(node: FakeNode) -> None:
    plug_with_state(node, "x0", state="N/A (no PMA)")
    probe = "file: {path: '/sys/${name}/state', maxIncrease: 3, perSeconds: 3600, nonNumeric: ok}"
    async with node.run_agent(build_probe_config(probe)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert agent.status.health.errors == ()
        node.write("/sys/x0/state", "0")
        await wait_for_probe_runs(agent, 2)
        node.write("/sys/x0/state", "9")
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})


async def test_kernel_log_probe_requires_all_expressions_of_a_list(node: FakeNode) -> None:
    plug_devices(node, "x0", "x1")
    node.write_kernel_log("x0: idle", "x1: other card: fault")
    log = "kernelLog: {fail: ['^${name}: ', fault], clear: ['^${name}: ', reset]}"
    async with node.run_agent(build_probe_config(log)):
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        node.write_kernel_log("x0: hang", "x1: reset")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        node.write_kernel_log("x0: fault")
        await node.kubelet.wait_for_list(X, healthy={"x1"}, unhealthy={"x0"})


@pytest.mark.root
async def test_uevent_probe_fails_and_clears_on_kernel_events(node: FakeNode) -> None:
    sysfs_dir = Path("/sys/devices/virtual/mem/null")
    plug_with_state(node, "x0")
    probe = f"uevent: {{fail: 'WEDGED=(rebind|bus-reset)', clear: 'WEDGED=none', path: {sysfs_dir}}}"

    def send_uevent(value: str) -> None:
        # The kernel sends an event for a write to this file (Documentation/ABI/testing/sysfs-uevent).
        (sysfs_dir / "uevent").write_text(f"change 5a3f1c3e-0d6b-4c0c-9a39-5a1f4e1d2c3b WEDGED={value}")

    async with node.run_agent(build_probe_config(probe)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        send_uevent("rebind")
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        assert "WEDGED=rebind (change of /sys/devices/virtual/mem/null)" in get_device(agent, "x0").reason
        send_uevent("none")
        await node.kubelet.wait_for_list(X, healthy={"x0"})


async def test_shared_probe_target_is_read_once_for_all_devices(node: FakeNode) -> None:
    names = [f"x{number}" for number in range(20)]
    plug_with_state(node, *names)
    node.write("/sys/carrier", "1")
    async with node.run_agent(build_probe_config("file: {path: /sys/carrier, equals: 1}")) as agent:
        await node.kubelet.wait_for_list(X, healthy=names)
        health = agent.status.health
        assert (health.probes, health.targets) == (20, 1)
        node.write("/sys/carrier", "0")
        await node.kubelet.wait_for_list(X, unhealthy=names)
        assert len(node.kubelet.messages(X)) == 2


async def test_killed_worker_is_replaced(node: FakeNode) -> None:
    plug_with_state(node, "x0")
    async with node.run_agent(build_probe_config(STATE_PROBE)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        (worker,) = list_probe_workers()
        os.kill(worker, signal.SIGKILL)
        await wait_for_probe_runs(agent, 3)
        (replacement,) = list_probe_workers()
        assert replacement != worker
        node.write("/sys/x0/state", "dead")
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})


async def test_failed_worker_start_is_counted_and_reported_until_recovery(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_with_state(node, "x0", state="dead")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    async with node.run_agent(build_probe_config(STATE_PROBE)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        status = agent.status.health.read_workers
        assert status.failed_starts > 0
        assert status.start_error == "No such file or directory: /nonexistent/python"
        (error,) = agent.status.health.errors
        assert error.error == f"cannot start a probe worker: {status.start_error}"
        entries = record_events(agent)
        monkeypatch.undo()
        recovered = await next_event(entries, Event.PROBE_RECOVERED, "probe workers start again")
        assert recovered.text == f"probe workers start again; previous error: {status.start_error}"
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        assert agent.status.health.read_workers.start_error == ""
