"""Finds the files of a configuration and reads a consistent version of them.

Kubernetes replaces the files of a ConfigMap volume by swapping its ``..data`` symlink: the symlink is resolved once,
all files are read through it, and it must be unchanged afterwards. Other files are compared before and after the read.
"""

import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from genplug.config.diagnostics import Diagnostics
from genplug.spec.diagnostic import Diagnostic, ErrorCode, WarningCode
from genplug.spec.limits import MAX_CONFIG_BYTES, MAX_FILE_BYTES, MAX_FILES
from genplug.spec.location import SourceLocation

SUFFIXES = (".yaml", ".yml", ".json")
OVERLAY_PREFIX = "node."
"""Prefix of files for a single node: ``node.<node-name>.yaml``."""
_MAX_ATTEMPTS = 5
_PAUSE_SECONDS = 0.02
_CONFIG_START = re.compile(
    r"""^["']?(?:apiVersion["']?:\s*["']?genplug\.io/|(?:resources|defaults)["']?:\s*[{\n])""", re.MULTILINE
)
"""Content that only a configuration has: its version, or one of its keys at the first column."""
_BACKUP_SUFFIXES = (
    *("~", ".bak", ".backup", ".old", ".orig", ".off", ".disabled", ".example", ".sample", ".save", ".swp", ".tmp"),
    *(".rpmnew", ".rpmsave", ".dpkg-old", ".dpkg-new", ".dpkg-dist", ".md", ".rst", ".tpl", ".j2", ".gotmpl"),
)
"""Suffixes of files that are not meant to be read."""
_MAX_IGNORED_FILES = 100
_MAX_START_BYTES = 1 << 16
_MAX_LINKS = 40
"""The limit of the kernel, path_resolution(7)."""


class ConfigFile(Struct, frozen=True):
    """A file of a configuration: its name for messages, and its text."""

    name: str
    text: str


class ConfigFiles(Struct, frozen=True):
    """All files of a configuration in merge order, and the directories to watch for changes."""

    texts: tuple[ConfigFile, ...]
    directories: frozenset[Path]


class _Source(Struct, frozen=True):
    """A file to read: its name for messages, and its path, for a ConfigMap through the resolved ``..data``."""

    name: str
    path: Path


def read_files(paths: Sequence[Path], node_name: str | None, diagnostics: Diagnostics) -> ConfigFiles:
    """Return a consistent version of files and directories; record an error for what cannot be read."""
    for remaining in reversed(range(_MAX_ATTEMPTS)):
        attempt = Diagnostics(limit=len(paths) + MAX_FILES + 1)
        sources = [source for path in paths for source in _sources(path, node_name, attempt)]
        if len(sources) > MAX_FILES:
            message = f"the configuration has {len(sources)} files, at most {MAX_FILES} are allowed"
            location, hint = (
                SourceLocation(sources[MAX_FILES].name, 1, 1),
                "merge files, or move them to another directory",
            )
            attempt.add(ErrorCode.LIMIT, location, message, hint=hint)
            sources, texts = [], []
            break
        states = [_state(source.path) for source in sources]
        texts = list(_read_all(sources, attempt))
        sources_after = [source for path in paths for source in _sources(path, node_name, Diagnostics())]
        if sources_after == sources and [_state(source.path) for source in sources] == states:
            break
        if not remaining:
            message, hint = "the files change while genplug reads them", "replace them atomically, by a rename"
            attempt.add(ErrorCode.UNREADABLE, SourceLocation(str(paths[0]), 1, 1), message, hint=hint)
        # Another process is writing the files; it may have finished after a short pause.
        time.sleep(_PAUSE_SECONDS)
    diagnostics.found.extend(attempt.found)
    for path in paths:
        _warn_about_ignored_files(path, diagnostics)
    texts.sort(key=lambda text: node_of(Path(text.name).name) is not None)
    return ConfigFiles(tuple(texts), frozenset(directory for path in paths for directory in _directories(path)))


def decode_utf8(content: bytes, name: str, diagnostics: Diagnostics) -> ConfigFile | None:
    """Decode the content of a file; record an error and return None if it is not UTF-8."""
    try:
        return ConfigFile(name, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        # The offset counts from behind the byte order mark, if there is one.
        before = error.object[: error.start]
        location = SourceLocation(name, before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode()) + 1)
        message = f"the byte 0x{error.object[error.start]:02x} is not UTF-8"
        diagnostics.add(ErrorCode.UNREADABLE, location, message, hint="save the file as UTF-8 text")
        return None


def node_of(name: str) -> str | None:
    """Return the node that a file is for, or None if it is for all nodes."""
    return Path(name).stem.removeprefix(OVERLAY_PREFIX) if name.startswith(OVERLAY_PREFIX) else None


def nodes_of(paths: Sequence[Path]) -> list[str]:
    """Return the names of the nodes for which these directories contain a file."""
    names = [file.name for path in paths if _is_directory(path) for file in path.iterdir() if is_config_file(file.name)]
    return sorted({node for name in names if (node := node_of(name)) is not None})


