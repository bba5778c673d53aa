"""Health by probes: what the kubelet is told, and what it is not bothered with (contract 10: 44, 47, 48, 78)."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from genplug.agent import Agent
from genplug.observe.events import Event, LogEvent
from genplug.observe.status import DeviceStatus
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.hanging_files import HangingFiles
from genplug.testing.node.held_files import hold_file
from tests.support.workers import wait_until_awaited

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
X, OLD = "example.com/x", "example.com/old"
STATE = "file: {path: '/sys/${name}/state', equals: ok}"


def config(*probes: str, health: str = "", resource: str = "") -> str:
    numbers = "periodSeconds: 0.05, timeoutSeconds: 5, failureThreshold: 1, successThreshold: 1"
    extra = f"    {resource}\n" if resource else ""
    return (
        f"{HEAD}  {X}:\n    devices: [{{glob: /dev/x*}}]\n{extra}"
        f"    health: {{{health or numbers}, probes: [{', '.join(f'{{{one}}}' for one in probes)}]}}\n"
    )


def plug(node: FakeNode, *names: str, state: str = "ok") -> None:
    for name in names:
        node.write(f"/sys/{name}/state", state)
        node.plug(f"/dev/{name}")


def device(agent: Agent, name: str) -> DeviceStatus:
    (found,) = [one for one in agent.status.resources[0].devices if one.id == name]
    return found


async def rounds(agent: Agent, more: int) -> None:
    """Wait until every probe has looked so often again."""
    until = agent.status.health.min_runs + more
    async with asyncio.timeout(30):
        # No event tells of a look that changes nothing.
        while agent.status.health.min_runs < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_probe_failure_and_recovery_are_listed_and_logged_with_the_reason(node: FakeNode) -> None:
    plug(node, "x0", "x1")
    async with node.run_agent(config(STATE)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        entries = record_events(agent)
        node.write("/sys/x1/state", "dead")
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        said = (await next_event(entries, Event.DEVICE_UNHEALTHY)).text
        assert said == "example.com/x: x1 is unhealthy: probe state: /sys/x1/state is 'dead', expected 'ok'"
        one = device(agent, "x1")
        assert (one.probe, one.reason) == ("state", "probe state: /sys/x1/state is 'dead', expected 'ok'")
        with pytest.raises(Exception, match="expected 'ok'"):
            await node.kubelet.plugin(X).allocate([["x1"]])
        node.write("/sys/x1/state", "ok")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert (await next_event(entries, Event.DEVICE_HEALTHY)).text == "example.com/x: x1 is healthy again"


async def test_device_unhealthy_at_start_is_never_listed_as_healthy(node: FakeNode) -> None:
    plug(node, *(f"x{number}" for number in range(20)))
    node.write("/sys/x7/state", "dead")
    health = "periodSeconds: 0.1, failureThreshold: 3"
    async with node.run_agent(config(STATE, health=health)) as agent:
        await node.kubelet.wait_for_list(X)
        await rounds(agent, 3)
        (only,) = node.kubelet.messages(X)
        assert only.devices.unhealthy == {"x7"}


async def test_new_device_is_listed_after_its_first_probe_result(node: FakeNode) -> None:
    plug(node, "x0")
    async with node.run_agent(config(STATE)):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        plug(node, "x1", state="dead")
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        assert [len(message.devices.by_id) for message in node.kubelet.messages(X)] == [1, 2]


async def test_44_flapping_device_stays_healthy_until_the_failure_threshold(node: FakeNode) -> None:
    plug(node, "x0", "x1")
    health = "periodSeconds: 0.05, failureThreshold: 3, successThreshold: 2"
    async with node.run_agent(config(STATE, health=health)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        for _ in range(10):
            # For one look, or two at most: what is written stays until the next has begun.
            node.write("/sys/x0/state", "down")
            await rounds(agent, 1)
            node.write("/sys/x0/state", "ok")
            await rounds(agent, 2)
        assert len(node.kubelet.messages(X)) == 1
        node.write("/sys/x0/state", "down")
        await node.kubelet.wait_for_list(X, healthy={"x1"}, unhealthy={"x0"})
        node.write("/sys/x0/state", "ok")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_44_lists_of_a_flapping_device_are_a_second_apart(node: FakeNode) -> None:
    plug(node, "x0")
    async with node.run_agent(config(STATE)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        for number in range(30):
            node.write("/sys/x0/state", "down" if number % 2 else "ok")
            await rounds(agent, 1)
        # The first is the list of the start; news waits for nothing but the news before.
        arrived = [message.time for message in node.kubelet.messages(X)][1:]
        assert len(arrived) > 1
        assert all(later - earlier > 0.9 for earlier, later in pairwise(arrived))


@contextlib.contextmanager
def sick_files(node: FakeNode, *names: str) -> Iterator[HangingFiles]:
    with HangingFiles(node.locate("/sys/sick"), dict.fromkeys(names, "ok\n")) as files:
        yield files


@pytest.mark.fuse
async def test_47_hung_probe_makes_only_its_device_unhealthy(node: FakeNode) -> None:
    names = [f"x{number}" for number in range(8)]
    with sick_files(node, *names) as files:
        for name in names:
            node.plug(f"/dev/{name}")
        probe = "name: status, timeoutSeconds: 0.2, onError: unhealthy, file: {path: '/sys/sick/${name}', equals: ok}"
        async with node.run_agent(config(probe)) as agent:
            await node.kubelet.wait_for_list(X, healthy=names)
            entries = record_events(agent)
            files.hang("x3")
            await node.kubelet.wait_for_list(X, healthy=set(names) - {"x3"}, unhealthy={"x3"})
            assert device(agent, "x3").reason.startswith("probe status: timed out after 0.2 s")
            said = await next_event(entries, Event.PROBE_ERROR)
            assert said.text == "example.com/x: probe status cannot check x3: timed out after 0.2 s"
            # The others are looked at as before, and given.
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
    with sick_files(node, "x0", "x1") as files:
        files.hang("x0")
        for name in ("x0", "x1"):
            node.plug(f"/dev/{name}")
        async with node.run_agent(config("file: {path: '/sys/sick/${name}', equals: ok}")):
            # The timeout is 5 s; what is known before it is told.
            await node.kubelet.wait_for_list(X, healthy={"x0", "x1"}, timeout=4)


async def test_presence_is_still_monitored_when_all_probe_workers_are_hung(node: FakeNode) -> None:
    names = [f"x{number}" for number in range(10)]
    for name in names:
        node.plug(f"/dev/{name}")
        node.write(f"/sys/{name}", "ok")
    probe = "timeoutSeconds: 0.05, file: {path: '/sys/${name}', equals: ok}"
    with contextlib.ExitStack() as held:
        for name in names:
            held.enter_context(hold_file(node.locate("/sys") / name))
        await presence_counts(node, config(probe), names, held)


async def presence_counts(node: FakeNode, text: str, names: list[str], held: contextlib.ExitStack) -> None:
    async with node.run_agent(text) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy=names)
        await next_event(entries, Event.PROBE_WORKERS_EXHAUSTED)
        assert not agent.status.is_ready
        assert "health: all probe workers are hung (8 reads or calls)" in agent.status.unready[0]
        node.unplug("/dev/x4")
        await node.kubelet.wait_for_list(X, healthy=set(names) - {"x4"}, unhealthy={"x4"})
        await node.kubelet.admit(X, 9)
        held.close()
        await next_event(entries, Event.PROBE_RECOVERED, "probes run again")
        assert agent.status.is_ready


async def test_hung_probe_does_not_delay_process_exit(node: FakeNode) -> None:
    plug(node, "x0")
    node.write_config(config(STATE))
    await node.kubelet.start()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "genplug", "run", "--config", node.config_dir),
        *("--root", node.root, "--kubelet-dir", node.kubelet_dir),
        stderr=subprocess.DEVNULL,
    )
    try:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        with hold_file(node.locate("/sys/x0/state")) as held:
            await wait_until_awaited(held)
            process.terminate()
            async with asyncio.timeout(2):
                assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def test_48_probe_exception_is_reported_and_keeps_the_stream_open(node: FakeNode) -> None:
    plug(node, "x0")
    # What this becomes is known when there is a device: a port that is not a number.
    broken = "onError: unhealthy, http: {url: 'http://127.0.0.1:${name}/'}"
    async with node.run_agent(config(broken, STATE)) as agent:
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        assert device(agent, "x0").reason.startswith("probe http: ValueError: Port could not be cast")
        node.write_config(config(STATE))
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert node.kubelet.stream_count(X) == 1
        assert len(node.kubelet.attempts) == 1


@pytest.mark.root
async def test_78_open_probe_without_permission_follows_the_on_error_setting(node: FakeNode) -> None:
    policy = node.directory / "policy.yaml"
    policy.write_text("apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nopenProbe: true\n")
    devices = node.locate("/dev")
    # As where the device cgroup forbids it: the node is there, and to open it is denied.
    await asyncio.to_thread(subprocess.run, ["mount", "-t", "tmpfs", "-o", "nodev", "nodev", devices], check=True)
    try:
        os.mknod(devices / "x0", 0o666 | 0o020000, os.makedev(1, 3))
        async with node.run_agent(config("open: {}"), policy=policy) as agent:
            entries = record_events(agent)
            await node.kubelet.wait_for_list(X, healthy={"x0"})
            (trouble,) = agent.status.health.errors
            assert trouble.error.startswith("genplug is not permitted to open /dev/x0")
            node.write_config(config("onError: unhealthy, open: {}"))
            await node.kubelet.wait_for_list(X, unhealthy={"x0"})
            assert "genplug is not permitted" in device(agent, "x0").reason
            assert "genplug is not permitted" in (await next_event(entries, Event.DEVICE_UNHEALTHY)).text
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "-l", devices], check=True)


@pytest.mark.parametrize(
    ("resource", "sick"),
    [
        ("replicas: 3", {"x0-r0", "x0-r1", "x0-r2"}),
        ("slices: 2", {"x0-s0", "x0-s1"}),
        ("aliases: [example.com/old]", {"x0"}),
    ],
)
async def test_probe_failure_reaches_replicas_and_aliases_in_a_single_message(
    node: FakeNode, resource: str, sick: set[str]
) -> None:
    plug(node, "x0", "x1")
    async with node.run_agent(config(STATE, resource=resource)):
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 2 * len(sick))
        before = len(node.kubelet.messages(X))
        node.write("/sys/x0/state", "dead")
        for name in (X, OLD) if "aliases" in resource else (X,):
            await node.kubelet.wait_for_list(name, lambda devices: devices.unhealthy == sick)
        assert len(node.kubelet.messages(X)) == before + 1


async def test_token_pool_is_unhealthy_when_all_devices_are_unhealthy(node: FakeNode) -> None:
    plug(node, "x0", "x1")
    async with node.run_agent(config(STATE, resource="tokens: 5")):
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 5)
        node.write("/sys/x0/state", "dead")
        node.write("/sys/x1/state", "dead")
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.unhealthy) == 5)
        node.write("/sys/x1/state", "ok")
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 5)


async def test_returned_device_needs_consecutive_passing_probe_runs(node: FakeNode) -> None:
    plug(node, "x0", "x1")
    health = "periodSeconds: 0.2, failureThreshold: 1, successThreshold: 3"
    async with node.run_agent(config(STATE, health=health)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        node.unplug("/dev/x1")
        await node.kubelet.wait_for_list(X, unhealthy={"x1"})
        entries = record_events(agent)
        node.plug("/dev/x1")
        said = await next_event(entries, Event.DEVICE_UNHEALTHY)
        assert said.text.endswith("the device returned; it needs 3 consecutive passing probe runs")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_sticky_failure_keeps_device_unhealthy_until_agent_restart(node: FakeNode) -> None:
    plug(node, "x0", "x1")
    health = "periodSeconds: 0.05, failureThreshold: 1, successThreshold: 1, sticky: true"
    async with node.run_agent(config(STATE, health=health)) as agent:
        node.write("/sys/x0/state", "dead")
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        node.write("/sys/x0/state", "ok")
        node.unplug("/dev/x0")
        entries = record_events(agent)
        await next_event(entries, Event.DEVICE_UNHEALTHY, "is gone")
        node.plug("/dev/x0")
        await next_event(entries, Event.DEVICE_UNHEALTHY, "expected 'ok'")
        await rounds(agent, 3)
        assert node.kubelet.devices(X).unhealthy == {"x0"}
    await node.kubelet.wait_disconnected(X)
    async with node.run_agent():
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_reload_replaces_probes_and_keeps_unaffected_health(node: FakeNode) -> None:
    plug(node, "x0", "x1")
    node.write("/sys/x0/state", "dead")
    async with node.run_agent(config(STATE)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x1"}, unhealthy={"x0"})
        since = device(agent, "x0").since
        entries = record_events(agent)
        node.write_config(config(STATE, "name: other, file: {path: '/sys/${name}/other', missing: ok}"))
        await next_event(entries, Event.CONFIG_LOADED)
        await rounds(agent, 2)
        assert (device(agent, "x0").since, len(node.kubelet.messages(X))) == (since, 1)
        node.write_config(config("file: {path: '/sys/${name}/state', equals: dead}"))
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        node.write_config(HEAD + f"  {X}: {{devices: [{{glob: /dev/x*}}]}}\n")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert agent.status.health.probes == 0


async def test_kernel_log_probe_evaluates_earlier_and_later_lines(node: FakeNode) -> None:
    plug(node, "x0", "x1", "x2")
    node.write_kernel_log("x0: fault 1", "x1: fault 2", "x1: reset")
    log = "kernelLog: {fail: '${name}: fault', ignore: 'fault 9', clear: '${name}: reset'}"
    async with node.run_agent(config(log)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x1", "x2"}, unhealthy={"x0"})
        assert device(agent, "x0").reason == "probe kernelLog: the kernel logged: x0: fault 1"
        assert len(node.kubelet.messages(X)) == 1
        node.write_kernel_log("x0: reset", "x1: fault 9", "x2: fault 3")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"}, unhealthy={"x2"})


async def test_unreadable_kernel_log_is_reported_once(node: FakeNode) -> None:
    plug(node, "x0", "x1")
    entries: list[LogEvent] = []
    async with node.run_agent(config("kernelLog: {fail: fault}")) as agent:
        agent.event_log.listen(entries.append)
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        (trouble,) = agent.status.health.errors
        assert trouble.devices == ("x0", "x1")
        assert "the kernel log" in trouble.error
        assert "cannot be read: No such file or directory" in trouble.error
        assert sum(entry.event is Event.PROBE_ERROR for entry in entries) <= 1


@pytest.mark.root
async def test_uevent_probe_fails_and_clears_on_kernel_events(node: FakeNode) -> None:
    location = Path("/sys/devices/virtual/mem/null")
    plug(node, "x0")
    probe = f"uevent: {{fail: 'WEDGED=(rebind|bus-reset)', clear: 'WEDGED=none', path: {location}}}"

    def send(what: str) -> None:
        # The kernel sends what is written here to all who listen (Documentation/ABI/testing/sysfs-uevent).
        (location / "uevent").write_text(f"change 5a3f1c3e-0d6b-4c0c-9a39-5a1f4e1d2c3b WEDGED={what}")

    async with node.run_agent(config(probe)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        send("rebind")
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        assert "WEDGED=rebind (change of /sys/devices/virtual/mem/null)" in device(agent, "x0").reason
        send("none")
        await node.kubelet.wait_for_list(X, healthy={"x0"})


async def test_shared_probe_target_is_read_once_for_all_devices(node: FakeNode) -> None:
    names = [f"x{number}" for number in range(20)]
    plug(node, *names)
    node.write("/sys/carrier", "1")
    async with node.run_agent(config("file: {path: /sys/carrier, equals: 1}")) as agent:
        await node.kubelet.wait_for_list(X, healthy=names)
        health = agent.status.health
        assert (health.probes, health.targets) == (20, 1)
        node.write("/sys/carrier", "0")
        await node.kubelet.wait_for_list(X, unhealthy=names)
        assert len(node.kubelet.messages(X)) == 2


def workers() -> list[int]:
    """The processes that look for the agents of this process."""
    children = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return [one for one in children if b"genplug.health.workers.main" in Path(f"/proc/{one}/cmdline").read_bytes()]


async def test_killed_worker_is_replaced(node: FakeNode) -> None:
    plug(node, "x0")
    async with node.run_agent(config(STATE)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        (worker,) = workers()
        os.kill(worker, signal.SIGKILL)
        await rounds(agent, 3)
        node.write("/sys/x0/state", "dead")
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})


async def test_failed_worker_start_is_counted_and_reported_until_recovery(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug(node, "x0", state="dead")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    async with node.run_agent(config(STATE)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        status = agent.status.health.read_workers
        assert status.failed_starts > 0
        assert status.start_error == "No such file or directory: /nonexistent/python"
        (error,) = agent.status.health.errors
        assert error.error == f"cannot start a probe worker: {status.start_error}"
        entries = record_events(agent)
        monkeypatch.undo()
        said = await next_event(entries, Event.PROBE_RECOVERED, "probe workers start again")
        assert said.text == f"probe workers start again; previous error: {status.start_error}"
        await node.kubelet.wait_for_list(X, unhealthy={"x0"})
        assert agent.status.health.read_workers.start_error == ""
