"""``genplug demo --script``: a sequence of events; the result of each step is checked and printed."""

import asyncio
import sys
from contextlib import AsyncExitStack

from genplug.agent import Agent
from genplug.cli.demo_node import CAMERA, FUSE, INVALID, SERIAL, WITH_CAMERA, format_devices, make_demo_node
from genplug.cli.demo_steps import StepFailedError, check, show, step
from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode


def play() -> int:
    """Play the sequence, and return 0 if every step had the expected result, else 1."""
    try:
        asyncio.run(_play())
    except (StepFailedError, TimeoutError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    print("\nEvery step succeeded. Run `genplug demo` to try it by hand.")
    return 0


async def _play() -> None:
    async with make_demo_node() as node:
        kubelet = node.kubelet
        async with AsyncExitStack() as started:
            agent = await started.enter_async_context(node.run_agent())
            async with step("the agent starts and registers its resources with the kubelet"):
                await kubelet.wait_for_list(SERIAL, lambda devices: len(devices.healthy) == 3)  # noqa: PLR2004 - as plugged
                await kubelet.wait_for_list(FUSE, lambda devices: len(devices.healthy) == 3)  # noqa: PLR2004 - as configured
            show(format_devices(agent.status))
            used = await _allocate(node)
            await _replug(node, agent, used)
            await _reload(node, agent)
            async with step("the kubelet restarts and removes all sockets"):
                registrations = len(kubelet.registrations)
                await kubelet.restart()
                await kubelet.wait_for(lambda: len(kubelet.registrations) == registrations + 3)
                await kubelet.wait_for_list(CAMERA, lambda devices: len(devices.healthy) == 1)
            show("each resource is registered again, once")
            async with step("the agent stops"):
                await started.aclose()
                await kubelet.wait_for(lambda: kubelet.stream_count(SERIAL) == 0)
        sockets = sorted(path.name for path in kubelet.plugins_dir.glob("genplug-*"))
        check(not sockets, f"the agent did not remove its sockets: {sockets}")
        show("the agent has removed its sockets")


async def _allocate(node: FakeNode) -> str:
    """Allocate a serial adapter, and return its ID."""
    async with step(f"a pod requests one {SERIAL}"):
        allocation = await node.kubelet.admit(SERIAL, 1, pod="demo")
        response = await node.kubelet.plugin(SERIAL).allocate([allocation.ids])
    container = response.container_responses[0]
    device = container.devices[0]
    show(f"{allocation.ids[0]}: {device.host_path} ({device.permissions}), env {dict(container.envs)}")
    check(container.envs["SERIAL_PORTS"] == device.host_path, "SERIAL_PORTS is not the path of the device")
    return allocation.ids[0]


async def _replug(node: FakeNode, agent: Agent, used: str) -> None:
    ids = {
        path: device.id for resource in agent.status.resources for device in resource.devices for path in device.paths
    }
    path = next(path for path, device_id in ids.items() if path.startswith("/dev/ttyUSB") and device_id != used)
    async with step(f"{path} is unplugged"):
        node.unplug(path)
        await node.kubelet.wait_for_list(SERIAL, lambda devices: ids[path] in devices.unhealthy)
    show(format_devices(agent.status))
    async with step(f"{path} is plugged in again"):
        node.plug(path)
        await node.kubelet.wait_for_list(SERIAL, lambda devices: ids[path] in devices.healthy)
    show(f"the device is healthy again, with the same ID: {ids[path]}")


async def _reload(node: FakeNode, agent: Agent) -> None:
    async with step("the configuration gets another resource"):
        node.write_config(WITH_CAMERA, how="rename")
        await node.kubelet.wait_for_list(CAMERA, lambda devices: len(devices.healthy) == 1)
    show(f"{CAMERA} is registered; the streams of the other resources remain open")
    async with step("the configuration becomes invalid"):
        log_events = record_events(agent)
        node.write_config(INVALID, how="rename")
        log_event = await next_event(log_events, Event.CONFIG_INVALID)
    show(log_event.text)
    check("golb" in log_event.text, "the error does not contain the invalid key")
    check(bool(node.kubelet.devices(CAMERA).healthy), "the last valid configuration is not active")
    async with step("the configuration is corrected"):
        node.write_config(WITH_CAMERA, how="rename")
        await next_event(log_events, Event.CONFIG_UNCHANGED)
    show("the files match the active configuration again; every stream remains open")
