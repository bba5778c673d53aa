"""A tree of files under a prefix: resolving symlinks, listing directories and finding glob matches.

This module resolves symlinks itself, because an absolute target refers to the root of the tree. All paths are paths in
the tree. A resolved directory has no symlinks in its path, and the root is ``""``.
"""

import errno
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum, auto
from itertools import takewhile
from operator import attrgetter
from typing import TypeAlias

from msgspec import Struct, field

from genplug.hardware.dependencies import Dependencies
from genplug.hardware.scan_errors import SearchLimitError, raise_system_limit
from genplug.spec.globs import Glob, Segment
from genplug.spec.limits import MAX_MATCHES, MAX_SEARCHED_ENTRIES
from genplug.spec.natural_sort import natural_sort_key
from genplug.struct_values import compare_without, hide_in_repr

_name_of = attrgetter("name")
_ENTRIES_OF_AN_ACCESS = 1000
"""The number of entries after which the list of a directory is another access, so that a long list makes progress."""
_LINK_COST = 20
"""The number of entries that can be examined in the time in which a symlink is resolved."""
_MAX_LINKS = 40  # the limit of the kernel, path_resolution(7)
MAX_TEXT_BYTES = 1 << 16
"""The maximum number of bytes of a text that are read; files that describe devices are small."""


class NotAFileError(OSError):
    """A path leads to a directory, a device, a pipe or a socket where a regular file is expected."""


class Access(Enum):
    """The kind of access to a path."""

    STAT = auto()
    LIST = auto()
    READ = auto()
    NONE = auto()
    """The previous access has returned, and a computation without an access begins."""


AccessRecorder: TypeAlias = Callable[[Access, str], None]
"""Called with every path that a tree accesses (fully resolved, except a final symlink that is only stat'ed).

It is called with ``Access.NONE`` and an empty path before a computation that can take long on a slow machine.
"""


def _ignore_access(_access: Access, _path: str) -> None:
    """Record nothing."""


class GlobResult(Struct, frozen=True):
    """The matches of a glob in natural order, and the dependencies of the result.

    ``leaves`` are the directories in which the last segments of the glob are searched for: for each resolved directory,
    its path as the glob spells it, and the segment. ``way`` are the dependencies of the directories themselves.
    """

    paths: tuple[str, ...]
    dependencies: Dependencies
    leaves: Mapping[str, tuple[tuple[str, Segment], ...]]
    way: Dependencies

    @property
    def directories(self) -> frozenset[str]:
        """The directories on which the result depends."""
        return self.dependencies.directories


class Entry(Struct, frozen=True):
    """An entry of a directory, as the directory listing describes it, without stat."""

    name: str
    is_link: bool
    is_directory: bool


