"""Programs of preStart, which run for each device before a container starts (point 65)."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.processes import wait_for_process_end
from tests.support.resources import X_CONFIG, X, build_x_config, plug_devices, write_policy

WriteScript = Callable[[str], Path]


@pytest.fixture
def write_script(node: FakeNode) -> WriteScript:
    """Give a function that writes a shell script and returns its path."""

    def write(text: str) -> Path:
        path = node.directory / "reset"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def policy(node: FakeNode) -> Path:
    """Give a policy that allows the scripts."""
    return write_policy(node, f"exec: {{allow: ['{node.directory}/*']}}\n")


def build_pre_start_config(program: Path, *arguments: str, timeout: float = 20) -> str:
    """Return a configuration of ``example.com/x`` that runs a program before a container starts."""
    command = ", ".join(f"'{part}'" for part in (program, *arguments))
    return build_x_config(f"preStart: {{exec: {{command: [{command}]}}, timeoutSeconds: {timeout}}}")


async def test_program_runs_once_per_device_with_its_attributes(
    node: FakeNode, policy: Path, write_script: WriteScript
) -> None:
    ran = node.directory / "ran"
    program = write_script(f'echo "$@" >> {ran}')
    plug_devices(node, "x0", "x1")
    async with node.run_agent(build_pre_start_config(program, "--reset", "${path}"), policy=policy):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert node.kubelet.registrations[-1].pre_start_required
        await node.kubelet.admit(X, 2, pod="both")
        assert sorted(ran.read_text().splitlines()) == ["--reset /dev/x0", "--reset /dev/x1"]


async def test_added_pre_start_program_registers_the_resource_again(
    node: FakeNode, policy: Path, write_script: WriteScript
) -> None:
    program = write_script("exit 0")
    node.plug("/dev/x0")
    async with node.run_agent(X_CONFIG, policy=policy):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert not node.kubelet.registrations[-1].pre_start_required
        node.write_config(build_pre_start_config(program))
        await node.kubelet.wait_registered(X, times=2)
        assert node.kubelet.registrations[-1].pre_start_required


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo loud; echo 'the card did not answer' >&2; exit 7", "exited with status 7: the card did not answer"),
        ("kill -9 $$", "was killed by signal 9"),
        ("exit 1", "exited with status 1"),
    ],
)
async def test_failed_program_is_reported_with_device_and_last_output(
    node: FakeNode, policy: Path, write_script: WriteScript, script: str, reason: str
) -> None:
    program = write_script(script)
    node.plug("/dev/x0")
    async with node.run_agent(build_pre_start_config(program), policy=policy) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        entries = record_events(agent)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await node.kubelet.plugin(X).pre_start_container(["x0"])
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"{X}: device x0 is not ready for a container: the preStart program {program} {reason}" in (
            refused.value.details() or ""
        )
        assert reason in (await next_event(entries, Event.PRE_START_FAILED)).text


async def test_65_hung_program_is_killed_with_its_children_after_the_timeout(
    node: FakeNode, policy: Path, write_script: WriteScript
) -> None:
    child = node.directory / "child"
    program = write_script(f"sleep 600 & echo $! > {child}; echo waiting; wait")
    node.plug("/dev/x0")
    async with node.run_agent(build_pre_start_config(program, timeout=0.5), policy=policy):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        with pytest.raises(grpc.aio.AioRpcError, match=r"took longer than 0.5 s: waiting"):
            await node.kubelet.plugin(X).pre_start_container(["x0"])
        await wait_for_process_end(int(child.read_text()))


async def test_program_of_a_cancelled_call_is_killed(node: FakeNode, policy: Path, write_script: WriteScript) -> None:
    fifo = node.directory / "started"
    os.mkfifo(fifo)
    program = write_script(f"echo $$ > {fifo}; sleep 600")
    node.plug("/dev/x0")
    async with node.run_agent(build_pre_start_config(program), policy=policy):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        call = asyncio.create_task(node.kubelet.plugin(X).pre_start_container(["x0"]))
        process = int(await asyncio.to_thread(fifo.read_text))
        call.cancel()
        await wait_for_process_end(process)


async def test_hung_program_does_not_delay_other_calls(node: FakeNode, policy: Path, write_script: WriteScript) -> None:
    program = write_script('[ "$1" = /dev/x1 ] || sleep 600')
    plug_devices(node, "x0", "x1")
    async with node.run_agent(build_pre_start_config(program, "${path}"), policy=policy):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        hanging = asyncio.create_task(node.kubelet.plugin(X).pre_start_container(["x0"]))
        async with asyncio.timeout(10):
            await node.kubelet.plugin(X).pre_start_container(["x1"])
            await node.kubelet.plugin(X).allocate([["x1"]])
        assert not hanging.done()
        hanging.cancel()


async def test_unknown_device_is_refused(node: FakeNode, policy: Path, write_script: WriteScript) -> None:
    program = write_script("exit 0")
    node.plug("/dev/x0")
    async with node.run_agent(build_pre_start_config(program), policy=policy):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        with pytest.raises(grpc.aio.AioRpcError, match="has no device 'x9'"):
            await node.kubelet.plugin(X).pre_start_container(["x9"])


async def test_missing_program_is_refused_with_the_reason(
    node: FakeNode, policy: Path, write_script: WriteScript
) -> None:
    program = write_script("exit 0")
    node.plug("/dev/x0")
    async with node.run_agent(build_pre_start_config(program), policy=policy):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        program.unlink()
        with pytest.raises(grpc.aio.AioRpcError, match="cannot be started"):
            await node.kubelet.plugin(X).pre_start_container(["x0"])


async def test_65_pre_start_without_a_program_succeeds_without_effect(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(X_CONFIG):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        assert not node.kubelet.registrations[-1].pre_start_required
        await node.kubelet.plugin(X).pre_start_container(["x0"])
