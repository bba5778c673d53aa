"""How a worker sees the host: paths under its root, each resolved once, and texts read once in a batch of questions."""

import errno
import os
import stat
from collections.abc import MutableMapping

from attrs import field, frozen

from genplug.hardware.host import MAX_TEXT, Host
from genplug.hardware.inventory import Kind

_READ = frozenset({Kind.FILE, Kind.FIFO})
"""What is read. To open a device can change it: that is for the ``open`` probe, where the policy allows it."""
_MAX_KNOWN = 100_000


@frozen
class CachedFileReader:
    """The host's files. ``begin`` forgets the texts; nothing here waits less than the file makes it wait."""

    host: Host
    _real: MutableMapping[str, str] = field(factory=dict)
    _texts: MutableMapping[str, str | int] = field(factory=dict)

    def clear_cache(self) -> None:
        """Begin a batch: what is read from here on is read anew."""
        self._texts.clear()
        if len(self._real) > _MAX_KNOWN:
            self._real.clear()

    def text(self, path: str) -> str | int:
        """Return a file's text, stripped, or the errno that keeps it from being read."""
        if path not in self._texts:
            self._texts[path] = self._text(path)
        return self._texts[path]

    def bytes(self, path: str, most: int) -> bytes:
        """Return the first bytes of a file.

        Raises:
            OSError: it cannot be read.
        """
        known = self._real.get(path)
        if known is not None:
            try:
                return _bytes(known, most)
            except FileNotFoundError:
                # It may stand behind a link by now.
                del self._real[path]
        return _bytes(self._resolved(path), most)

    def target(self, path: str) -> str | None:
        """Return the name of what a link leads to; None where there is none."""
        try:
            directory, _, name = path.rpartition("/")
            return (self.host.real_path(directory) / name).readlink().name
        except OSError:
            return None

    def _text(self, path: str) -> str | int:
        try:
            return self.bytes(path, MAX_TEXT).decode(errors="replace").strip("\0 \t\r\n")
        except OSError as error:
            return error.errno or errno.EIO

    def _resolved(self, path: str) -> str:
        look = self.host.stat(path)
        if look is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if look.kind not in _READ:
            raise OSError(errno.EISDIR if look.kind is Kind.DIRECTORY else errno.ENXIO, "not a file", path)
        real = os.fspath(self.host.real_path(path))
        # What links lead to may be another file the next time.
        if look.resolved == path:
            self._real[path] = real
        return real


def _bytes(real: str, most: int) -> bytes:
    mode = os.stat(real).st_mode  # noqa: PTH116 - a Path costs more than the look
    # Whatever stood there before: what stands there now may be a device.
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO
        raise OSError(number, os.strerror(number), real)
    file = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        found = os.read(file, most)
        # The kernel tells a long text in parts of a page; a pipe's end would be waited for.
        while stat.S_ISREG(mode) and len(found) < most and (part := os.read(file, most - len(found))):
            found += part
        return found
    finally:
        os.close(file)