@compare_without("_symlink_free", "_missing", "_listings")
@hide_in_repr("_symlink_free", "_missing", "_listings")
class FileTree(Struct, frozen=True):
    """The files under ``prefix``, which is empty for the real root.

    With ``is_cached``, each directory is listed once; such a tree is for one scan only, and its methods raise a
    SystemLimitError if the system has no file descriptor or memory left, because the scan would otherwise miss what
    exists. ``recorder`` is called with every access.
    """

    prefix: str
    is_cached: bool = False
    recorder: AccessRecorder = _ignore_access
    _symlink_free: set[str] = field(default_factory=set)
    """Directories whose paths contain no symlink."""
    _missing: dict[str, tuple[str, str]] = {}
    """Missing directories, with the directory and entry name that do not exist."""
    _listings: dict[str, tuple[Entry, ...]] = {}

    def resolve(self, path: str, dependencies: Dependencies) -> tuple[str, os.stat_result]:
        """Return the resolved path and its stat result; add the dependencies, also if this raises.

        Raises:
            OSError: the path does not exist, has a symlink loop, or cannot be accessed.
            ValueError: the path is invalid on every file system.
        """
        directory, _, name = path.rpartition("/")
        if (missing := self._missing.get(directory)) is not None:
            dependencies.add_name(*missing)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        # Fast path, which covers most paths of a scan.
        if directory in self._symlink_free and name not in {"", ".", ".."}:
            self.recorder(Access.STAT, path)
            try:
                status = os.lstat(self.prefix + path)
            except OSError as error:
                dependencies.add_name(directory, name)
                self._check_system(error)
                raise
            if not stat.S_ISLNK(status.st_mode):
                if stat.S_ISDIR(status.st_mode):
                    self._mark_symlink_free(path)
                return path, status
            return self._resolve_from(directory, [name], path, dependencies)
        return self._resolve_from("", _reversed_names(path), path, dependencies)

    def lstat(self, path: str) -> os.stat_result:
        """Return the stat result of a resolved path.

        Raises:
            OSError: the path does not exist or cannot be accessed.
        """
        self.recorder(Access.STAT, path)
        return os.lstat(self.prefix + path)

    def is_in_missing_directory(self, path: str) -> bool:
        """Return whether an earlier access has shown that the directory of a path does not exist."""
        return path.rpartition("/")[0] in self._missing

    def lstat_node(self, path: str) -> os.stat_result | None:
        """Return the stat result of a path without symlinks that is not a directory; None if it may be another path.

        This is faster than :meth:`resolve`, and covers the candidates of most scans.
        """
        directory, _, name = path.rpartition("/")
        if directory not in self._symlink_free or name in {"", ".", ".."}:
            return None
        self.recorder(Access.STAT, path)
        try:
            status = os.lstat(self.prefix + path)
        except OSError:
            return None
        return None if stat.S_ISLNK(status.st_mode) or stat.S_ISDIR(status.st_mode) else status

    def _resolve_from(
        self, at: str, rest: list[str], path: str, dependencies: Dependencies
    ) -> tuple[str, os.stat_result]:
        """Resolve the names in ``rest`` (last name first), starting at a resolved directory."""
        status: os.stat_result | None = None
        links = 0
        while rest:
            name = rest.pop()
            if name == "..":
                at, status = at.rpartition("/")[0], None
                continue
            here = f"{at}/{name}"
            self.recorder(Access.STAT, here)
            try:
                status = os.lstat(self.prefix + here)
            except FileNotFoundError:
                dependencies.add_name(at, name)
                if self.is_cached and rest and not links:
                    self._missing[path.rpartition("/")[0]] = (at, name)
                raise
            except OSError as error:
                dependencies.add_name(at, name)
                self._check_system(error)
                raise
            if not stat.S_ISLNK(status.st_mode):
                at = here
                continue
            dependencies.add_name(at, name)
            self._mark_symlink_free(at)
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target, status = self.target(here), None
            rest += _reversed_names(target)
            if target.startswith("/"):
                at = ""
        status = status or os.lstat(f"{self.prefix}{at}/")
        self._mark_symlink_free(at if stat.S_ISDIR(status.st_mode) else at.rpartition("/")[0])
        return at or "/", status

    def _mark_symlink_free(self, directory: str) -> None:
        if self.is_cached:
            self._symlink_free.add(directory)

    def target(self, link: str) -> str:
        """Return the target of a symlink, verbatim.

        Raises:
            OSError: the path is not a symlink.
        """
        return os.readlink(self.prefix + link)  # noqa: PTH115 - Path() would normalize the target

    def entries(self, at: str) -> tuple[Entry, ...]:
        """Return the entries of a resolved directory, sorted by name; empty if it cannot be listed."""
        # Also for a listing that is known: a search that only uses these has a time limit, too.
        self.recorder(Access.LIST, at or "/")
        if (known := self._listings.get(at)) is not None:
            return known
        try:
            with os.scandir(f"{self.prefix}{at}/") as scan:
                found = list(self._read_entries(scan, at))
        except OSError as error:
            self._check_system(error)
            return ()
        entries = tuple(sorted(found, key=_name_of))
        if self.is_cached:
            self._listings[at] = entries
            self._symlink_free.add(at)
        return entries

    def _read_entries(self, scan: Iterable[os.DirEntry[str]], at: str) -> Iterator[Entry]:
        for number, entry in enumerate(scan, 1):
            if not number % _ENTRIES_OF_AN_ACCESS:
                self.recorder(Access.LIST, at or "/")
            yield Entry(entry.name, entry.is_symlink(), entry.is_dir(follow_symlinks=False))
        self.recorder(Access.NONE, "")

    def read(self, path: str, max_bytes: int, *, may_block: bool = False) -> bytes:
        """Return the first bytes of a regular file, given by its resolved path.

        Raises:
            OSError: it cannot be opened or read; a NotAFileError if it is not a regular file.
        """
        self.recorder(Access.READ, path)
        try:
            return read_regular_file(self.prefix + path, max_bytes, may_block=may_block)
        except OSError as error:
            self._check_system(error)
            raise

    def _check_system(self, error: OSError) -> None:
        if self.is_cached:
            raise_system_limit(error)

    def find(self, glob: Glob) -> GlobResult:
        """Return the matches of a glob. ``**`` does not enter symlinked directories; other segments do.

        Dangling symlinks are included, so that they can be reported.

        Raises:
            SearchLimitError: the search exceeds a limit.
        """
        walk = _Walk(self, glob.text)
        for segments in glob:
            walk.find("", "", segments)
        dependencies = Dependencies()
        dependencies.update(walk.way)
        for directory, leaves in walk.leaves.items():
            for _, segment in leaves:
                if segment.is_literal:
                    dependencies.add_name(directory, segment.text)
                else:
                    dependencies.add_pattern(directory, segment)
        found = {directory: tuple(leaves) for directory, leaves in walk.leaves.items()}
        return GlobResult(tuple(sorted(walk.paths, key=natural_sort_key)), dependencies, found, walk.way)

    def has_entry(self, directory: str, name: str) -> bool:
        """Return whether a resolved directory, with the root as ``/``, has an entry; a symlink may lead nowhere."""
        path = f"{directory.rstrip('/')}/{name}"
        self.recorder(Access.STAT, path)
        return os.path.lexists(self.prefix + path)


