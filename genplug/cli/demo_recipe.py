"""``genplug demo RECIPE``: the simulated machine of a recipe, and ``--script``: what happens to its devices."""

import asyncio
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Any

from genplug.agent import Agent
from genplug.cli.demo_node import format_devices
from genplug.cli.demo_steps import StepFailedError, check, show, step
from genplug.cli.output import wrap_line
from genplug.observe.events import LogEvent
from genplug.observe.status import DeviceStatus, ResourceStatus
from genplug.observe.text import join_names
from genplug.recipes.catalog import Recipe
from genplug.recipes.policies import find_policy_text
from genplug.testing.kubelet import Allocation
from genplug.testing.machines.catalog import Case, MachineChanges, build_machine, render_fast_config, select_faults
from genplug.testing.node.fake_node import FakeNode

_TIMEOUT_SECONDS = 15.0
_RESCAN_SECONDS = 0.5
"""The demo removes directories of /sys, about which the agent does not receive events."""
_MAX_ROWS = 12
"""Rows of a table; a recipe can have many devices."""


def make_recipe_node(recipe: Recipe) -> FakeNode:
    """Return a node with the machine of a recipe, the recipe as configuration, and a kernel log."""
    node = FakeNode(stand_ins=True)
    build_machine(recipe.kind, node.root)
    node.write_kernel_log("")
    node.write_config(render_fast_config(recipe.text), how="rename")
    return node


def get_settings(node: FakeNode, recipe: Recipe) -> dict[str, Any]:
    """Return the settings of the agent for a recipe; write the policy of the recipe, if it has one."""
    settings: dict[str, Any] = {"rescan_seconds": _RESCAN_SECONDS, "node_name": "demo"}
    if text := find_policy_text(recipe):
        path = node.directory / "policy.yaml"
        path.write_text(text)
        settings["policy"] = path
    return settings


def describe_fault(case: Case) -> str:
    """Return the fault of a case as a clause."""
    sentence = str(case["fault"])
    is_name = sentence[1:2].isupper()
    return sentence if is_name else f"{sentence[:1].lower()}{sentence[1:]}"


class Unplugged:
    """The candidates of a device, moved away as if the device was unplugged."""

    def __init__(self, node: FakeNode, device: DeviceStatus) -> None:
        self._moved: list[tuple[Path, Path]] = []
        locations = [node.locate(path) for path in device.paths]
        # The target of a link in /dev is the device node.
        links = [path for path in locations if path.is_symlink() and path.is_relative_to(node.locate("/dev"))]
        directory = node.directory / "unplugged"
        directory.mkdir(exist_ok=True)
        for number, location in enumerate(dict.fromkeys((*locations, *(path.resolve() for path in links)))):
            stored = directory / str(number)
            location.rename(stored)
            self._moved.append((location, stored))

    def plug(self) -> None:
        """Move the candidates back, the targets of links first."""
        for location, stored in reversed(self._moved):
            stored.rename(location)


