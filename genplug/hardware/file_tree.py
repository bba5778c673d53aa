"""A tree of files seen under a prefix: following symlinks, listing directories, finding what a glob matches.

Symlinks are followed here and not by the kernel, because under another root an absolute target means that root's path.
Paths are the tree's own; directories that have been followed are written without symlinks, the root as ``""``.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import TypeAlias

from attrs import field, frozen

from genplug.hardware.dependencies import Dependencies
from genplug.spec.globs import Glob, Segment
from genplug.spec.natural_sort import natural_sort_key

_LITERAL_START = re.compile(r"[^*?[]*")
_MAX_LINKS = 40  # as the kernel: path_resolution(7)
MAX_TEXT_BYTES = 1 << 16
"""Bytes of a text that are read: the files that describe devices are small."""


class NotAFileError(OSError):
    """A path leads to a directory, a device, a pipe or a socket where a regular file is expected."""


class Access(Enum):
    """How a path was touched."""

    LOOKED = auto()
    LISTED = auto()
    READ = auto()


AccessRecorder: TypeAlias = Callable[[Access, str], None]
"""Is told of every path (without symlinks, but for the last name of one that is looked at) that a tree touches."""


def _unseen(_act: Access, _path: str) -> None:
    """Witness nothing."""


@frozen
class GlobResult:
    """What a glob found: paths in natural order, and what in which existing directories may change that."""

    paths: tuple[str, ...]
    dependencies: Dependencies

    @property
    def directories(self) -> frozenset[str]:
        """The directories that matter."""
        return self.dependencies.directories


@frozen
class Entry:
    """One name in a directory, as the directory itself tells: without a look at the file."""

    name: str
    is_link: bool
    is_directory: bool


@frozen
class FileTree:
    """The files under ``prefix``, which is empty for the real root.

    A tree that ``remembers`` lists each directory once and is for one scan only; ``witness`` is told what is touched.
    """

    prefix: str
    is_cached: bool = False
    recorder: AccessRecorder = _unseen
    _straight: set[str] = field(factory=set, init=False, eq=False, repr=False)
    """Directories that have been seen to have no symlink in their path."""
    _missing: dict[str, tuple[str, str]] = field(factory=dict, init=False, eq=False, repr=False)
    """Directories that have been seen not to be there, and the directory and name that were looked for in vain."""
    _listings: dict[str, tuple[Entry, ...]] = field(factory=dict, init=False, eq=False, repr=False)

    def resolve(self, path: str, dependencies: Dependencies) -> tuple[str, os.stat_result]:
        """Return a path without symlinks and its status; ``dependencies`` get what decided that, in a failure too.

        Raises:
            OSError: nothing is there, the symlinks lead in a circle, or somebody forbids it.
            ValueError: no file system has such a path.
        """
        directory, _, name = path.rpartition("/")
        if (lacking := self._missing.get(directory)) is not None:
            dependencies.add_name(*lacking)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        # Most paths of a scan are done here.
        if directory in self._straight and name not in {"", ".", ".."}:
            self.recorder(Access.LOOKED, path)
            try:
                status = os.lstat(self.prefix + path)
            except OSError:
                dependencies.add_name(directory, name)
                raise
            if not stat.S_ISLNK(status.st_mode):
                if stat.S_ISDIR(status.st_mode):
                    self._found_straight(path)
                return path, status
            return self._stepped(directory, [name], path, dependencies)
        return self._stepped("", _reversed_names(path), path, dependencies)

    def _stepped(self, at: str, rest: list[str], path: str, dependencies: Dependencies) -> tuple[str, os.stat_result]:
        """Go on from a directory without symlinks, one name after the other; ``rest`` holds them last name first."""
        status: os.stat_result | None = None
        links = 0
        while rest:
            name = rest.pop()
            if name == "..":
                at, status = at.rpartition("/")[0], None
                continue
            here = f"{at}/{name}"
            self.recorder(Access.LOOKED, here)
            try:
                status = os.lstat(self.prefix + here)
            except FileNotFoundError:
                dependencies.add_name(at, name)
                if self.is_cached and rest and not links:
                    self._missing[path.rpartition("/")[0]] = (at, name)
                raise
            except OSError:
                dependencies.add_name(at, name)
                raise
            if not stat.S_ISLNK(status.st_mode):
                at = here
                continue
            dependencies.add_name(at, name)
            self._found_straight(at)
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target, status = self.target(here), None
            rest += _reversed_names(target)
            if target.startswith("/"):
                at = ""
        status = status or os.lstat(f"{self.prefix}{at}/")
        self._found_straight(at if stat.S_ISDIR(status.st_mode) else at.rpartition("/")[0])
        return at or "/", status

    def _found_straight(self, directory: str) -> None:
        if self.is_cached:
            self._straight.add(directory)

    def target(self, link: str) -> str:
        """Return the text of a symlink.

        Raises:
            OSError: it is none.
        """
        return os.readlink(self.prefix + link)  # noqa: PTH115 - Path() would tidy the text, which the kernel does not

    def entries(self, at: str) -> tuple[Entry, ...]:
        """List a directory given without symlinks; nothing where it cannot be listed."""
        if (known := self._listings.get(at)) is not None:
            return known
        self.recorder(Access.LISTED, at or "/")
        try:
            with os.scandir(f"{self.prefix}{at}/") as scan:
                entries = tuple(Entry(e.name, e.is_symlink(), e.is_dir(follow_symlinks=False)) for e in scan)
        except OSError:
            return ()
        if self.is_cached:
            self._listings[at] = entries
            self._straight.add(at)
        return entries

    def read(self, path: str, max_bytes: int, *, may_block: bool = False) -> bytes:
        """Return the first bytes of a regular file, given without symlinks.

        Raises:
            OSError: it cannot be opened or read; a NotAFileError if it is not a regular file.
        """
        self.recorder(Access.READ, path)
        return read_regular_file(self.prefix + path, max_bytes, may_block=may_block)

    def find(self, glob: Glob) -> GlobResult:
        """Find what matches. ``**`` stays out of symlinked directories, any other segment goes through them.

        A symlink that leads nowhere is found too, so that somebody can be told.
        """
        walk = _Walk(self)
        for segments in glob:
            walk.find("", "", segments)
        return GlobResult(tuple(sorted(walk.paths, key=natural_sort_key)), walk.dependencies)


@frozen
class _Walk:
    """One search: ``paths`` that match so far, and the ``dependencies`` that decided it.

    Everywhere, ``path`` is a directory as the pattern spells it and ``at`` the same without symlinks.
    """

    tree: FileTree
    paths: set[str] = field(factory=set)
    dependencies: Dependencies = field(factory=Dependencies)

    def find(self, path: str, at: str, segments: tuple[Segment, ...]) -> None:
        """Add what matches the segments in a directory."""
        head, rest = segments[0], segments[1:]
        if head.is_any_depth:
            self._find_below(path, at, rest)
        elif rest and head.is_literal:
            self._enter(path, at, head.text, rest)
        elif head.is_literal:
            self.dependencies.add_name(at, head.text)
            self.tree.recorder(Access.LOOKED, f"{at}/{head.text}")
            if os.path.lexists(f"{self.tree.prefix}{at}/{head.text}"):
                self.paths.add(f"{path}/{head.text}")
        else:
            self.dependencies.add_pattern(at, head)
            # Most names of /dev fall at the first letters, long before the regular expression.
            start = _LITERAL_START.match(head.text)[0]  # type: ignore[index] # it matches any text, if only at its start
            matching = [e for e in self.tree.entries(at) if e.name.startswith(start) and head.matches(e.name)]
            if not rest:
                self.paths.update(f"{path}/{entry.name}" for entry in matching)
                return
            for entry in matching:
                if entry.is_directory or entry.is_link:
                    self._enter(path, at, entry.name, rest)

    def _find_below(self, path: str, at: str, rest: tuple[Segment, ...]) -> None:
        for inner, inner_at in self._directories_below(path, at):
            if rest:
                self.find(inner, inner_at, rest)
            else:
                self.paths.update((inner or "/", *(f"{inner}/{entry.name}" for entry in self.tree.entries(inner_at))))

    def _directories_below(self, path: str, at: str) -> Iterator[tuple[str, str]]:
        waiting = [(path, at)]
        while waiting:
            path, at = waiting.pop()
            self.dependencies.add_any(at)
            yield path, at
            waiting += ((f"{path}/{e.name}", f"{at}/{e.name}") for e in self.tree.entries(at) if e.is_directory)

    def _enter(self, path: str, at: str, name: str, rest: tuple[Segment, ...]) -> None:
        try:
            resolved, status = self.tree.resolve(f"{at}/{name}", self.dependencies)
        except (OSError, ValueError):
            return
        if stat.S_ISDIR(status.st_mode):
            self.find(f"{path}/{name}", "" if resolved == "/" else resolved, rest)
        else:
            directory, _, last = resolved.rpartition("/")
            self.dependencies.add_name(directory, last)


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