class _Walk(Struct, frozen=True):
    """A search for a glob: the matching ``paths``, the ``leaves`` and the ``way`` so far (see :class:`GlobResult`).

    In all methods, ``path`` is a directory as the glob spells it, and ``at`` is the resolved directory.
    """

    tree: FileTree
    text: str
    paths: set[str] = field(default_factory=set)
    leaves: dict[str, list[tuple[str, Segment]]] = field(default_factory=dict)
    way: Dependencies = field(default_factory=Dependencies)
    _searched: set[tuple[str, tuple[Segment, ...]]] = field(default_factory=set)
    """Where a search below any number of directories began, and what it searched for; two of these may overlap."""
    _entries: list[int] = field(default_factory=lambda: [0])

    def _list(self, at: str) -> tuple[Entry, ...]:
        """Return the entries of a directory, and count them.

        Raises:
            SearchLimitError: the search has examined too many entries.
        """
        entries = self.tree.entries(at)
        self._count(len(entries) + 1)
        return entries

    def _count(self, entries: int) -> None:
        self._entries[0] += entries
        if self._entries[0] > MAX_SEARCHED_ENTRIES:
            reason = f"examines more than {MAX_SEARCHED_ENTRIES} directory entries, the maximum"
            raise SearchLimitError(f"the glob '{self.text}' {reason}; write more of the path")

    def _add(self, paths: Iterable[str]) -> None:
        self.paths.update(paths)
        if len(self.paths) > MAX_MATCHES:
            raise SearchLimitError(f"the glob '{self.text}' matches more than {MAX_MATCHES} paths, the maximum")

    def find(self, path: str, at: str, segments: tuple[Segment, ...]) -> None:
        """Add the matches of the segments in a directory."""
        head, rest = segments[0], segments[1:]
        if head.is_any_depth:
            self._find_below(path, at, rest)
        elif rest and head.is_literal:
            self._enter(path, at, head.text, rest)
        elif head.is_literal:
            self._add_leaf(path, at, head)
            if self.tree.has_entry(at, head.text):
                self.paths.add(f"{path}/{head.text}")
        else:
            if rest:
                self.way.add_pattern(at, head)
            else:
                self._add_leaf(path, at, head)
            # Most names of /dev differ in the first letters, and the entries are sorted.
            entries, start = self._list(at), head.literal_start
            first = bisect_left(entries, start, key=_name_of) if start else 0
            following = map(entries.__getitem__, range(first, len(entries)))
            candidates = takewhile(lambda entry: entry.name.startswith(start), following)
            matching = [entry for entry in candidates if head.matches(entry.name)]
            if not rest:
                self._add(f"{path}/{entry.name}" for entry in matching)
                return
            for entry in matching:
                if entry.is_link:
                    self._count(_LINK_COST)
                if entry.is_directory or entry.is_link:
                    self._enter(path, at, entry.name, rest)

    def _add_leaf(self, path: str, at: str, segment: Segment) -> None:
        self.leaves.setdefault(at or "/", []).append((path, segment))

    def _find_below(self, path: str, at: str, rest: tuple[Segment, ...]) -> None:
        for inner, inner_at in self._directories_below(path, at):
            if (inner, rest) in self._searched:
                continue
            self._searched.add((inner, rest))
            if rest:
                self.find(inner, inner_at, rest)
            else:
                self._add((inner or "/", *(f"{inner}/{entry.name}" for entry in self._list(inner_at))))

    def _directories_below(self, path: str, at: str) -> Iterator[tuple[str, str]]:
        waiting = [(path, at)]
        while waiting:
            path, at = waiting.pop()
            self.way.add_any(at)
            yield path, at
            waiting += (
                (f"{path}/{entry.name}", f"{at}/{entry.name}") for entry in self._list(at) if entry.is_directory
            )

    def _enter(self, path: str, at: str, name: str, rest: tuple[Segment, ...]) -> None:
        try:
            resolved, status = self.tree.resolve(f"{at}/{name}", self.way)
        except (OSError, ValueError):
            return
        if stat.S_ISDIR(status.st_mode):
            self.find(f"{path}/{name}", "" if resolved == "/" else resolved, rest)
        else:
            directory, _, last = resolved.rpartition("/")
            self.way.add_name(directory, last)


