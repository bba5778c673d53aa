"""A machine of the test's own: mounts, processes and network apart from the real one, gone with its first process.

A kubelet writes to places that are compiled into it (``/var/lib/kubelet/device-plugins``) or agreed upon (``/run``,
``/var/log/pods``). In a mount namespace these are directories of the test; in a process namespace everything that was
started, shims and containers included, ends with the first process; in a network namespace ports are free.
"""

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

_NODES = ("fuse", "kvm", "kmsg", "null", "zero", "full", "random", "urandom", "tty", "net/tun")
"""What of the real ``/dev`` the machine has, where it is there."""
_OWN = {"dev": "/dev", "kubelet": "/var/lib/kubelet", "cni": "/var/lib/cni", "run": "/run", "log": "/var/log"}
"""Directories of the machine, and where its processes see them."""
_KERNEL = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
"""Settings of the whole kernel that a kubelet changes, and that are put back."""
ADDRESS = "10.76.0.1"
"""The machine's own, on a network that leads nowhere."""
_APART = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
_INIT = """
set -e
mount --make-rshared /
mount -t tmpfs none /var/lib
mkdir -p {targets}
{binds}
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666 none /dev/pts
mount -t tmpfs none /dev/shm
ln -sf pts/ptmx /dev/ptmx
ip link set lo up
ip link add node type bridge
ip address add {address}/24 dev node
ip link set node up
ip route add default dev node
trap '' CHLD
echo up
exec sleep infinity
"""


class ProgramEndedError(Exception):
    """A program of the machine ended by itself; the text is the end of its log."""


class Program:
    """One running program of the machine, with its log."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self.log = log

    def until(self, holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Wait until something holds that the program brings about.

        Raises:
            ProgramEndedError: the program ended.
            TimeoutError: it did not hold in time.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            if self._process.poll() is not None:
                raise ProgramEndedError(f"{self.name} ended with {self._process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: {what} not within {seconds} s:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self, lines: int = 30) -> str:
        """Give the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal and wait for the end (nsenter passes none on: the child is told)."""
        for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            os.kill(int(child), number)
        self._process.wait(30)


class Machine:
    """Namespaces and directories; a context manager, and nothing of it is left afterwards.

    ``directory`` is where everything lies; ``dev``, ``kubelet``, ``run`` and ``log`` in it are the machine's own.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.dev = directory / "dev"
        self.kubelet = directory / "kubelet"
        self._programs: list[Program] = []

    def __enter__(self) -> Self:
        self._kernel = {name: Path("/proc/sys", name).read_text() for name in _KERNEL}
        self._groups = _control_groups()
        for name in _OWN:
            (self.directory / name).mkdir(parents=True)
        for name in _NODES:
            if (real := Path("/dev", name)).exists():
                self.plug(f"/dev/{name}", real.stat().st_rdev)
        binds = "\n".join(f"mount --rbind {self.directory}/{name} {target}" for name, target in _OWN.items())
        script = _INIT.format(targets=" ".join(_OWN.values()), binds=binds, address=ADDRESS)
        self._init = subprocess.Popen(
            [*_APART, "sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=(self.directory / "machine.log").open("w"),
            text=True,
        )
        assert self._init.stdout
        if self._init.stdout.readline() != "up\n":
            raise ProgramEndedError(f"the machine did not come up: {self._init.wait()}")
        return self

    def __exit__(self, *_: object) -> None:
        # The kernel lets the first process of a namespace go only after all the others.
        os.kill(self.first_process, signal.SIGKILL)
        self._init.wait()
        for name, value in self._kernel.items():
            Path("/proc/sys", name).write_text(value)
        for group in sorted(_control_groups() - self._groups, reverse=True):
            group.rmdir()
        shutil.rmtree(self.directory)

    @property
    def first_process(self) -> int:
        """Number of the machine's first process, as the real machine counts."""
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text()
        return int(children.split()[0])

    def command(self, arguments: Sequence[str | Path]) -> list[str]:
        """Make a command that runs in the machine."""
        return ["nsenter", "--target", str(self.first_process), "--mount", "--pid", "--net", "--uts", "--ipc", "--",
                *map(str, arguments)]  # fmt: skip

    def run(self, *arguments: str | Path, text: str | None = None, seconds: float = 120) -> str:
        """Run a command in the machine, give what it prints.

        Raises:
            subprocess.CalledProcessError: it failed; its notes hold what it said.
        """
        try:
            return subprocess.run(
                self.command(arguments), check=True, capture_output=True, text=True, input=text, timeout=seconds
            ).stdout
        except subprocess.CalledProcessError as error:
            error.add_note(f"{error.stdout}\n{error.stderr}")
            raise

    def start(self, name: str, *arguments: str | Path, environment: dict[str, str] | None = None) -> Program:
        """Start a program that stays; its log is ``<name>.log`` in the directory."""
        log = self.directory / f"{name}.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                self.command(arguments), stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                env=os.environ | (environment or {}),
            )  # fmt: skip
        program = Program(name, process, log)
        self._programs.append(program)
        return program

    def logs(self) -> str:
        """Give the ends of all logs, for a test that failed."""
        return "\n".join(f"--- {one.name}\n{one.tail()}" for one in self._programs)

    def plug(self, path: str, device: int) -> None:
        """Make a character device node in the machine's ``/dev``."""
        node = self.directory / path.removeprefix("/")
        node.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(node, 0o666 | stat.S_IFCHR, device)
        node.chmod(0o666)

    def unplug(self, path: str) -> None:
        """Remove a device node."""
        (self.directory / path.removeprefix("/")).unlink()


def _control_groups() -> set[Path]:
    """All control groups of containerd: with the machine's processes its containers' groups are empty, not gone."""
    return set(Path("/sys/fs/cgroup").glob("*/k8s.io/**/")) | set(Path("/sys/fs/cgroup").glob("*/k8s.io/"))
