"""A process of the agent in a stand-in of procfs."""

from collections.abc import Callable
from pathlib import Path

import pytest

STATUS = """\
Name:\tgenplug
Uid:\t1000\t0\t0\t0
Gid:\t1000\t0\t0\t0
CapEff:\t0000000000000000
CapBnd:\t0000000000003000
NoNewPrivs:\t1
Seccomp:\t2
"""
MOUNTS = """\
410 380 0:60 / / ro,relatime - overlay overlay rw
411 410 0:61 / /proc rw,nosuid - proc proc rw
412 410 0:5 / /host/dev ro,nosuid - devtmpfs udev rw
413 410 8:1 /lib/kubelet/device-plugins /var/lib/kubelet/device-plugins rw - ext4 /dev/sda1 rw
414 410 8:1 /pods/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw
415 410 8:1 /srv/a\\040b /host/srv/a\\040b ro - ext4 /dev/sda1 rw
"""
COMMAND = ("/usr/bin/python3.11", "/usr/bin/genplug", "run", "--config", "/etc/genplug", "--root", "/host")
AddProcess = Callable[..., Path]


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Return a directory for processes."""
    directory = tmp_path / "proc"
    directory.mkdir()
    return directory


@pytest.fixture
def add_process(proc: Path) -> AddProcess:
    """Return a function that adds a process."""

    def add(
        pid: int, command: tuple[str, ...] = COMMAND, cgroup: str = "0::/\n", environment: dict[str, str] | None = None
    ) -> Path:
        directory = proc / str(pid)
        (directory / "attr").mkdir(parents=True)
        variables = environment or {}
        files = {
            "cmdline": "".join(f"{word}\0" for word in command),
            "environ": "".join(f"{name}={value}\0" for name, value in variables.items()),
            "cgroup": cgroup,
            "status": STATUS,
            "mountinfo": MOUNTS,
            "attr/current": "cri-containerd.apparmor.d (enforce)\n",
        }
        for name, text in files.items():
            (directory / name).write_text(text)
        return directory

    return add