def split_path(path: str) -> tuple[str, str]:
    """Return the directory and the last name of a path; the directory of a path in the root is empty."""
    directory, _, name = path.rpartition("/")
    return directory, name


def _reversed_names(path: str) -> list[str]:
    return [name for name in reversed(path.split("/")) if name and name != "."]


def read_regular_file(path: str, max_bytes: int, *, may_block: bool) -> bytes:
    """Return the first bytes of a regular file that this process sees at ``path``.

    Nothing but a regular file is opened, because opening a device can change its state, and opening a pipe waits.
    A few files of the kernel are regular and wait for data all the same; without ``may_block`` that is an error.

    Raises:
        OSError: it cannot be opened or read; a NotAFileError if it is not a regular file.
    """
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO
        raise NotAFileError(number, os.strerror(number), path)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC | (0 if may_block else os.O_NONBLOCK)
    file = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            # It was replaced in between.
            raise NotAFileError(errno.ENXIO, os.strerror(errno.ENXIO), path)
        content = os.read(file, max_bytes)
        # The kernel returns a long text in parts of at most a page.
        while len(content) < max_bytes and (part := os.read(file, max_bytes - len(content))):
            content += part
    finally:
        os.close(file)
    return content


def decode_text(content: bytes) -> str:
    """Return the text of a file that describes a device, without white space and zero bytes at its ends."""
    return content.decode(errors="replace").strip("\0 \t\r\n")
