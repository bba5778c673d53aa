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

    def set_read_only(self, *, is_read_only: bool) -> None:
        """Mount the file system again, read-only or writable; this fails while a file is open for writing."""
        _run("mount", "-o", f"remount,{'ro' if is_read_only else 'rw'}", str(self._directory))


def can_mount() -> bool:
    """Return whether this process can mount file systems, also those that it serves itself."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - mount and umount, with paths of this program