def play(recipe: Recipe) -> int:
    """Play the sequence, and return 0 if every step had the expected result, else 1."""
    try:
        asyncio.run(play_script(recipe))
    except (StepFailedError, TimeoutError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    print(f"\nEvery step succeeded. Run `genplug demo {recipe.kind}` to try it by hand.")
    return 0


async def play_script(recipe: Recipe) -> None:
    """Play the events of a recipe.

    Raises:
        StepFailedError, TimeoutError: a step did not have the expected result.
    """
    async with make_recipe_node(recipe) as node:
        settings = get_settings(node, recipe)
        async with node.run_agent(**settings) as agent:
            async with step(f"the agent starts on a machine with: {recipe.summary.removesuffix('.')}"):
                await _wait(agent, lambda: agent.status.is_ready and _has_devices(agent), "healthy devices")
            show(_cut(format_devices(agent.status)))
            resource = next(resource for resource in agent.status.resources if resource.healthy)
            async with step(f"a pod requests one {resource.name}"):
                await node.kubelet.wait_for_list(resource.name, lambda devices: bool(devices.healthy))
                allocation = await node.kubelet.admit(resource.name, 1, pod="demo")
            show(_cut(format_allocation(allocation)))
            for case in select_faults(recipe.kind)[:1]:
                await _play_fault(node, agent, case)
            await _replug(node, agent, resource.name)
        sockets = sorted(path.name for path in node.kubelet.plugins_dir.glob("genplug-*"))
        check(not sockets, f"the agent did not remove its sockets: {sockets}")


def format_allocation(allocation: Allocation) -> str:
    """Return what a container receives, as lines."""
    response = allocation.response
    lines = [f"{', '.join(allocation.ids)}:"]
    for device in response.devices:
        where = f" as {device.container_path}" if device.container_path != device.host_path else ""
        lines.append(f"  device node {device.host_path}{where} ({device.permissions})")
    lines += [
        f"  mount {mount.host_path} at {mount.container_path} ({'ro' if mount.read_only else 'rw'})"
        for mount in response.mounts
    ]
    lines += [f"  environment {name}={value}" for name, value in sorted(response.envs.items())]
    lines += [f"  annotation {key}={value}" for key, value in sorted(response.annotations.items())]
    lines += [f"  CDI device {device.name}" for device in response.cdi_devices]
    return "\n".join(map(wrap_line, lines))


async def _play_fault(node: FakeNode, agent: Agent, case: Case) -> None:
    changes = MachineChanges(node)

    def is_affected(device: DeviceStatus) -> bool:
        return any(fnmatchcase(device.id, pattern) for pattern in case["unhealthy"])

    def is_expected() -> bool:
        unhealthy = {device.id for device in _list_devices(agent) if not device.healthy}
        return bool(unhealthy) and unhealthy == {device.id for device in _list_devices(agent) if is_affected(device)}

    async with step(describe_fault(case)):
        changes.apply(case)
        await _wait(agent, is_expected, f"unhealthy devices {', '.join(case['unhealthy'])}")
    show(_list_unhealthy(agent))
    if "lasts" in case:
        show(f"(the devices remain unhealthy for {case['lasts']})")
        return
    async with step("the fault ends"):
        changes.restore()
        changes.apply(case.get("recovery", {}))
        await _wait(agent, lambda: all(device.healthy for device in _list_devices(agent)), "only healthy devices")
    show("every device is healthy")


async def _replug(node: FakeNode, agent: Agent, resource: str) -> None:
    device = next(device for device in _find(agent, resource).devices if device.healthy)

    def get_device() -> DeviceStatus | None:
        return next((each for each in _find(agent, resource).devices if each.id == device.id), None)

    def is_healthy() -> bool:
        found = get_device()
        return found is not None and found.healthy

    async with step(f"{device.id} is unplugged: {join_names(device.paths)}"):
        unplugged = Unplugged(node, device)
        await _wait(agent, lambda: not is_healthy(), f"{device.id} as unhealthy")
    show(_list_unhealthy(agent))
    async with step(f"{device.id} is plugged in again"):
        unplugged.plug()
        await _wait(agent, is_healthy, f"{device.id} as healthy")
    show(f"the device is healthy again, with the same ID: {device.id}")


async def _wait(agent: Agent, condition: Callable[[], bool], expected: str) -> None:
    """Wait until a condition on the status of the agent is true; an event is logged for each change of the status."""
    changed = asyncio.Event()

    def notify(_log_event: LogEvent) -> None:
        changed.set()

    agent.event_log.listen(notify)
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while not condition():
                await changed.wait()
                changed.clear()
    except TimeoutError:
        raise TimeoutError(f"expected {expected}, found:\n{format_devices(agent.status)}") from None


def _find(agent: Agent, name: str) -> ResourceStatus:
    return next(resource for resource in agent.status.resources if resource.name == name)


def _list_devices(agent: Agent) -> list[DeviceStatus]:
    return [device for resource in agent.status.resources for device in resource.devices]


def _has_devices(agent: Agent) -> bool:
    devices = _list_devices(agent)
    return bool(devices) and all(device.healthy for device in devices)


def _list_unhealthy(agent: Agent) -> str:
    """Return a line for each unhealthy device, with the reason."""
    lines = []
    for resource in agent.status.resources:
        unhealthy = [device for device in resource.devices if not device.healthy]
        for (_, reason), group in groupby(unhealthy, lambda device: (device.paths, device.reason)):
            names = [device.id for device in group]
            verb = "is" if len(names) == 1 else "are"
            lines.append(f"{resource.name}: {join_names(names)} {verb} unhealthy: {reason}")
    return _cut("\n".join(map(wrap_line, lines)))


def _cut(table: str) -> str:
    lines = table.splitlines()
    more = len(lines) - _MAX_ROWS
    return "\n".join(lines[:_MAX_ROWS]) + (f"\nand {more} more lines" if more > 0 else "")
