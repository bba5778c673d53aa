"""A node with devices, and a real ``genplug run`` process on it; the kubelet's stand-in lives in this process."""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from genplug.testing.node.fake_node import FakeNode

SETTLED = 1.3
"""Seconds without changes after which a change is the first of a burst; in a burst, scans are a second apart."""
_LONG = 180.0


class Node(Struct, frozen=True):
    """A fake node with ``resources`` resources of ``each`` devices, configured as by a ConfigMap."""

    fake: FakeNode
    resources: tuple[str, ...]
    each: int

    def device(self, resource: int, number: int) -> str:
        return f"/dev/acc{resource}-{number}"

    def configure(self, *, replicas: int = 1) -> None:
        """Write the configuration; ``replicas`` are those of the first resource."""
        lines = ["apiVersion: genplug.io/v1alpha1", "kind: DevicePluginConfig", "resources:"]
        for number, name in enumerate(self.resources):
            lines += [f"  {name}:", f"    devices: [{{glob: '/dev/acc{number}-*'}}]"]
            lines += ['    allocate: {env: {ACCELERATORS: "${path}"}}', "    health: {removalGracePeriodSeconds: 3600}"]
            lines += [f"    replicas: {replicas if number == 0 else 1}"]
        self.fake.write_config("\n".join(lines) + "\n", how="configmap")

    async def listed(self, since: float) -> float:
        """Wait for the complete lists of all resources; return the time of the last, in seconds after ``since``."""
        kubelet, missing = self.fake.kubelet, list(self.resources)

        def is_complete() -> bool:
            # Only one resource is examined for most lists: with 300 resources, examining all would be much of the time.
            while missing and len(kubelet.devices(missing[-1])) == self.each:
                missing.pop()
            return not missing

        await kubelet.wait_for(is_complete, _LONG)
        return max(kubelet.messages(resource)[-1].time for resource in self.resources) - since

    async def arrived(self, number: int, since: float) -> float:
        """Wait for list ``number`` of the first resource; return its time, in seconds after ``since``."""
        kubelet, resource = self.fake.kubelet, self.resources[0]
        await kubelet.wait_for(lambda: len(kubelet.messages(resource)) >= number, _LONG)
        return kubelet.messages(resource)[number - 1].time - since


@asynccontextmanager
async def node(resources: int = 10, each: int = 100) -> AsyncIterator[Node]:
    names = tuple(f"example.com/accelerator-{number}" for number in range(resources))
    async with FakeNode() as fake:
        made = Node(fake, names, each)
        for resource in range(resources):
            for number in range(each):
                fake.plug(made.device(resource, number))
        made.configure()
        await fake.kubelet.start()
        yield made


class Agent(Struct, frozen=True):
    """A running process; ``started`` is the monotonic time before its start."""

    pid: int
    started: float

    @property
    def proc(self) -> Path:
        """The directory of the process in procfs."""
        return Path("/proc", str(self.pid))

    def footprint(self) -> dict[str, float]:
        """Return the memory of the process (MiB), by the name of the figure."""
        kib = {line.split()[0]: int(line.split()[1]) for line in _lines(self.proc / "smaps_rollup") if " kB" in line}
        return {
            "RSS": kib["Rss:"] / 1024,
            "anonymous memory": kib["Anonymous:"] / 1024,
            "threads": len(list((self.proc / "task").iterdir())),
            "file descriptors": len(list((self.proc / "fd").iterdir())),
        }

    def cpu_seconds(self) -> float:
        """Return the processor time of the process, including threads that have ended (clock_getcpuclockid(3))."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def threads(self) -> tuple[Path, ...]:
        """Return the directories of the living threads."""
        return tuple((self.proc / "task").iterdir())

    def wakeups(self, threads: Iterable[Path]) -> int:
        """Return the voluntary context switches of living threads."""
        lines = [line for thread in threads for line in _lines(thread / "status")]
        return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


@asynccontextmanager
async def agent(
    node: Node,
    *flags: str,
    program: tuple[str, ...] = ("genplug",),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Agent]:
    """Run an agent with the defaults of production, its log (JSON, level info) to a file.

    ``program`` is another module that runs genplug, with its first arguments. ``environment`` has variables in addition
    to those of this process.
    """
    fake = node.fake
    where = {"--config": fake.config_dir, "--root": fake.root, "--kubelet-dir": fake.kubelet_dir}
    command = [sys.executable, "-m", *program, "run", *flags]
    for flag, path in where.items():
        command += [flag, str(path)]
    with (fake.directory / "log").open("ab") as log:
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(*command, stderr=log, env={**os.environ, **environment})
    try:
        yield Agent(process.pid, started)
    except TimeoutError as error:
        raise RuntimeError(f"{error}; the agent's log ends with\n{_last_words(fake)}") from error
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        code = await process.wait()
    if code:
        raise RuntimeError(f"genplug run ended with {code}:\n{_last_words(fake)}")


@asynccontextmanager
async def as_installed() -> AsyncIterator[None]:
    """Give the processes started in this context compiled modules and no settings of this shell."""
    with tempfile.TemporaryDirectory(prefix="gp") as directory:
        for name in ("PYTHONDONTWRITEBYTECODE", *(name for name in os.environ if name.startswith("GENPLUG_"))):
            os.environ.pop(name, None)
        os.environ["PYTHONPYCACHEPREFIX"] = directory
        async with node(1, 1) as small, agent(small, "--listen", "127.0.0.1:0") as process:
            await small.listed(process.started)
        yield


def _last_words(fake: FakeNode) -> str:
    return (fake.directory / "log").read_text()[-2000:]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
