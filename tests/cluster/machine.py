"""A machine for a test: separate mount, process and network namespaces that end with their first process.

A kubelet writes to paths that are compiled into it (``/var/lib/kubelet/device-plugins``) or that are conventions
(``/run``, ``/var/log/pods``). In a mount namespace these are directories of the test. In a process namespace all
programs, including shims and containers, end with the first process. In a network namespace all ports are free.
"""

import errno
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
"""Device nodes of the host that the machine has too, if they exist."""
_OWN_DIRECTORIES = {
    "dev": "/dev",
    "kubelet": "/var/lib/kubelet",
    "cni": "/var/lib/cni",
    "run": "/run",
    "log": "/var/log",
}
"""Directories of the machine by name -> path at which its processes see them."""
_SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
"""Kernel parameters that a kubelet changes and that are restored afterwards."""
ADDRESS = "10.76.0.1"
"""Address of the machine, on a network without a route to other networks."""
SERVICE_NETWORK = "10.78.0.0/24"
"""Network of the services of the cluster."""
SERVICE_ADDRESS = "10.78.0.1"
"""Address of the service of the API server, which the machine has itself: there is no kube-proxy."""
_UNSHARE = [
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"),
]
"""The kernel ends the machine when the process that started it ends, also by a signal that Python does not handle."""
_INIT = """
set -e
mount --make-rshared /
mount -t tmpfs none /var/lib
mkdir -p {targets}
{binds}
# A sysfs of the network namespace of the machine, with the control groups of the host.
mkdir /var/lib/sys
mount --rbind /sys /var/lib/sys
mount --make-rprivate /var/lib/sys
mount -t sysfs none /sys
mount --rbind /var/lib/sys/fs/cgroup /sys/fs/cgroup
umount --lazy /var/lib/sys
rmdir /var/lib/sys
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666 none /dev/pts
mount -t tmpfs none /dev/shm
ln -sf pts/ptmx /dev/ptmx
ip link set lo up
ip link add node type bridge
ip address add {address}/24 dev node
ip address add {service}/32 dev node
ip link set node up
ip route add default dev node
trap '' CHLD
echo up
exec sleep infinity
"""


class ProgramEndedError(Exception):
    """A program of the machine ended unexpectedly; the text contains the end of its log."""


class Program:
    """A running program of the machine and its log."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self.log = log

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Poll until a condition that the program causes holds.

        Raises:
            ProgramEndedError: The program ended.
            TimeoutError: The condition did not hold in time.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            if self._process.poll() is not None:
                raise ProgramEndedError(f"{self.name} ended with {self._process.returncode}:\n{self.read_tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: {what} not within {seconds} s:\n{self.read_tail()}")
            time.sleep(0.05)

    def read_tail(self, lines: int = 30) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the program and wait until it has ended."""
        self.send(number)
        self._process.wait(30)

    def suspend(self) -> None:
        """Stop the program without its end."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue a program that is stopped, and nsenter, which stops with its child and continues it."""
        self._process.send_signal(signal.SIGCONT)
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program; nsenter, its parent, does not pass on signals."""
        for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            os.kill(int(child), number)


class Machine:
    """Namespaces and directories of a machine; leaving the context removes all of them.

    ``directory`` contains all files of the machine; ``dev``, ``kubelet``, ``run`` and ``log`` in it are mounted there.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.dev = directory / "dev"
        self.kubelet = directory / "kubelet"
        self.control_group = f"/{directory.name}"
        """The parent of the control groups of all containers."""
        self._programs: list[Program] = []

    def __enter__(self) -> Self:
        self._kernel = {name: Path("/proc/sys", name).read_text() for name in _SYSCTLS}
        for name in _OWN_DIRECTORIES:
            (self.directory / name).mkdir(parents=True)
        for name in _NODES:
            if (real := Path("/dev", name)).exists():
                self.plug(f"/dev/{name}", real.stat().st_rdev)
        binds = "\n".join(
            f"mount --rbind {self.directory}/{name} {target}" for name, target in _OWN_DIRECTORIES.items()
        )
        script = _INIT.format(
            targets=" ".join(_OWN_DIRECTORIES.values()), binds=binds, address=ADDRESS, service=SERVICE_ADDRESS
        )
        self._init = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=(self.directory / "machine.log").open("w"),
            text=True,
        )
        assert self._init.stdout
        if self._init.stdout.readline() != "up\n":
            raise ProgramEndedError(
                f"the first process of the machine ended with {self._init.wait()}; see {self.directory}/machine.log"
            )
        return self

    def __exit__(self, *_: object) -> None:
        # The first process of a process namespace ends after all other processes of the namespace.
        os.kill(self.first_process, signal.SIGKILL)
        self._init.wait()
        for name, value in self._kernel.items():
            Path("/proc/sys", name).write_text(value)
        for group in sorted(_list_control_groups(self.control_group), reverse=True):
            _remove_control_group(group)
        shutil.rmtree(self.directory)

    @property
    def first_process(self) -> int:
        """PID of the machine's first process in the namespace of the host."""
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text()
        return int(children.split()[0])

    def build_command(self, arguments: Sequence[str | Path]) -> list[str]:
        """Return the command line that runs a command in the machine."""
        return ["nsenter", "--target", str(self.first_process), "--mount", "--pid", "--net", "--uts", "--ipc", "--",
                *map(str, arguments)]  # fmt: skip

    def run(self, *arguments: str | Path, text: str | None = None, seconds: float = 120) -> str:
        """Run a command in the machine and return its output.

        Raises:
            subprocess.CalledProcessError: The command failed; the notes contain its output.
        """
        try:
            return subprocess.run(
                self.build_command(arguments), check=True, capture_output=True, text=True, input=text, timeout=seconds
            ).stdout
        except subprocess.CalledProcessError as error:
            error.add_note(f"{error.stdout}\n{error.stderr}")
            raise

    def start(self, name: str, *arguments: str | Path, environment: dict[str, str] | None = None) -> Program:
        """Start a program that runs in the background; its log is ``<name>.log`` in the directory of the machine."""
        log = self.directory / f"{name}.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                self.build_command(arguments), stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                env=os.environ | (environment or {}),
            )  # fmt: skip
        program = Program(name, process, log)
        self._programs.append(program)
        return program

    def read_logs(self) -> str:
        """Return the last lines of all logs, for the report of a failed test."""
        return "\n".join(f"--- {program.name}\n{program.read_tail()}" for program in self._programs)

    def plug(self, path: str, device: int) -> None:
        """Create a character device node in the machine's ``/dev``."""
        node = self.directory / path.removeprefix("/")
        node.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(node, 0o666 | stat.S_IFCHR, device)
        node.chmod(0o666)

    def unplug(self, path: str) -> None:
        """Remove a device node."""
        (self.directory / path.removeprefix("/")).unlink()


def _remove_control_group(group: Path, seconds: float = 30) -> None:
    """Remove a control group once the kernel has released its last process.

    A process that has ended stays in its group for a moment, and cgroup v1 has no event for its removal.

    Raises:
        OSError: The group was still in use after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            # A shim that ended late has removed it.
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _list_control_groups(parent: str) -> set[Path]:
    """Return a control group and those in it, of every hierarchy; they remain, empty, after their processes end."""
    # os.walk ignores a group that disappears meanwhile.
    roots = Path("/sys/fs/cgroup").glob(f"*{parent}")
    return {Path(directory) for root in roots for directory, _, _ in os.walk(root)}
