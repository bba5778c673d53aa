"""Regular files whose reads hang until a test releases them, without root and without a file system of our own.

The test process holds a write lease on the file (fcntl(2), ``F_SETLEASE``).
A process that opens the file waits in the kernel until the lease is given up or the process is killed, for at most
``/proc/sys/fs/lease-break-time`` seconds (45 by default).
"""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class HeldFile:
    """A file that this process holds; no other process may have it open at that time."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        # The kernel signals that a process waits; its default signal, SIGIO, would end this process.
        fcntl.fcntl(self._file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    @property
    def is_awaited(self) -> bool:
        """Whether another process waits to open the file."""
        return fcntl.fcntl(self._file, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def release(self) -> None:
        """Give up the lease; does nothing if it has been released."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@contextmanager
def hold_file(path: Path) -> Iterator[HeldFile]:
    """Hold a file until the context ends or the file is released."""
    held = HeldFile(path)
    try:
        yield held
    finally:
        held.release()
