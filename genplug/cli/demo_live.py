"""``genplug demo``: a table that follows every change, and commands to try in a second terminal."""

import asyncio
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

from genplug.agent import Agent
from genplug.cli.demo_node import SERIAL, format_devices, make_demo_node
from genplug.cli.output import clear_terminal
from genplug.observe.events import Event, LogEvent
from genplug.testing.node.fake_node import FakeNode

_MAX_LOG_LINES = 8
_QUIET_SECONDS = 0.05
"""Time without another event after which the table is drawn."""
_HIDDEN_EVENTS = (Event.LIST_SENT, Event.ENDPOINT_PHASE_CHANGED, Event.CONFIG_UNCHANGED)


def play() -> int:
    """Show the table until Ctrl-C, and return the exit code."""
    with suppress(KeyboardInterrupt):
        asyncio.run(_play())
    print("\nThe demo has removed its directory. Next: docs/get-started/first-device.md, `genplug run --help`.")
    return 0


async def _play() -> None:
    async with make_demo_node() as node, node.run_agent() as agent:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _restart_kubelet, node)
        recent = _RecentEvents()
        agent.event_log.listen(recent.add)
        while True:
            _draw(node, agent, recent)
            await recent.wait()


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


def _draw(node: FakeNode, agent: Agent, recent: _RecentEvents) -> None:
    clear_terminal()
    print("genplug demo: the real agent on a simulated node. Ctrl-C ends the demo.\n")
    print(format_devices(agent.status))
    print("\n" + "\n".join(f"  {line}" for line in recent.lines) + "\n")
    print(_suggestions(node), flush=True)


def _find_command() -> str:
    """Return how a shell runs genplug: the name if it is in PATH, else the path of this program or of Python."""
    started = Path(sys.argv[0])
    if started.name != "genplug":
        return f"{sys.executable} -m genplug"
    found = shutil.which("genplug")
    return "genplug" if found is not None and Path(found).resolve() == started.resolve() else str(started.absolute())


def _suggestions(node: FakeNode) -> str:
    config = node.config_dir / "genplug.yaml"
    suggestions = (
        (f"mv {node.locate('/dev/ttyUSB1')} {node.root}", "unplug a device"),
        (f"mv {node.locate('/ttyUSB1')} {node.locate('/dev')}", "plug it in again: it has the same ID"),
        (f"$EDITOR {config}", "edit the configuration; an error appears here"),
        (f"kill -USR1 {os.getpid()}", "restart the kubelet"),
        (f"{_find_command()} plan --root {node.root} --config {config} --allocate {SERIAL}=2", ""),
    )
    lines = (f"  {command:<56}  {effect}".rstrip() for command, effect in suggestions)
    return "Try in a second terminal:\n" + "\n".join(lines)
