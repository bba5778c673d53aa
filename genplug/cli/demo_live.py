"""``genplug demo``: the table that follows every change, and what to try from a second terminal."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from genplug.agent import Agent
from genplug.cli.demo_node import SERIAL, demo_node, status_table
from genplug.observe.events import Event, LogEvent
from genplug.testing.node.fake_node import FakeNode

_MAX_NEWS = 8
_SETTLED = 0.05
"""Seconds of quiet before the table is drawn again."""


def play() -> int:
    """Show the table until Ctrl-C, and return the exit code."""
    with suppress(KeyboardInterrupt):
        asyncio.run(_play())
    print("\nThe demo's directory is removed. Next: README.md, `genplug validate --help`, `genplug run --help`.")
    return 0


async def _play() -> None:
    async with demo_node() as node, node.run_agent() as agent:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _restart_kubelet, node)
        news = _News()
        agent.event_log.listen(news.hear)
        while True:
            _draw(node, agent, news)
            await news.settled()


class _News:
    """The newest log lines, and the event that there are more."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._heard = asyncio.Event()

    def hear(self, entry: LogEvent) -> None:
        """Take note of a log entry."""
        if entry.event not in (Event.LIST_SENT, Event.ENDPOINT_PHASE_CHANGED, Event.CONFIG_UNCHANGED):
            self.lines = [*self.lines, *entry.text.splitlines()][-_MAX_NEWS:]
        self._heard.set()

    async def settled(self) -> None:
        """Return when something was heard and what came with it has been heard too."""
        await self._heard.wait()
        await asyncio.sleep(_SETTLED)
        self._heard.clear()


_restarts: set["asyncio.Task[None]"] = set()


def _restart_kubelet(node: FakeNode) -> None:
    task = asyncio.get_running_loop().create_task(node.kubelet.restart())
    _restarts.add(task)
    task.add_done_callback(_restarts.discard)


def _draw(node: FakeNode, agent: Agent, news: _News) -> None:
    if sys.stdout.isatty():
        print("\033[2J\033[H", end="")
    print("genplug demo: a make-believe node, the real agent, a stand-in for the kubelet. Ctrl-C ends it.\n")
    print(status_table(agent.status))
    print("\n" + "\n".join(f"  {line}" for line in news.lines) + "\n")
    print(_what_to_try(node), flush=True)


def _what_to_try(node: FakeNode) -> str:
    config = node.config_dir / "genplug.yaml"
    genplug = Path(sys.argv[0]).name if Path(sys.argv[0]).name == "genplug" else f"{sys.executable} -m genplug"
    tries = (
        (f"rm {node.locate('/dev/ttyUSB1')}", "unplug a device"),
        (f"echo 'char 188:1' > {node.locate('/dev/ttyUSB1')}", "plug it in again: the same ID"),
        (f"$EDITOR {config}", "edit the configuration; break it, and read the error here"),
        (f"kill -USR1 {os.getpid()}", "restart the kubelet"),
        (f"{genplug} plan --root {node.root} --config {config} --allocate {SERIAL}=2", ""),
    )
    return "Try, in a second terminal:\n" + "\n".join(f"  {command:<56}  {why}".rstrip() for command, why in tries)
