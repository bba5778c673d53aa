"""``genplug demo --script``: everything the demo can show, unattended, each step with a result that is checked."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from genplug.agent import Agent
from genplug.cli.demo_node import BROKEN, CAMERA, FUSE, SERIAL, WITH_CAMERA, demo_node, status_table
from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode


class StepFailedError(Exception):
    """A step of the script did not show what it promises."""


def play() -> int:
    """Play the script and return 0 if every step showed what it promises, else 1."""
    try:
        asyncio.run(_play())
    except (StepFailedError, TimeoutError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    print("\nEverything worked. `genplug demo` lets you try it by hand.")
    return 0


async def _play() -> None:
    async with demo_node() as node:
        kubelet = node.kubelet
        async with AsyncExitStack() as started:
            agent = await started.enter_async_context(node.run_agent())
            async with _step("the agent starts and registers its resources with the kubelet"):
                await kubelet.wait_for_list(SERIAL, lambda devices: len(devices.healthy) == 3)  # noqa: PLR2004 - as plugged
                await kubelet.wait_for_list(FUSE, lambda devices: len(devices.healthy) == 3)  # noqa: PLR2004 - as configured
            _show(status_table(agent.status))
            first = await _allocates(node)
            await _replugs(node, agent, first)
            await _reloads(node, agent)
            async with _step("the kubelet restarts and wipes its directory"):
                times = len(kubelet.registrations)
                await kubelet.restart()
                await kubelet.wait_for(lambda: len(kubelet.registrations) == times + 3)
                await kubelet.wait_for_list(CAMERA, lambda devices: len(devices.healthy) == 1)
            _show("each resource registered again, once")
            async with _step("the agent is told to stop"):
                await started.aclose()
                await kubelet.wait_for(lambda: kubelet.stream_count(SERIAL) == 0)
        left = sorted(path.name for path in kubelet.plugins_dir.glob("genplug-*"))
        _check(not left, f"sockets were left behind: {left}")
        _show("its sockets are gone")


async def _allocates(node: FakeNode) -> str:
    async with _step(f"a pod asks for one {SERIAL}"):
        allocation = await node.kubelet.admit(SERIAL, 1, pod="demo")
        answer = await node.kubelet.plugin(SERIAL).allocate([allocation.ids])
    container = answer.container_responses[0]
    node_given = container.devices[0]
    _show(f"{allocation.ids[0]}: {node_given.host_path} ({node_given.permissions}), env {dict(container.envs)}")
    _check(container.envs["SERIAL_PORTS"] == node_given.host_path, "the answer's env does not name the device's path")
    return allocation.ids[0]


async def _replugs(node: FakeNode, agent: Agent, used: str) -> None:
    listed = {path: device.id for one in agent.status.resources for device in one.devices for path in device.paths}
    path = next(path for path, name in listed.items() if path.startswith("/dev/ttyUSB") and name != used)
    async with _step(f"{path} is unplugged"):
        node.unplug(path)
        await node.kubelet.wait_for_list(SERIAL, lambda devices: listed[path] in devices.unhealthy)
    _show(status_table(agent.status))
    async with _step(f"{path} is plugged in again"):
        node.plug(path)
        await node.kubelet.wait_for_list(SERIAL, lambda devices: listed[path] in devices.healthy)
    _show(f"the same ID is healthy again: {listed[path]}")


async def _reloads(node: FakeNode, agent: Agent) -> None:
    async with _step("the configuration gets a resource more"):
        node.write_config(WITH_CAMERA, how="rename")
        await node.kubelet.wait_for_list(CAMERA, lambda devices: len(devices.healthy) == 1)
    _show(f"{CAMERA} is offered; nothing else was touched")
    async with _step("somebody breaks the configuration"):
        entries = record_events(agent)
        node.write_config(BROKEN, how="rename")
        entry = await next_event(entries, Event.CONFIG_INVALID)
    _show(entry.text)
    _check("golb" in entry.text, "the error does not show the mistake")
    _check(bool(node.kubelet.devices(CAMERA).healthy), "the last good configuration does not stay in force")
    async with _step("and mends it"):
        node.write_config(WITH_CAMERA, how="rename")
        await next_event(entries, Event.CONFIG_UNCHANGED)
    _show("the file says again what is in force; no stream was touched")


@asynccontextmanager
async def _step(text: str) -> AsyncIterator[None]:
    print(f"\n→ {text}", flush=True)
    started = time.perf_counter()
    yield
    print(f"  ✓ {1000 * (time.perf_counter() - started):.0f} ms", flush=True)


def _show(text: str) -> None:
    print("\n".join(f"    {line}" for line in text.splitlines()), flush=True)


def _check(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - an assertion
    if not holds:
        raise StepFailedError(otherwise)
