"""Reads files of the host in a worker: resolves a path once, and reads a file once in a batch of requests.

:class:`genplug.hardware.host.Host` has the rules of reading; this module only adds caches.
"""

import errno
import os
from collections.abc import Callable, MutableMapping, MutableSet

from msgspec import Struct, field

from genplug.hardware.file_tree import MAX_TEXT_BYTES, NotAFileError, decode_text
from genplug.hardware.host import Host

NOT_A_FILE = -1
"""In place of an errno for a directory, a device, a pipe or a socket, which are not read."""
_MAX_PLAIN_PATHS = 100_000


class ReadRefusedError(PermissionError):
    """The policy does not allow to read a file; ``filename`` is its path without symlinks."""


class CachedFileReader(Struct, frozen=True):
    """The files of a host. A read may block as long as the file system blocks; the caller has to limit it."""

    host: Host
    _plain_paths: MutableSet[str] = field(default_factory=set)
    """Paths of files without a symlink in them, which are not resolved again."""
    _texts: MutableMapping[str, str | int] = {}

    def start_batch(self) -> None:
        """Forget the texts of the previous batch."""
        self._texts.clear()
        if len(self._plain_paths) > _MAX_PLAIN_PATHS:
            self._plain_paths.clear()

    def text(self, path: str, allows: Callable[[str], bool] | None = None) -> str | int:
        """Return the stripped text of a file, or an errno (or :data:`NOT_A_FILE`) if it cannot be read.

        ``allows`` is called with the path without symlinks, and returns whether the file may be read.

        Raises:
            ReadRefusedError: it must not be read.
        """
        if path not in self._texts:
            try:
                self._texts[path] = decode_text(self.read_bytes(path, MAX_TEXT_BYTES, allows))
            except ReadRefusedError:
                raise
            except NotAFileError:
                self._texts[path] = NOT_A_FILE
            except OSError as error:
                self._texts[path] = error.errno or errno.EIO
        return self._texts[path]

    def read_bytes(self, path: str, max_bytes: int, allows: Callable[[str], bool] | None = None) -> bytes:
        """Return the first bytes of a regular file.

        Raises:
            OSError: the file cannot be read; a NotAFileError if it is not a regular file, and a ReadRefusedError if
                ``allows`` returns False for its path without symlinks.
        """
        if path in self._plain_paths:
            try:
                return self.host.read_bytes(path, max_bytes, may_block=True)
            except (FileNotFoundError, NotADirectoryError, NotAFileError):
                # A part of the path may be a symlink now.
                self._plain_paths.discard(path)
        resolved = self.host.resolve_file(path)
        if allows is not None and not allows(resolved):
            raise ReadRefusedError(errno.EACCES, os.strerror(errno.EACCES), resolved)
        if resolved == path:
            self._plain_paths.add(path)
        return self.host.read_bytes(resolved, max_bytes, may_block=True)

    def link_target_name(self, path: str) -> str | None:
        """Return the last name in the target of a symlink, or None if the path is not a symlink."""
        try:
            directory, _, name = path.rpartition("/")
            return (self.host.process_path(directory) / name).readlink().name
        except OSError:
            return None
