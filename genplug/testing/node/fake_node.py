"""A fake node: a directory with devices, a configuration and a kubelet, on which genplug's agent runs in this process.

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
"""The default major number of devices, the first number that Linux reserves for local and experimental use."""

_TYPES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK}


class FakeNode:
    """A node in ``directory``: the root of the host, the kubelet's directory and the directory of the configuration.

    Without ``directory``, the node creates a directory with a short path (the path of a socket has at most 107 bytes)
    and removes it at the end. Devices are device nodes if this process can create them, otherwise stand-in files;
    ``stand_ins`` overrides this.
    """

    def __init__(
        self, directory: Path | None = None, *, version: tuple[int, int] = (1, 32), stand_ins: bool | None = None
    ) -> None:
        self._owns_directory = directory is None
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
        """Stop the kubelet, and remove the directory if the node created it."""
        await self.kubelet.stop()
        if self._log is not None:
            os.close(self._log)
        if self._owns_directory:
            shutil.rmtree(self.directory)

    def locate(self, path: str) -> Path:
        """Return the location of a path of the host."""
        return self.root / path.lstrip("/")

    def plug(
        self,
        path: str,
        *,
        major: int | None = None,
        minor: int | None = None,
        kind: Literal["char", "block"] = "char",
    ) -> None:
        """Create a device node atomically. By default, each path has its own numbers, also when it is plugged again."""
        assigned = self._numbers.get(path, (MAJOR, len(self._numbers)))
        numbers = (assigned[0] if major is None else major, assigned[1] if minor is None else minor)
        self._numbers[path] = numbers
        location = self.locate(path)
        location.parent.mkdir(parents=True, exist_ok=True)
        if self.stand_ins:
            new = self.directory / "new"
            new.write_text(f"{kind} {numbers[0]}:{numbers[1]}")
            new.rename(location)
        else:
            os.mknod(location, 0o660 | _TYPES[kind], os.makedev(*numbers))

    def unplug(self, path: str) -> None:
        """Delete a device node, a link or a file."""
        self.locate(path).unlink()

    def link(self, path: str, target: str) -> None:
        """Create or replace a symbolic link, as udev does; an absolute target is a path of the host."""
        location = self.locate(path)
        location.parent.mkdir(parents=True, exist_ok=True)
        location.unlink(missing_ok=True)
        location.symlink_to(target)

    def write(self, path: str, text: str) -> None:
        """Write a file of the host, for example a file in sysfs."""
        location = self.locate(path)
        location.parent.mkdir(parents=True, exist_ok=True)
        location.write_text(text)

    def write_kernel_log(self, *lines: str) -> None:
        """Add lines to the kernel log of the node; the first call creates it, as a pipe."""
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
        """Write a configuration file with a method of :mod:`~genplug.testing.node.config_files`; return its path."""
        path = self.config_dir / name
        WRITE_METHODS[how](path, text)
        return path

    @asynccontextmanager
    async def run_agent(self, config: str | None = None, **settings: Any) -> AsyncIterator["Agent"]:  # noqa: ANN401 - the types of Settings
        """Run genplug's agent on this node until the context ends; start the kubelet if it does not run.

        ``config`` is written first; ``settings`` are fields of :class:`genplug.agent.settings.Settings`. If the agent
        ends early, the body is canceled, and the context raises the error of the agent, or a RuntimeError.
        """
        # Imported here, because a test of another plugin uses the fixtures without the agent.
        from genplug.agent.agent import Agent  # noqa: PLC0415
        from genplug.agent.settings import Settings  # noqa: PLC0415

        if config is not None:
            self.write_config(config)
        if not self.kubelet.is_running:
            await self.kubelet.start()
        fields: dict[str, Any] = {"config": (self.config_dir,), "root": self.root, "kubelet_dir": self.kubelet_dir}
        agent = Agent(Settings(**(fields | settings)))
        stopping = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_run_until(agent, stopping))
                try:
                    yield agent
                finally:
                    stopping.set()
                    agent.stop()
        except BaseExceptionGroup as group:
            # A single error, of the test or of the agent, is raised without its group.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise


async def _run_until(agent: "Agent", stopping: asyncio.Event) -> None:
    await agent.run()
    if not stopping.is_set():
        raise RuntimeError("the agent ended before the context")


def _can_make_nodes(directory: Path) -> bool:
    probe = directory / "probe"
    try:
        os.mknod(probe, 0o600 | stat.S_IFCHR, os.makedev(MAJOR, 0))
    except OSError:
        return False
    probe.unlink()
    return True
