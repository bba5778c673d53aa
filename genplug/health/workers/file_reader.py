"""Reads files of the host in a worker: resolves a path once, and reads a file once in a batch of requests.

:class:`genplug.hardware.host.Host` has the rules of reading; this module only adds caches.
"""

import errno
import os
from collections.abc import MutableMapping

from msgspec import Struct

from genplug.hardware.file_tree import MAX_TEXT_BYTES, NotAFileError, decode_text
from genplug.hardware.host import Host
from genplug.spec.read_rules import ReadRules

NOT_A_FILE = -1
"""In place of an errno for a directory, a device, a pipe or a socket, which are not read."""
_MAX_PLAIN_PATHS = 100_000


class ReadRefusedError(PermissionError):
    """The policy does not allow to read a file; ``filename`` is its path without symlinks."""


class CachedFileReader(Struct, frozen=True):
    """The files of a host. A read may block as long as the file system blocks; the caller has to limit it."""

    host: Host
    _plain_paths: MutableMapping[str, ReadRules | None] = {}
    """Paths of files without a symlink in them, which are not resolved again, and the rules that allow to read them."""
    _texts: MutableMapping[str, str | int] = {}

    def start_batch(self) -> None:
        """Forget the texts of the previous batch."""
        self._texts.clear()
        if len(self._plain_paths) > _MAX_PLAIN_PATHS:
            self._plain_paths.clear()

    def is_allowed(self, path: str, rules: ReadRules) -> bool:
        """Return whether rules allow to read a path, without regard to symlinks in it."""
        return self._plain_paths.get(path) is rules or rules.allows(path)

    def text(self, path: str, rules: ReadRules | None = None) -> str | int:
        """Return the stripped text of a file, or an errno (or :data:`NOT_A_FILE`) if it cannot be read.

        Raises:
            ReadRefusedError: the rules do not allow to read its path without symlinks.
        """
        text: str | int | None = self._texts.get(path)
        if text is None:
            try:
                text = decode_text(self.read_bytes(path, MAX_TEXT_BYTES, rules))
            except ReadRefusedError:
                raise
            except NotAFileError:
                text = NOT_A_FILE
            except OSError as error:
                text = error.errno or errno.EIO
            self._texts[path] = text
        return text

    def read_bytes(self, path: str, max_bytes: int, rules: ReadRules | None = None) -> bytes:
        """Return the first bytes of a regular file.

        Raises:
            OSError: the file cannot be read; a NotAFileError if it is not a regular file, and a ReadRefusedError if
                the rules do not allow to read its path without symlinks.
        """
        if path in self._plain_paths:
            try:
                return self.host.read_bytes(path, max_bytes, may_block=True)
            except (FileNotFoundError, NotADirectoryError, NotAFileError):
                # A part of the path may be a symlink now.
                del self._plain_paths[path]
        resolved = self.host.resolve_file(path)
        if rules is not None and not rules.allows(resolved):
            raise ReadRefusedError(errno.EACCES, os.strerror(errno.EACCES), resolved)
        if resolved == path:
            self._plain_paths[path] = rules
        return self.host.read_bytes(resolved, max_bytes, may_block=True)

    def link_target_name(self, path: str) -> str | None:
        """Return the last name in the target of a symlink, or None if the path is not a symlink."""
        try:
            directory, _, name = path.rpartition("/")
            return (self.host.process_path(directory) / name).readlink().name
        except OSError:
            return None
