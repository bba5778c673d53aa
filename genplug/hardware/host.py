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

from genplug.hardware.dependencies import Interests
from genplug.hardware.file_tree import Found, Tree, Witness
from genplug.hardware.inventory import Kind, Look
from genplug.spec.globs import Glob
from genplug.spec.natural_sort import natural_key

STAND_INS_MARKER = ".genplug-stand-ins"
"""A root other than ``/`` that holds this file has regular files standing for device nodes (tests, demo)."""

_STAND_IN = re.compile(rb"\s*(char|block) (\d{1,7}):(\d{1,7})\s*\Z")
_STAND_IN_BYTES = 64
MOST_TEXT = 1 << 16
"""Bytes of a file that are read: attributes are small."""

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
    device node; use :meth:`at` unless a test decides. A host that ``remembers`` lists each folder, looks at each path
    and reads each file once: it is for one scan only. ``witness`` is told what is touched (:data:`Witness`).
    ``environment`` and ``node_name`` are what the program was started with.

    Raises:
        ValueError: stand-ins are wanted under ``/``.
    """

    root: Path = Path("/")
    stand_ins: bool = field(default=False, kw_only=True)
    remembers: bool = field(default=False, kw_only=True)
    witness: Witness | None = field(default=None, kw_only=True)
    environment: Mapping[str, str] = field(factory=lambda: os.environ, kw_only=True, eq=False, repr=False)
    node_name: str | None = field(default=None, kw_only=True)
    _tree: Tree = field(init=False, eq=False, repr=False)
    _looks: dict[str, Look | None] = field(factory=dict, init=False, eq=False, repr=False)
    _around: dict[str, Interests] = field(factory=dict, init=False, eq=False, repr=False)
    _resolved: dict[tuple[str, Kind], str | None] = field(factory=dict, init=False, eq=False, repr=False)
    _texts: dict[str, str | None] = field(factory=dict, init=False, eq=False, repr=False)

    @_tree.default
    def _tree_of_root(self) -> Tree:
        prefix = os.fspath(self.root).rstrip("/")
        return Tree(prefix, self.remembers) if self.witness is None else Tree(prefix, self.remembers, self.witness)

    def __attrs_post_init__(self) -> None:
        if self.stand_ins and _is_the_real_root(self.root):
            raise ValueError("files stand for device nodes only under a root other than /")

    @classmethod
    def at(cls, root: Path, *, node_name: str | None = None, witness: Witness | None = None) -> "Host":
        """Return the host seen under ``root``; stand-ins count where the marker file lies in it."""
        stand_ins = not _is_the_real_root(root) and (root / STAND_INS_MARKER).is_file()
        return cls(root, stand_ins=stand_ins, node_name=node_name, witness=witness)

    def remembering(self) -> "Host":
        """Return this host for the length of one scan."""
        return evolve(self, remembers=True)

    def look(self, path: str) -> Look | None:
        """Look at a path, every symlink followed; None where nothing can be seen."""
        return self._seen(path, Interests())

    def see(self, path: str, interests: Interests) -> Look | None:
        """Look at a path and add to ``interests`` what may change what is seen."""
        if not self.remembers:
            return self._seen(path, interests)
        if path not in self._looks:
            look = self._looks[path] = self._seen(path, around := Interests())
            # Most paths are what they say, in a folder that is: no need to keep what their own text tells.
            if look is None or look.resolved != path:
                self._around[path] = around
        if (known := self._around.get(path)) is not None:
            interests.update(known)
        else:
            interests.add_name(*_parted(path))
        return self._looks[path]

    def resolved(self, path: str, kind: Kind = Kind.DIRECTORY) -> str | None:
        """Return a path without symlinks if it leads to something of this kind."""
        if (path, kind) in self._resolved:
            return self._resolved[path, kind]
        look = self._seen(path, Interests())
        resolved = look.resolved if look is not None and look.kind is kind else None
        if self.remembers:
            self._resolved[path, kind] = resolved
        return resolved

    def text(self, path: str) -> str | None:
        """Return the text of a regular file, stripped; None where it cannot be read, also for a moment."""
        if path in self._texts:
            return self._texts[path]
        text = None
        with suppress(OSError, ValueError):
            resolved, status = self._tree.followed(path, Interests())
            if stat.S_ISREG(status.st_mode):
                text = self._tree.read(resolved, MOST_TEXT).decode(errors="replace").strip("\0 \t\r\n")
        if self.remembers:
            self._texts[path] = text
        return text

    def exists(self, path: str) -> bool:
        """Say whether something stands at a path, symlinks followed."""
        return self.look(path) is not None

    def absence(self, path: str) -> str:
        """Say why nothing can be seen at a path, to follow its name in a sentence; empty where something is there."""
        try:
            self._tree.followed(path, Interests())
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
            return f"is a symlink to {readable(self._tree.target(path))}, which does not exist"
        except OSError:
            return "does not exist"

    def glob(self, glob: Glob) -> Found:
        """Find what matches. ``**`` stays out of symlinked folders, any other segment goes through them.

        A symlink that leads nowhere is found too, so that somebody can be told.
        """
        return self._tree.find(glob)

    def tells_of(self, folder: str) -> bool:
        """Say whether the kernel tells of changes in a folder: it does not in what it makes up itself."""
        return not any(
            (folder == top or folder.startswith(f"{top}/")) and os.path.ismount(self._tree.prefix + top)
            for top in ("/sys", "/proc")
        )

    def listing(self, path: str) -> tuple[str, ...]:
        """Return the names in a folder in natural order; none where there is no such folder."""
        look = self.look(path)
        if look is None:
            return ()
        entries = self._tree.entries("" if look.resolved == "/" else look.resolved)
        return tuple(sorted((entry.name for entry in entries), key=natural_key))

    def real(self, path: str) -> Path:
        """Return where this process sees a host path: symlinks followed if it exists, else as it is written."""
        with suppress(OSError, ValueError):
            path, _ = self._tree.followed(path, Interests())
        return Path(self._tree.prefix + path)

    def place(self, path: str) -> Path:
        """Return where this process sees a host path of which the last parts may not be there yet."""
        at, rest = path, ""
        while at not in {"", "/"} and self.look(at) is None:
            at, _, name = at.rpartition("/")
            rest = f"{name}/{rest}"
        return self.real(at or "/") / rest

    def _seen(self, path: str, interests: Interests) -> Look | None:
        try:
            resolved, status = self._tree.followed(path, interests)
        except (OSError, ValueError):
            return None
        interests.add_name(*_parted(resolved))
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), Kind.FILE)
        if kind is Kind.CHAR or kind is Kind.BLOCK:
            return Look(resolved, kind, os.major(status.st_rdev), os.minor(status.st_rdev))
        if kind is Kind.FILE and self.stand_ins:
            return self._stand_in(resolved)
        return Look(resolved, kind)

    def _stand_in(self, resolved: str) -> Look:
        try:
            found = _STAND_IN.match(self._tree.read(resolved, _STAND_IN_BYTES))
        except OSError:
            found = None
        if found is None:
            return Look(resolved, Kind.FILE)
        kind, major, minor = found.groups()
        return Look(resolved, Kind(kind.decode()), int(major), int(minor))


def is_sendable(path: str) -> bool:
    """Say whether a path can be told to the kubelet: its messages hold UTF-8 only."""
    return path.isascii() or readable(path) == path


def readable(path: str) -> str:
    r"""Return a path as it can be printed and sent: bytes that are no UTF-8 as ``\x..``."""
    return path if path.isascii() else path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _parted(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def _is_the_real_root(root: Path) -> bool:
    try:
        return root.samefile("/")
    except OSError:
        return False
