"""File systems of the node that become full or read-only. Requires root."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_BYTES: Final = 16 << 20
_INODES: Final = 200
_BLOCK: Final = b"\0" * (1 << 20)
_FILL: Final = ".fill"


class SmallFileSystem:
    """A tmpfs of limited size on a directory, with room for files in a directory of its own that fill it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fill = directory / _FILL

    @contextlib.contextmanager
    def mount(self) -> Iterator[None]:
        """Mount the file system until the context ends."""
        self._directory.mkdir(parents=True, exist_ok=True)
        options = f"size={_BYTES},nr_inodes={_INODES},mode=750"
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._directory))
        self._fill.mkdir()
        try:
            yield
        finally:
            _run("umount", "--lazy", str(self._directory))

    def fill(self) -> None:
        """Use all blocks and all inodes, so that writes and new files fail with ENOSPC."""
        with contextlib.suppress(OSError), (self._fill / "blocks").open("wb", buffering=0) as file:
            while file.write(_BLOCK):
                pass
        with contextlib.suppress(OSError):
            for number in range(_INODES):
                (self._fill / str(number)).touch(exist_ok=False)

    def empty(self) -> None:
        """Free what ``fill`` has used."""
        for path in list(self._fill.iterdir()):
            path.unlink()

    def set_read_only(self, *, is_read_only: bool) -> bool:
        """Mount the directory again, read-only or writable; return whether that succeeded.

        The kernel refuses a read-only mount while a file in it is open for writing (mount(2), EBUSY). Only the mount
        is changed and not its file system, which must have no open file that was deleted, such as a plugin socket.
        """
        options = f"remount,bind,{'ro' if is_read_only else 'rw'}"
        return _try("mount", "-o", options, str(self._directory))


def can_mount() -> bool:
    """Return whether this process can mount file systems, also those that it serves itself."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


def _run(*command: str) -> None:
    if not _try(*command):
        raise OSError(f"{' '.join(command)} failed")


def _try(*command: str) -> bool:
    # mount and umount, with paths of this program
    return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603
