"""A program that replaces device nodes without pause, as a privileged container on the node can.

Each device has a number of states: the genuine node, a link to it, and others that a pod must not get. The program
replaces a random device with a random state, atomically where the kernel can, and appends each change to a file with
the times before and after the system calls. A reader of the file therefore knows when a device can have had a state.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

DEVICES = 16
MAJOR = 240
OTHER_MINOR = 200
"""The first minor number of nodes that the configuration of the attack does not select."""

GENUINE = "device"
GENUINE_LINK = "link to the device"
STATES = (
    GENUINE,
    GENUINE_LINK,
    "other device",
    "memory",
    "disk",
    "link to another device",
    "link to the memory",
    "link to a disk",
    "dangling link",
    "link to itself",
    "named pipe",
    "regular file",
    "directory",
    "nothing",
)
CHANGE = struct.Struct("=BBqq")
"""A change: device, state, and the monotonic nanoseconds before and after it."""
_GENUINE_SHARE = 0.6
_MAX_PAUSE_SECONDS = 0.0006


class Change(Struct, frozen=True):
    """A change of a device, which happened between two times in monotonic nanoseconds."""

    device: int
    state: str
    before: int
    after: int


def read_changes(record: Path) -> list[Change]:
    """Return the changes that a swapper has recorded."""
    content = record.read_bytes()
    whole = len(content) // CHANGE.size * CHANGE.size
    return [
        Change(device, STATES[state], before, after)
        for device, state, before, after in CHANGE.iter_unpack(content[:whole])
    ]


class Stock:
    """The files that the swapper puts at the paths of devices, as hard links, so that a rename replaces a device."""

    def __init__(self, directory: Path, dev: Path) -> None:
        self._directory = directory
        self._dev = dev
        self._links = 0
        directory.mkdir()
        (dev / "real").mkdir()
        self._make_node(dev / "sda", stat.S_IFBLK, 8, 0)
        self._make_node(dev / "mem", stat.S_IFCHR, 1, 1)
        self._make_node(dev / "y0", stat.S_IFCHR, MAJOR, OTHER_MINOR + DEVICES)
        for device in range(DEVICES):
            self._make_node(dev / "real" / f"x{device}", stat.S_IFCHR, MAJOR, device)
            for state, make in self._makers(device).items():
                make(self._locate(device, state))

    def put(self, device: int, previous: str, state: str) -> None:
        """Replace the state of a device."""
        target = self._dev / f"x{device}"
        if previous == "directory":
            target.rmdir()
        elif state in {"directory", "nothing"}:
            target.unlink(missing_ok=True)
        if state == "directory":
            target.mkdir()
        elif state != "nothing":
            self._links += 1
            link = self._directory / f"new{self._links}"
            os.link(self._locate(device, state), link, follow_symlinks=False)
            link.rename(target)

    def _locate(self, device: int, state: str) -> Path:
        return self._directory / f"{device}-{STATES.index(state)}"

    def _makers(self, device: int) -> dict[str, Callable[[Path], object]]:
        return {
            GENUINE: lambda path: self._make_node(path, stat.S_IFCHR, MAJOR, device),
            GENUINE_LINK: lambda path: path.symlink_to(f"real/x{device}"),
            "other device": lambda path: self._make_node(path, stat.S_IFCHR, MAJOR, OTHER_MINOR + device),
            "memory": lambda path: self._make_node(path, stat.S_IFCHR, 1, 1),
            "disk": lambda path: self._make_node(path, stat.S_IFBLK, 7, device),
            "link to another device": lambda path: path.symlink_to("/dev/y0"),
            "link to the memory": lambda path: path.symlink_to("mem"),
            "link to a disk": lambda path: path.symlink_to("/dev/sda"),
            "dangling link": lambda path: path.symlink_to("/dev/missing"),
            "link to itself": lambda path: path.symlink_to(f"x{device}"),
            "named pipe": os.mkfifo,
            "regular file": lambda path: path.write_text(f"char {MAJOR}:{device}"),
        }

    @staticmethod
    def _make_node(path: Path, kind: int, major: int, minor: int) -> None:
        os.mknod(path, kind | 0o600, os.makedev(major, minor))


def swap(stock: Stock, record: Path, seed: int) -> None:
    """Replace devices until SIGTERM; then make all devices genuine again."""
    is_over = False

    def end(*_: object) -> None:
        nonlocal is_over
        is_over = True

    signal.signal(signal.SIGTERM, end)
    choose = random.Random(seed)
    states = dict.fromkeys(range(DEVICES), "nothing")
    with record.open("wb") as changes:

        def put(device: int, state: str) -> None:
            before = time.monotonic_ns()
            stock.put(device, states[device], state)
            states[device] = state
            changes.write(CHANGE.pack(device, STATES.index(state), before, time.monotonic_ns()))

        for device in states:
            put(device, GENUINE)
        print("ready", flush=True)
        while not is_over:
            device = choose.randrange(DEVICES)
            names = STATES[:2] if choose.random() < _GENUINE_SHARE else STATES[2:]
            put(device, choose.choice([state for state in names if state != states[device]]))
            time.sleep(choose.uniform(0, _MAX_PAUSE_SECONDS))
        for device in states:
            if states[device] != GENUINE:
                put(device, GENUINE)


def main() -> None:
    """Run the program: ``python -m tests.attacks.world.swapper DEV STOCK RECORD --seed N``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dev", type=Path)
    parser.add_argument("stock", type=Path)
    parser.add_argument("record", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        swap(Stock(arguments.stock, arguments.dev), arguments.record, arguments.seed)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(arguments.stock)


if __name__ == "__main__":
    main()
