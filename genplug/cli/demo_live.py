"""``genplug demo``: a table that follows every change, and commands to try in a second terminal."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from genplug.agent import Agent
from genplug.cli.demo_node import SERIAL, format_devices, make_demo_node
from genplug.cli.demo_recipe import describe_fault, get_settings, make_recipe_node
from genplug.cli.output import clear_terminal
from genplug.observe.events import Event, LogEvent
from genplug.recipes.catalog import Recipe
from genplug.testing.machines.catalog import Case, MachineChanges, select_faults
from genplug.testing.node.fake_node import FakeNode

_MAX_LOG_LINES = 8
_QUIET_SECONDS = 0.05
"""Time without another event after which the table is drawn."""
_EXAMPLE = "/dev/ttyUSB1"
_HIDDEN_EVENTS = (Event.LIST_SENT, Event.ENDPOINT_PHASE_CHANGED, Event.CONFIG_UNCHANGED)


def play(recipe: Recipe | None = None) -> int:
    """Show the table until Ctrl-C, and return the exit code."""
    with suppress(KeyboardInterrupt):
        asyncio.run(_play(recipe))
    print("\nThe demo has removed its directory. Next: docs/get-started/first-device.md, `genplug run --help`.")
    return 0


async def _play(recipe: Recipe | None) -> None:
    node = make_demo_node() if recipe is None else make_recipe_node(recipe)
    settings = {} if recipe is None else get_settings(node, recipe)
    async with node, node.run_agent(**settings) as agent:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, _restart_kubelet, node)
        faults = _Faults(node, select_faults(recipe.kind) if recipe is not None else ())
        recent = _RecentEvents()
        loop.add_signal_handler(signal.SIGUSR2, faults.switch, recent)
        agent.event_log.listen(recent.add)
        while True:
            _draw(node, agent, recent, faults)
            await recent.wait()


class _Faults:
    """Causes the faults of a machine one after the other, and ends each of them."""

    def __init__(self, node: FakeNode, cases: Sequence[Case]) -> None:
        self.cases = cases
        self._changes = MachineChanges(node)
        self._active: Case | None = None
        self._count = 0

    def switch(self, recent: "_RecentEvents") -> None:
        """End the fault that is active, or cause the next fault."""
        if not self.cases:
            return
        if self._active is not None:
            self._changes.restore()
            self._changes.apply(self._active.get("recovery", {}))
            self._active = None
            recent.add_line("demo: the fault has ended")
            return
        self._active = self.cases[self._count % len(self.cases)]
        self._count += 1
        self._changes.apply(self._active)
        recent.add_line(f"demo: {describe_fault(self._active)}")


class _RecentEvents:
    """The last lines of the log."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._has_event = asyncio.Event()

    def add(self, log_event: LogEvent) -> None:
        """Add a log event."""
        if log_event.event not in _HIDDEN_EVENTS:
            self.lines = [*self.lines, *log_event.text.splitlines()][-_MAX_LOG_LINES:]
        self._has_event.set()

    def add_line(self, text: str) -> None:
        """Add a line that is not an event of the agent."""
        self.lines = [*self.lines, text][-_MAX_LOG_LINES:]
        self._has_event.set()

    async def wait(self) -> None:
        """Wait for an event, and for the events that follow it closely."""
        await self._has_event.wait()
        await asyncio.sleep(_QUIET_SECONDS)
        self._has_event.clear()


_restarts: set["asyncio.Task[None]"] = set()


def _restart_kubelet(node: FakeNode) -> None:
    task = asyncio.get_running_loop().create_task(node.kubelet.restart())
    _restarts.add(task)
    task.add_done_callback(_restarts.discard)


def _draw(node: FakeNode, agent: Agent, recent: _RecentEvents, faults: _Faults) -> None:
    clear_terminal()
    print("genplug demo: the real agent on a simulated node. Ctrl-C ends the demo.\n")
    print(format_devices(agent.status))
    print("\n" + "\n".join(f"  {line}" for line in recent.lines) + "\n")
    print(_suggestions(node, agent, has_faults=bool(faults.cases)), flush=True)


def _find_command() -> str:
    """Return how a shell runs genplug: the name if it is in PATH, else the path of this program or of Python."""
    started = Path(sys.argv[0])
    if started.name != "genplug":
        return f"{sys.executable} -m genplug"
    found = shutil.which("genplug")
    return "genplug" if found is not None and Path(found).resolve() == started.resolve() else str(started.absolute())


def _suggestions(node: FakeNode, agent: Agent, *, has_faults: bool) -> str:
    config = node.config_dir / "genplug.yaml"
    policy = node.directory / "policy.yaml"
    resource, path = _find_example(agent)
    suggestions = [
        (f"mv {node.locate(path)} {node.root}", "unplug a device"),
        (f"mv {node.root / Path(path).name} {node.locate(path).parent}", "plug it in again: it has the same ID"),
        (f"$EDITOR {config}", "edit the configuration; an error appears here"),
        (f"kill -USR1 {os.getpid()}", "restart the kubelet"),
    ]
    if has_faults:
        suggestions.append((f"kill -USR2 {os.getpid()}", "cause the next fault of the hardware, or end it"))
    limits = f" --policy {policy}" if policy.is_file() else ""
    suggestions.append(
        (f"{_find_command()} plan --root {node.root} --config {config}{limits} --allocate {resource}=1", "")
    )
    lines = (f"  {command:<56}  {effect}".rstrip() for command, effect in suggestions)
    return "Try in a second terminal:\n" + "\n".join(lines)


def _find_example(agent: Agent) -> tuple[str, str]:
    """Return a resource and a path of one of its devices, preferably a device node."""
    found = [(resource.name, device.paths[0]) for resource in agent.status.resources for device in resource.devices]
    found.sort(key=lambda example: (example[1] != _EXAMPLE, not example[1].startswith("/dev/")))
    return found[0] if found else (SERIAL, _EXAMPLE)
