"""Watches the directory of registration sockets."""

import asyncio
import ctypes
import os
import stat
from collections.abc import Callable
from pathlib import Path

_CREATED_OR_REMOVED = 0x100 | 0x200 | 0x40 | 0x80
"""IN_CREATE, IN_DELETE, IN_MOVED_FROM and IN_MOVED_TO of inotify(7)."""


class DirectoryWatch:
    """Calls a function when an entry of a directory, or of a directory in it, is created or removed (inotify(7))."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot watch the directory of registration sockets: {os.strerror(number)}")
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def scan(self, directory: Path) -> dict[str, tuple[int, ...]]:
        """Return the sockets below a directory by path, each with what identifies the file; watch its directories."""
        sockets: dict[str, tuple[int, ...]] = {}
        self._libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _CREATED_OR_REMOVED)
        for path in sorted(directory.iterdir()):
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if path.name.startswith("."):
                continue
            if stat.S_ISDIR(status.st_mode):
                sockets |= self.scan(path)
            elif stat.S_ISSOCK(status.st_mode):
                sockets[str(path)] = (status.st_dev, status.st_ino, status.st_mtime_ns)
        return sockets

    def close(self) -> None:
        """End the watch."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        os.read(self._descriptor, 65536)
        self._on_change()
