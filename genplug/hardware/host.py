"""``Host``: the only door to the node's file system, wherever this process sees it (``/``, ``/host``, a captured tree).

Paths that go in and out are the host's own. Looking never raises: what cannot be seen is not there, and
:meth:`Host.absence` says why.
"""

import errno
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from attrs import evolve, field, frozen

from genplug.hardware.dependencies import Dependencies
from genplug.hardware.file_tree import (
    MAX_TEXT_BYTES,
    AccessRecorder,
    FileTree,
    GlobResult,
    NotAFileError,
    decode_text,
)
from genplug.hardware.inventory import Kind, PathInfo
from genplug.spec.globs import Glob
from genplug.spec.natural_sort import natural_sort_key

STAND_INS_MARKER = ".genplug-stand-ins"
"""A root other than ``/`` that holds this file has regular files standing for device nodes (tests, demo)."""

_STAND_IN = re.compile(rb"\s*(char|block) (\d{1,7}):(\d{1,7})\s*\Z")
_STAND_IN_BYTES = 64

_KINDS = {
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFIFO: Kind.FIFO,
}


@frozen
class Host:
    """The node's file system as seen under ``root``.

    With ``stand_ins``, a regular file whose text is ``char MAJOR:MINOR`` or ``block MAJOR:MINOR`` stands for that
    device node; use :meth:`at` unless a test decides. A host that ``remembers`` lists each directory, looks at each
    path and reads each file once: it is for one scan only. ``witness`` is told what is touched (:data:`Witness`).
    ``environment`` and ``node_name`` are what the program was started with.

    Raises:
        ValueError: stand-ins are wanted under ``/``.
    """

    root: Path = Path("/")
    stand_ins: bool = field(default=False, kw_only=True)
    is_cached: bool = field(default=False, kw_only=True)
    recorder: AccessRecorder | None = field(default=None, kw_only=True)
    environment: Mapping[str, str] = field(factory=lambda: os.environ, kw_only=True, eq=False, repr=False)
    node_name: str | None = field(default=None, kw_only=True)
    _tree: FileTree = field(init=False, eq=False, repr=False)
    _looks: dict[str, PathInfo | None] = field(factory=dict, init=False, eq=False, repr=False)
    _around: dict[str, Dependencies] = field(factory=dict, init=False, eq=False, repr=False)
    _resolved: dict[tuple[str, Kind], str | None] = field(factory=dict, init=False, eq=False, repr=False)
    _texts: dict[str, str | None] = field(factory=dict, init=False, eq=False, repr=False)

    @_tree.default
    def _tree_of_root(self) -> FileTree:
        prefix = os.fspath(self.root).rstrip("/")
        return (
            FileTree(prefix, self.is_cached)
            if self.recorder is None
            else FileTree(prefix, self.is_cached, self.recorder)
        )

    def __attrs_post_init__(self) -> None:
        if self.stand_ins and _is_the_real_root(self.root):
            raise ValueError("files stand for device nodes only under a root other than /")

    @classmethod
    def at(cls, root: Path, *, node_name: str | None = None, witness: AccessRecorder | None = None) -> "Host":
        """Return the host seen under ``root``; stand-ins count where the marker file lies in it."""
        stand_ins = not _is_the_real_root(root) and (root / STAND_INS_MARKER).is_file()
        return cls(root, stand_ins=stand_ins, node_name=node_name, recorder=witness)

    def cached(self) -> "Host":
        """Return this host for the length of one scan."""
        return evolve(self, is_cached=True)

    def stat(self, path: str) -> PathInfo | None:
        """Look at a path, every symlink followed; None where nothing can be seen."""
        return self._seen(path, Dependencies())

    def stat_tracked(self, path: str, dependencies: Dependencies) -> PathInfo | None:
        """Look at a path and add to ``dependencies`` what may change what is seen."""
        if not self.is_cached:
            return self._seen(path, dependencies)
        if path not in self._looks:
            look = self._looks[path] = self._seen(path, around := Dependencies())
            # Most paths are what they say, in a directory that is: no need to keep what their own text tells.
            if look is None or look.resolved != path:
                self._around[path] = around
        if (known := self._around.get(path)) is not None:
            dependencies.update(known)
        else:
            dependencies.add_name(*_parted(path))
        return self._looks[path]

    def resolve(self, path: str, kind: Kind = Kind.DIRECTORY) -> str | None:
        """Return a path without symlinks if it leads to something of this kind."""
        if (path, kind) in self._resolved:
            return self._resolved[path, kind]
        look = self._seen(path, Dependencies())
        resolved = look.resolved if look is not None and look.kind is kind else None
        if self.is_cached:
            self._resolved[path, kind] = resolved
        return resolved

    def read_text(self, path: str) -> str | None:
        """Return the text of a regular file, stripped; None where it cannot be read, also for a moment."""
        if path in self._texts:
            return self._texts[path]
        text = None
        with suppress(OSError, ValueError):
            resolved, status = self._tree.resolve(path, Dependencies())
            if stat.S_ISREG(status.st_mode):
                text = decode_text(self._tree.read(resolved, MAX_TEXT_BYTES))
        if self.is_cached:
            self._texts[path] = text
        return text

    def resolve_file(self, path: str) -> str:
        """Return the path of a regular file without symlinks.

        Raises:
            OSError: it does not exist or cannot be accessed; a NotAFileError if it is not a regular file.
        """
        try:
            resolved, status = self._tree.resolve(path, Dependencies())
        except ValueError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
        if not stat.S_ISREG(status.st_mode) or (self.stand_ins and self._stand_in(resolved).is_device):
            number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.ENXIO
            raise NotAFileError(number, os.strerror(number), path)
        return resolved

    def read_bytes(self, resolved: str, max_bytes: int, *, may_block: bool = False) -> bytes:
        """Return the first bytes of a regular file, given as :meth:`resolve_file` returns it.

        Raises:
            OSError: it cannot be read; a NotAFileError if it is not a regular file any more.
        """
        return self._tree.read(resolved, max_bytes, may_block=may_block)

    def exists(self, path: str) -> bool:
        """Say whether something stands at a path, symlinks followed."""
        return self.stat(path) is not None

    def missing_reason(self, path: str) -> str:
        """Say why nothing can be seen at a path, to follow its name in a sentence; empty where something is there."""
        try:
            self._tree.resolve(path, Dependencies())
        except OSError as error:
            if error.errno == errno.ELOOP:
                return "is a symlink that leads round in a circle"
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                return f"cannot be looked at: {os.strerror(error.errno or 0)}"
        except ValueError:
            return "is no possible path"
        else:
            return ""
        try:
            return f"is a symlink to {printable(self._tree.target(path))}, which does not exist"
        except OSError:
            return "does not exist"

    def glob(self, glob: Glob) -> GlobResult:
        """Find what matches. ``**`` stays out of symlinked directories, any other segment goes through them.

        A symlink that leads nowhere is found too, so that somebody can be told.
        """
        return self._tree.find(glob)

    def supports_inotify(self, directory: str) -> bool:
        """Say whether the kernel tells of changes in a directory: it does not in what it makes up itself."""
        return not any(
            (directory == top or directory.startswith(f"{top}/")) and os.path.ismount(self._tree.prefix + top)
            for top in ("/sys", "/proc")
        )

    def list_directory(self, path: str) -> tuple[str, ...]:
        """Return the names in a directory in natural order; none where there is no such directory."""
        look = self.stat(path)
        if look is None:
            return ()
        entries = self._tree.entries("" if look.resolved == "/" else look.resolved)
        return tuple(sorted((entry.name for entry in entries), key=natural_sort_key))

    def real_path(self, path: str) -> Path:
        """Return where this process sees a host path: symlinks followed if it exists, else as it is written."""
        with suppress(OSError, ValueError):
            path, _ = self._tree.resolve(path, Dependencies())
        return Path(self._tree.prefix + path)

    def locate(self, path: str) -> Path:
        """Return where this process sees a host path of which the last parts may not be there yet."""
        at, rest = path, ""
        while at not in {"", "/"} and self.stat(at) is None:
            at, _, name = at.rpartition("/")
            rest = f"{name}/{rest}"
        return self.real_path(at or "/") / rest

    def _seen(self, path: str, dependencies: Dependencies) -> PathInfo | None:
        try:
            resolved, status = self._tree.resolve(path, dependencies)
        except (OSError, ValueError):
            return None
        dependencies.add_name(*_parted(resolved))
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), Kind.FILE)
        if kind is Kind.CHAR or kind is Kind.BLOCK:
            return PathInfo(resolved, kind, os.major(status.st_rdev), os.minor(status.st_rdev))
        if kind is Kind.FILE and self.stand_ins:
            return self._stand_in(resolved)
        return PathInfo(resolved, kind)

    def _stand_in(self, resolved: str) -> PathInfo:
        try:
            found = _STAND_IN.match(self._tree.read(resolved, _STAND_IN_BYTES))
        except OSError:
            found = None
        if found is None:
            return PathInfo(resolved, Kind.FILE)
        kind, major, minor = found.groups()
        return PathInfo(resolved, Kind(kind.decode()), int(major), int(minor))


def is_utf8(path: str) -> bool:
    """Say whether a path can be told to the kubelet: its messages hold UTF-8 only."""
    return path.isascii() or printable(path) == path


def printable(path: str) -> str:
    r"""Return a path as it can be printed and sent: bytes that are no UTF-8 as ``\x..``."""
    return path if path.isascii() else path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _parted(path: str) -> tuple[str, str]:
    directory, _, name = path.rpartition("/")
    return directory, name


def _is_the_real_root(root: Path) -> bool:
    try:
        return root.samefile("/")
    except OSError:
        return False
