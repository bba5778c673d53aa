"""preStart: a program for each device before a container starts, and what the pod's owner reads when it fails (5.5)."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
X, Y = "example.com/x", "example.com/y"


@pytest.fixture
def script(node: FakeNode) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = node.directory / "reset"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write


def config(program: Path, *arguments: str, timeout: float = 20, name: str = X) -> str:
    command = ", ".join(f"'{one}'" for one in (program, *arguments))
    pre_start = f"preStart: {{exec: {{command: [{command}]}}, timeoutSeconds: {timeout}}}"
    return f"{HEAD}  {name}: {{devices: [{{glob: /dev/x*}}], {pre_start}}}\n"


def policy(node: FakeNode) -> Path:
    path = node.directory / "policy.yaml"
    allow = f"exec: {{allow: ['{node.directory}/*']}}"
    path.write_text(f"apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\n{allow}\n")
    return path


async def test_program_runs_once_per_device_with_its_attributes(node: FakeNode, script: Callable[[str], Path]) -> None:
    ran = node.directory / "ran"
    program = script(f'echo "$@" >> {ran}')
    node.plug("/dev/x0")
    node.plug("/dev/x1")
    async with node.run_agent(config(program, "--reset", "${path}"), policy=policy(node)):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert node.kubelet.registrations[-1].pre_start_required
        await node.kubelet.admit(X, 2, pod="both")
        assert sorted(ran.read_text().splitlines()) == ["--reset /dev/x0", "--reset /dev/x1"]


async def test_added_pre_start_program_registers_the_resource_again(
    node: FakeNode, script: Callable[[str], Path]
) -> None:
    program = script("exit 0")
    node.plug("/dev/x0")
    async with node.run_agent(f"{HEAD}  {X}: {{devices: [{{glob: /dev/x*}}]}}\n", policy=policy(node)):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert not node.kubelet.registrations[-1].pre_start_required
        node.write_config(config(program))
        await node.kubelet.wait_registered(X, times=2)
        assert node.kubelet.registrations[-1].pre_start_required


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo loud; echo 'the card did not answer' >&2; exit 7", "exited with status 7: the card did not answer"),
        ("kill -9 $$", "was killed by signal 9"),
        ("exit 1", "exited with status 1"),
    ],
)
async def test_failed_program_is_reported_with_device_and_last_output(
    node: FakeNode, script: Callable[[str], Path], text: str, said: str
) -> None:
    program = script(text)
    node.plug("/dev/x0")
    async with node.run_agent(config(program), policy=policy(node)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        entries = record_events(agent)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await node.kubelet.plugin(X).pre_start_container(["x0"])
        assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"{X}: device x0 is not ready for a container: the preStart program {program} {said}" in (
            failed.value.details() or ""
        )
        assert said in (await next_event(entries, Event.PRE_START_FAILED)).text


async def test_65_hung_program_is_killed_with_its_children_after_the_timeout(
    node: FakeNode, script: Callable[[str], Path]
) -> None:
    child = node.directory / "child"
    program = script(f"sleep 600 & echo $! > {child}; echo waiting; wait")
    node.plug("/dev/x0")
    async with node.run_agent(config(program, timeout=0.5), policy=policy(node)):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError, match=r"took longer than 0.5 s: waiting"):
            await node.kubelet.plugin(X).pre_start_container(["x0"])
        assert time.monotonic() - began < 10
        await gone(int(child.read_text()))


async def test_program_of_a_cancelled_call_is_killed(node: FakeNode, script: Callable[[str], Path]) -> None:
    started = node.directory / "started"
    os.mkfifo(started)
    program = script(f"echo $$ > {started}; sleep 600")
    node.plug("/dev/x0")
    async with node.run_agent(config(program), policy=policy(node)):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        asking = asyncio.create_task(node.kubelet.plugin(X).pre_start_container(["x0"]))
        process = int(await asyncio.to_thread(started.read_text))
        asking.cancel()
        await gone(process)


async def test_hung_program_does_not_delay_other_calls(node: FakeNode, script: Callable[[str], Path]) -> None:
    program = script('[ "$1" = /dev/x1 ] || sleep 600')
    node.plug("/dev/x0")
    node.plug("/dev/x1")
    async with node.run_agent(config(program, "${path}"), policy=policy(node)):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        hanging = asyncio.create_task(node.kubelet.plugin(X).pre_start_container(["x0"]))
        async with asyncio.timeout(10):
            await node.kubelet.plugin(X).pre_start_container(["x1"])
            await node.kubelet.plugin(X).allocate([["x1"]])
        assert not hanging.done()
        hanging.cancel()


@pytest.mark.parametrize("what", ["unknown", "missing"])
async def test_unknown_device_or_missing_program_is_refused_with_the_reason(
    node: FakeNode, script: Callable[[str], Path], what: str
) -> None:
    program = script("exit 0")
    node.plug("/dev/x0")
    async with node.run_agent(config(program), policy=policy(node)):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        program.unlink()
        reasons = {"unknown": "has no device 'x9'", "missing": "cannot be started"}
        with pytest.raises(grpc.aio.AioRpcError, match=reasons[what]):
            await node.kubelet.plugin(X).pre_start_container(["x9" if what == "unknown" else "x0"])


async def gone(process: int) -> None:
    """Wait until a process has ended; the kernel tells by its descriptor."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
