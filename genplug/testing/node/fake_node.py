"""A fake node: a directory with devices, a configuration and a kubelet, and genplug's agent run on it in this process.

async with FakeNode() as node:
    node.plug("/dev/x0")
    async with node.run_agent("..."):
        await node.kubelet.wait_for_list("example.com/x", healthy={...})
"""

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from genplug.hardware.host import STAND_INS_MARKER
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.config_files import WRITE_METHODS

if TYPE_CHECKING:
    from genplug.agent.agent import Agent

MAJOR = 240
"""The major number of devices that are given none: the first of those that Linux leaves to experiments."""

_TYPES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK}


class FakeNode:
    """A node under ``directory``: the host's root, the kubelet's directory and the directory of the configuration.

    Without a directory a short one is made (a socket's path has 107 bytes) and removed at the end. Devices are real
    nodes where this process may make them, else files that stand for them; ``stand_ins`` decides instead.
    """

    def __init__(
        self, directory: Path | None = None, *, version: tuple[int, int] = (1, 32), stand_ins: bool | None = None
    ) -> None:
        self._is_ours = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="gp", dir="/tmp"))
        self.root = self.directory / "r"
        self.kubelet_dir = self.directory / "k"
        self.config_dir = self.directory / "c"
        for path in (self.root / "dev", self.root / "sys", self.kubelet_dir, self.config_dir):
            path.mkdir(parents=True, exist_ok=True)
        self.stand_ins = not _can_make_nodes(self.directory) if stand_ins is None else stand_ins
        if self.stand_ins:
            (self.root / STAND_INS_MARKER).touch()
        self.kubelet = KubeletStandIn(self.kubelet_dir, version=version)
        self._numbers: dict[str, tuple[int, int]] = {}
        self._log: int | None = None
        self._lines = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop the kubelet; remove the directory if it was made here."""
        await self.kubelet.stop()
        if self._log is not None:
            os.close(self._log)
        if self._is_ours:
            shutil.rmtree(self.directory)

    def locate(self, path: str) -> Path:
        """Return where a path of the host lies."""
        return self.root / path.lstrip("/")

    def plug(
        self,
        path: str,
        *,
        major: int | None = None,
        minor: int | None = None,
        kind: Literal["char", "block"] = "char",
    ) -> None:
        """Let a device node appear, complete at once. Without numbers it gets its own, and the same ones again."""
        known = self._numbers.get(path, (MAJOR, len(self._numbers)))
        numbers = (known[0] if major is None else major, known[1] if minor is None else minor)
        self._numbers[path] = numbers
        location = self.locate(path)
        location.parent.mkdir(parents=True, exist_ok=True)
        if self.stand_ins:
            complete = self.directory / "plugging"
            complete.write_text(f"{kind} {numbers[0]}:{numbers[1]}")
            complete.rename(location)
        else:
            os.mknod(location, 0o660 | _TYPES[kind], os.makedev(*numbers))

    def unplug(self, path: str) -> None:
        """Let a device node, a link or a file disappear."""
        self.locate(path).unlink()

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link, as udev does; an absolute target is a path of the host."""
        location = self.locate(path)
        location.parent.mkdir(parents=True, exist_ok=True)
        location.unlink(missing_ok=True)
        location.symlink_to(target)

    def write(self, path: str, text: str) -> None:
        """Write a file of the host, for instance one of sysfs."""
        location = self.locate(path)
        location.parent.mkdir(parents=True, exist_ok=True)
        location.write_text(text)

    def write_kernel_log(self, *lines: str) -> None:
        """Let the kernel's log hold lines, or get more: a pipe stands for it, from the first call on."""
        if self._log is None:
            location = self.locate("/dev/kmsg")
            os.mkfifo(location)
            self._log = os.open(location, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        for line in lines:
            self._lines += bool(line)
            if line:
                os.write(self._log, f"4,{self._lines},0,-;{line}\n".encode())

    def write_config(
        self,
        text: str,
        name: str = "genplug.yaml",
        how: Literal["in_place", "rename", "editor", "configmap"] = "in_place",
    ) -> Path:
        """Write a file of the configuration in one of the ways of :mod:`~genplug.testing.node.config_files`."""
        path = self.config_dir / name
        WRITE_METHODS[how](path, text)
        return path

    @asynccontextmanager
    async def run_agent(self, config: str | None = None, **settings: Any) -> AsyncIterator["Agent"]:  # noqa: ANN401 - Settings' own
        """Run genplug's agent on this node, and the kubelet if it does not run yet.

        ``config`` is written first; ``settings`` are fields of :class:`genplug.agent.settings.Settings`. An agent that
        ends before its time cancels the body and raises what ended it.
        """
        # Imported here: a test of another plugin needs the node and not the agent.
        from genplug.agent.agent import Agent  # noqa: PLC0415
        from genplug.agent.settings import Settings  # noqa: PLC0415

        if config is not None:
            self.write_config(config)
        if not self.kubelet.is_running:
            await self.kubelet.start()
        chosen: dict[str, Any] = {"config": (self.config_dir,), "root": self.root, "kubelet_dir": self.kubelet_dir}
        agent = Agent(Settings(**(chosen | settings)))
        stopping = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_served(agent, stopping))
                try:
                    yield agent
                finally:
                    stopping.set()
                    agent.stop()
        except BaseExceptionGroup as group:
            # One failure, the test's or the agent's, is that failure and no group.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise


async def _served(agent: "Agent", stopping: asyncio.Event) -> None:
    await agent.run()
    if not stopping.is_set():
        raise RuntimeError("the agent ended before it was told to")


def _can_make_nodes(directory: Path) -> bool:
    trial = directory / "trial"
    try:
        os.mknod(trial, 0o600 | stat.S_IFCHR, os.makedev(MAJOR, 0))
    except OSError:
        return False
    trial.unlink()
    return True
