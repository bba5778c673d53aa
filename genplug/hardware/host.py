"""``Host``: the only access to the file system of the node, under any root (``/``, ``/host``, a captured tree).

All paths are host paths. Lookups never raise: an inaccessible path counts as missing, and :meth:`Host.missing_reason`
returns why. A search for a glob raises a SearchLimitError if it exceeds a limit, and a cached host raises a
SystemLimitError if the system has no file descriptor or memory left.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import force_setattr, replace

from genplug.hardware.dependencies import Dependencies
from genplug.hardware.file_tree import (
    MAX_TEXT_BYTES,
    Access,
    AccessRecorder,
    FileTree,
    GlobResult,
    NotAFileError,
    decode_text,
    read_regular_file,
    split_path,
)
from genplug.hardware.inventory import Kind, PathInfo
from genplug.hardware.kernel_modules import missing_node_hint
from genplug.spec.globs import Glob
from genplug.spec.natural_sort import natural_sort_key
from genplug.struct_values import compare_without, hide_in_repr

STAND_INS_MARKER = ".genplug-stand-ins"
"""If a root other than ``/`` contains this file, regular files stand in for device nodes (tests, demo, archives)."""
CAPTURE_MARK = "genplug capture\n"
"""The text of the marker file in an archive of ``genplug capture``."""

DEFAULT_CDI_DIRS = ("/etc/cdi", "/var/run/cdi")
"""The directories of CDI files of containerd, CRI-O and podman (container-device-interface, ``spec-dirs.go``)."""

_STAND_IN = re.compile(rb"\s*(char|block) (\d{1,7}):(\d{1,7})\s*\Z")
_STAND_IN_BYTES = 64
_CAPTURED_DIRECTORIES = ("/dev/", "/sys/", "/proc/")
"""The directories of which an archive has everything that a configuration needs."""

_KINDS = {
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFIFO: Kind.FIFO,
}


@compare_without("environment", "_tree", "_dev_file_system", "_infos", "_dependencies", "_resolved", "_texts")
@hide_in_repr("environment", "_tree", "_dev_file_system", "_infos", "_dependencies", "_resolved", "_texts")
class Host(Struct, frozen=True):
    """The file system of the node under ``root``.

    With ``stand_ins``, a regular file with the content ``char MAJOR:MINOR`` or ``block MAJOR:MINOR`` replaces that
    device node; use :meth:`at` to detect this. ``is_archive`` is whether the files are those of an archive of
    ``genplug capture``, which has no kernel and no programs. With ``is_cached``, each path is stat'ed, listed and read
    once; such a host is for one scan only. ``recorder`` is called with every access
    (:data:`~genplug.hardware.file_tree.AccessRecorder`). ``environment`` and ``node_name`` are those of the process.
    ``cdi_dirs`` are the directories from which the container runtime reads CDI files, by increasing priority.

    Raises:
        ValueError: ``stand_ins`` is set under ``/``.
    """

    root: Path = Path("/")
    stand_ins: bool = False
    is_archive: bool = False
    is_cached: bool = False
    recorder: AccessRecorder | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    node_name: str | None = None
    cdi_dirs: tuple[str, ...] = DEFAULT_CDI_DIRS
    _tree: FileTree = FileTree("")
    _dev_file_system: int | None = None
    _infos: dict[str, PathInfo | None] = {}
    _dependencies: dict[str, Dependencies] = {}
    _resolved: dict[tuple[str, Kind], str | None] = {}
    _texts: dict[str, str | None] = {}

    def __post_init__(self) -> None:
        if self.stand_ins and _is_real_root(self.root):
            raise ValueError("stand-ins for device nodes require a root other than /")
        prefix = os.fspath(self.root).rstrip("/")
        recorder = () if self.recorder is None else (self.recorder,)
        force_setattr(self, "_tree", FileTree(prefix, self.is_cached, *recorder))
        try:
            force_setattr(self, "_dev_file_system", (self.root / "dev").lstat().st_dev)
        except OSError:
            force_setattr(self, "_dev_file_system", None)
        # A changed copy of a host has caches of its own.
        for name in ("_infos", "_dependencies", "_resolved", "_texts"):
            force_setattr(self, name, {})

    @classmethod
    def at(
        cls,
        root: Path,
        *,
        node_name: str | None = None,
        recorder: AccessRecorder | None = None,
        cdi_dirs: tuple[str, ...] = DEFAULT_CDI_DIRS,
    ) -> "Host":
        """Return the host under ``root``; stand-ins are enabled if it contains the marker file."""
        stand_ins = not _is_real_root(root) and (root / STAND_INS_MARKER).is_file()
        is_archive = stand_ins and _is_marked_as_archive(root / STAND_INS_MARKER)
        return cls(
            root,
            stand_ins=stand_ins,
            is_archive=is_archive,
            node_name=node_name,
            recorder=recorder,
            cdi_dirs=cdi_dirs,
        )

    def cached(self) -> "Host":
        """Return this host with a cache, for one scan."""
        return replace(self, is_cached=True)

    def stat(self, path: str) -> PathInfo | None:
        """Return what is at a path, with all symlinks resolved, or None if it does not exist."""
        return self._stat(path, Dependencies())

    def has_node(self, info: PathInfo) -> bool:
        """Return whether a device node with these numbers is at a resolved path; False also for a stand-in.

        This is faster than :meth:`stat`. It does not examine whether a directory of the path has become a symlink:
        the path then leads to a device node with the same numbers.
        """
        if not info.is_device:
            return False
        try:
            status = self._tree.lstat(info.resolved)
        except OSError:
            return False
        return (
            status.st_rdev == os.makedev(info.major, info.minor)
            and _KINDS.get(stat.S_IFMT(status.st_mode)) is info.kind
            and (status.st_dev == self._dev_file_system) == info.is_in_dev
        )

    def stat_tracked(self, path: str, dependencies: Dependencies) -> PathInfo | None:
        """Return what is at a path, and add the dependencies of the result to ``dependencies``."""
        if not self.is_cached:
            return self._stat(path, dependencies)
        if path not in self._infos:
            if (status := self._tree.lstat_node(path)) is not None:
                self._infos[path] = self._describe(path, status)
            else:
                info = self._infos[path] = self._stat(path, path_dependencies := Dependencies())
                # A path without symlinks depends only on its own directory entry.
                if info is None or info.resolved != path:
                    self._dependencies[path] = path_dependencies
        if (known := self._dependencies.get(path)) is not None:
            dependencies.update(known)
        else:
            dependencies.add_name(*split_path(path))
        return self._infos[path]

    def resolve(self, path: str, kind: Kind = Kind.DIRECTORY) -> str | None:
        """Return the resolved path if it has this kind, else None."""
        if self._tree.is_in_missing_directory(path):
            return None
        if (path, kind) in self._resolved:
            return self._resolved[path, kind]
        info = self._stat(path, Dependencies())
        resolved = info.resolved if info is not None and info.kind is kind else None
        if self.is_cached:
            self._resolved[path, kind] = resolved
        return resolved

    def read_text(self, path: str, allows: Callable[[str], bool] | None = None) -> str | None:
        """Return the stripped text of a regular file, or None if it cannot be read, even temporarily.

        ``allows`` is called with the path without symlinks, and returns whether the file may be read.
        """
        if path in self._texts:
            return self._texts[path]
        text = None
        with suppress(OSError, ValueError):
            resolved, status = self._tree.resolve(path, Dependencies())
            if stat.S_ISREG(status.st_mode):
                if allows is not None and not allows(resolved):
                    return None
                text = decode_text(self._tree.read(resolved, MAX_TEXT_BYTES))
        if self.is_cached:
            self._texts[path] = text
        return text

    def resolve_file(self, path: str) -> str:
        """Return the path of a regular file without symlinks.

        Raises:
            OSError: it does not exist or cannot be accessed; a NotAFileError if it is not a regular file.
        """
        return self.stat_file(path)[0]

    def stat_file(self, path: str) -> tuple[str, os.stat_result]:
        """Return the path of a regular file without symlinks, and its stat result.

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
        return resolved, status

    def read_bytes(self, resolved: str, max_bytes: int, *, may_block: bool = False) -> bytes:
        """Return the first bytes of a regular file, given as :meth:`resolve_file` returns it.

        Raises:
            OSError: it cannot be read; a NotAFileError if it is not a regular file any more.
        """
        return self._tree.read(resolved, max_bytes, may_block=may_block)

    def record_read(self, resolved: str) -> None:
        """Record a read of a file whose content is known from an earlier read."""
        self._tree.recorder(Access.READ, resolved)

    def exists(self, path: str) -> bool:
        """Return whether a path exists, with symlinks resolved."""
        return self.stat(path) is not None

    def missing_reason(self, path: str) -> str:
        """Return why a path is missing, as a clause that follows the path in a sentence; empty if it exists.

        For a well-known device node, the clause states what creates it.
        """
        try:
            self._tree.resolve(path, Dependencies())
        except OSError as error:
            if error.errno == errno.ELOOP:
                return "is a symlink loop"
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                return f"cannot be accessed: {os.strerror(error.errno or 0)}"
        except ValueError:
            return "is not a valid path"
        else:
            return ""
        try:
            return f"is a symlink to {printable(self._tree.target(path))}, which does not exist"
        except OSError:
            if self.is_archive and not path.startswith(_CAPTURED_DIRECTORIES):
                return "is not in the archive, which has only what 'genplug capture' read"
            hint = missing_node_hint(path)
            return f"does not exist: {hint}" if hint else "does not exist"

    def glob(self, glob: Glob) -> GlobResult:
        """Return the matches of a glob. ``**`` does not enter symlinked directories; other segments do.

        Dangling symlinks are included, so that they can be reported.
        """
        return self._tree.find(glob)

    def has_entry(self, directory: str, name: str) -> bool:
        """Return whether a directory without symlinks in its path has an entry; a symlink may lead nowhere."""
        return self._tree.has_entry(directory, name)

    def end_access(self) -> None:
        """Record that the previous access has returned, before a computation that can take long."""
        self._tree.recorder(Access.NONE, "")

    def select_with_inotify(self, directories: Iterable[str]) -> list[str]:
        """Return those directories in which inotify reports changes; it does not on sysfs and procfs."""
        mounted = [top for top in ("/sys", "/proc") if os.path.ismount(self._tree.prefix + top)]
        unreported = tuple(f"{top}/" for top in mounted)
        return [each for each in directories if not f"{each}/".startswith(unreported)]

    def list_directory(self, path: str) -> tuple[str, ...]:
        """Return the entry names of a directory in natural order; empty if it does not exist."""
        info = self.stat(path)
        if info is None:
            return ()
        entries = self._tree.entries("" if info.resolved == "/" else info.resolved)
        return tuple(sorted((entry.name for entry in entries), key=natural_sort_key))

    def process_path(self, path: str) -> Path:
        """Return the path of **this process** for a host path, without symlinks in the part that exists."""
        existing, rest = path, ""
        while existing not in {"", "/"}:
            with suppress(OSError, ValueError):
                existing, _ = self._tree.resolve(existing, Dependencies())
                break
            existing, _, name = existing.rpartition("/")
            rest = f"{name}/{rest}"
        return Path(f"{self._tree.prefix}{existing or '/'}") / rest

    def _stat(self, path: str, dependencies: Dependencies) -> PathInfo | None:
        try:
            resolved, status = self._tree.resolve(path, dependencies)
        except (OSError, ValueError):
            return None
        dependencies.add_name(*split_path(resolved))
        return self._describe(resolved, status)

    def _describe(self, resolved: str, status: os.stat_result) -> PathInfo:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), Kind.FILE)
        is_in_dev = status.st_dev == self._dev_file_system
        if kind is Kind.CHAR or kind is Kind.BLOCK:
            numbers = (kind, os.major(status.st_rdev), os.minor(status.st_rdev))
            return PathInfo(resolved, numbers, is_in_dev)
        if kind is Kind.FILE and self.stand_ins:
            return self._stand_in(resolved, is_in_dev=is_in_dev)
        return PathInfo.of(resolved, kind)

    def _stand_in(self, resolved: str, *, is_in_dev: bool = False) -> PathInfo:
        try:
            found = _STAND_IN.match(self._tree.read(resolved, _STAND_IN_BYTES))
        except OSError:
            found = None
        if found is None:
            return PathInfo.of(resolved, Kind.FILE)
        kind, major, minor = found.groups()
        return PathInfo(resolved, (Kind(kind.decode()), int(major), int(minor)), is_in_dev)


def is_utf8(path: str) -> bool:
    """Return whether a path is UTF-8, which the messages of the kubelet require."""
    return path.isascii() or printable(path) == path


def printable(path: str) -> str:
    r"""Return a path as it can be printed and sent: bytes that are not UTF-8 as ``\x..``."""
    return path if path.isascii() else path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _is_marked_as_archive(marker: Path) -> bool:
    try:
        return read_regular_file(os.fspath(marker), len(CAPTURE_MARK), may_block=False) == CAPTURE_MARK.encode()
    except OSError:
        return False


def _is_real_root(root: Path) -> bool:
    try:
        return root.samefile("/")
    except OSError:
        return False