def is_config_file(name: str) -> bool:
    """Return whether a file name in a directory belongs to the configuration."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def is_ignored_config(name: str, text: str) -> bool:
    """Return whether a file in a directory, or a key of a ConfigMap, is a configuration that the agent ignores."""
    is_backup = name.startswith(".") or name.endswith(_BACKUP_SUFFIXES)
    return not is_config_file(name) and not is_backup and _CONFIG_START.search(text) is not None


def ignored_file_warning(name: str, location: SourceLocation, width: int = 1) -> Diagnostic:
    """Return the warning about a configuration in a file with another suffix; ``name`` is its name."""
    message = f"{name!r} contains a configuration, and genplug ignores it"
    hint = (
        f"rename it to '{name.partition('.')[0] or name}.yaml'; genplug reads files that end in {', '.join(SUFFIXES)}"
    )
    return Diagnostic(WarningCode.IGNORED_FILE, location, message, hint=hint, width=width)


def _warn_about_ignored_files(path: Path, diagnostics: Diagnostics) -> None:
    if not _is_directory(path):
        return
    with suppress(OSError):
        names = sorted(entry.name for entry in path.iterdir() if not is_config_file(entry.name))
        for name in names[:_MAX_IGNORED_FILES]:
            if _reads_as_config(path / name):
                diagnostics.warnings.append(ignored_file_warning(name, SourceLocation(str(path / name), 1, 1)))


def _reads_as_config(path: Path) -> bool:
    try:
        # Another kind of file may hang when it is opened.
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return is_ignored_config(path.name, file.read(_MAX_START_BYTES).decode("utf-8-sig", "replace"))
    except (OSError, ValueError):
        return False


def _sources(path: Path, node_name: str | None, diagnostics: Diagnostics) -> list[_Source]:
    if not _is_directory(path):
        return [_Source(str(path), path)]
    try:
        link = path / "..data"
        directory = path / link.readlink() if link.is_symlink() else path
        names = sorted(file.name for file in directory.iterdir() if is_config_file(file.name))
    except OSError as error:
        diagnostics.add(
            ErrorCode.UNREADABLE, SourceLocation(str(path), 1, 1), f"cannot read the directory: {error.strerror}"
        )
        return []
    selected = [name for name in names if node_of(name) in (None, node_name)]
    if not selected:
        hint = f"genplug reads files that end in {', '.join(SUFFIXES)}; files named node.* apply to one node only"
        diagnostics.add(
            ErrorCode.UNREADABLE,
            SourceLocation(str(path), 1, 1),
            "the directory contains no configuration file",
            hint=hint,
        )
    return [_Source(str(path / name), directory / name) for name in selected]


def _read_all(sources: Sequence[_Source], diagnostics: Diagnostics) -> Iterator[ConfigFile]:
    """Yield the text of each file that can be read, while all of them together have a size within the limit."""
    size = 0
    for source in sources:
        text = _read(source, diagnostics)
        if text is None:
            continue
        size += len(text.text)
        if size > MAX_CONFIG_BYTES:
            message = (
                f"the files of the configuration up to here are larger than {MAX_CONFIG_BYTES >> 20} MiB, the maximum"
            )
            hint = "remove comments, and move parts to files for single nodes (node.NAME.yaml)"
            diagnostics.add(ErrorCode.LIMIT, SourceLocation(source.name, 1, 1), message, hint=hint)
            return
        yield text


def _read(source: _Source, diagnostics: Diagnostics) -> ConfigFile | None:
    location = SourceLocation(source.name, 1, 1)
    try:
        with source.path.open("rb") as file:
            # One byte more than allowed is enough to reject the file, even an endless one.
            return decode_utf8(file.read(MAX_FILE_BYTES + 1), source.name, diagnostics)
    except FileNotFoundError:
        hint = "check the path, and that the ConfigMap is mounted there"
        diagnostics.add(ErrorCode.UNREADABLE, location, "no such file or directory", hint=hint)
    except OSError as error:
        diagnostics.add(ErrorCode.UNREADABLE, location, f"cannot read the file: {error.strerror}")
    except ValueError as error:
        diagnostics.add(ErrorCode.UNREADABLE, location, f"cannot read the file: {error}")
    return None


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    # A pipe can be read once only, and reading changes its times.
    return (found.st_ino, found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else ()


def _directories(path: Path) -> Iterator[Path]:
    """Yield the directories to watch for changes of a path, of the symlinks that lead to it, and of its entries."""
    for _ in range(_MAX_LINKS):
        if not path.is_symlink():
            break
        yield path.parent
        target = Path(os.path.realpath(path.parent)) / path.readlink()
        path = Path(os.path.realpath(target.parent)) / target.name
    # Watch the nearest existing ancestor of a path that does not exist yet.
    yield next((ancestor for ancestor in (path, *path.parents) if _is_directory(ancestor)), Path("/"))


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # Unreadable counts as missing; opening it reports the reason.
        return False
