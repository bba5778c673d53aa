"""Which files make a configuration, and one consistent reading of them (config-language: One file).

A ConfigMap's directory is swapped as a whole by its ``..data`` link: the link is resolved once, everything is read
through it, and it must still be the same afterwards. Other files are compared before and after.
"""

import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from genplug.config.diagnostics import Diagnostics, ErrorCode
from genplug.config.yaml_tree import MAX_BYTES
from genplug.spec.location import SourceLocation

SUFFIXES = (".yaml", ".yml", ".json")
OVERLAY = "node."
"""Files of this prefix are for one node: ``node.<node-name>.yaml``."""
_TRIES = 5
_PAUSE = 0.02
_MAX_LINKS = 40
"""As the kernel has it."""


@frozen
class ConfigFile:
    """One file of a configuration: the name to show, and what it says."""

    name: str
    text: str


@frozen
class ConfigFiles:
    """All files of a configuration, in the order in which they merge, and the directories in which they may change."""

    texts: tuple[ConfigFile, ...]
    directories: frozenset[Path]


@frozen
class _Source:
    """A file to read: the name to show, and the path, which for a ConfigMap leads through its resolved ``..data``."""

    name: str
    path: Path


def read_files(paths: Sequence[Path], node_name: str | None, problems: Diagnostics) -> ConfigFiles:
    """Return one consistent reading of files and directories; what cannot be read is noted as a problem."""
    for remaining in reversed(range(_TRIES)):
        attempt = Diagnostics()
        sources = [one for path in paths for one in _sources(path, node_name, attempt)]
        before = [_state(one.path) for one in sources]
        texts = [text for one in sources if (text := _read(one, attempt)) is not None]
        again = [one for path in paths for one in _sources(path, node_name, Diagnostics())]
        if again == sources and [_state(one.path) for one in sources] == before:
            break
        if not remaining:
            message, hint = "the files change while they are read", "have them replaced in one step, by a rename"
            attempt.add(ErrorCode.UNREADABLE, SourceLocation(str(paths[0]), 1, 1), message, hint=hint)
        # Somebody is writing: a moment later it is whole.
        time.sleep(_PAUSE)
    problems.found.extend(attempt.found)
    texts.sort(key=lambda text: node_of(Path(text.name).name) is not None)
    return ConfigFiles(tuple(texts), frozenset(directory for path in paths for directory in _directories(path)))


def decode_utf8(content: bytes, name: str, problems: Diagnostics) -> ConfigFile | None:
    """Return a file's content as text; None, and a problem noted, where it is none."""
    try:
        return ConfigFile(name, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        # Counted from behind the byte order mark, if there is one.
        before = error.object[: error.start]
        location = SourceLocation(name, before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode()) + 1)
        message = f"the byte 0x{error.object[error.start]:02x} is not UTF-8"
        problems.add(ErrorCode.UNREADABLE, location, message, hint="save the file as UTF-8 text")
        return None


def node_of(name: str) -> str | None:
    """Return the node that a file of this name is for; None if it is for every node."""
    return Path(name).stem.removeprefix(OVERLAY) if name.startswith(OVERLAY) else None


def nodes_of(paths: Sequence[Path]) -> list[str]:
    """Return the nodes that have a file of their own in these directories."""
    names = [one.name for path in paths if _is_directory(path) for one in path.iterdir() if is_config_file(one.name)]
    return sorted({node for name in names if (node := node_of(name)) is not None})


def is_config_file(name: str) -> bool:
    """Say whether a file of this name in a directory is part of the configuration."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def _sources(path: Path, node_name: str | None, problems: Diagnostics) -> list[_Source]:
    if not _is_directory(path):
        return [_Source(str(path), path)]
    try:
        link = path / "..data"
        directory = path / link.readlink() if link.is_symlink() else path
        names = sorted(one.name for one in directory.iterdir() if is_config_file(one.name))
    except OSError as error:
        problems.add(
            ErrorCode.UNREADABLE, SourceLocation(str(path), 1, 1), f"the directory cannot be read: {error.strerror}"
        )
        return []
    counted = [name for name in names if node_of(name) in (None, node_name)]
    if not counted:
        hint = f"genplug reads files that end in {', '.join(SUFFIXES)}, and those named node.* on their node only"
        problems.add(
            ErrorCode.UNREADABLE, SourceLocation(str(path), 1, 1), "the directory holds no configuration", hint=hint
        )
    return [_Source(str(path / name), directory / name) for name in counted]


def _read(source: _Source, problems: Diagnostics) -> ConfigFile | None:
    location = SourceLocation(source.name, 1, 1)
    try:
        with source.path.open("rb") as file:
            # One byte more than is allowed is enough to refuse it, whatever endless thing it is.
            return decode_utf8(file.read(MAX_BYTES + 1), source.name, problems)
    except FileNotFoundError:
        hint = "check the path, and that the ConfigMap is mounted there"
        problems.add(ErrorCode.UNREADABLE, location, "there is no such file or directory", hint=hint)
    except OSError as error:
        problems.add(ErrorCode.UNREADABLE, location, f"it cannot be read: {error.strerror}")
    except ValueError as error:
        problems.add(ErrorCode.UNREADABLE, location, f"it cannot be read: {error}")
    return None


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    # What comes through a pipe is read once: its times change by reading.
    return (found.st_ino, found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else ()


def _directories(path: Path) -> Iterator[Path]:
    """Yield where it shows that a path, a link on the way to it, or what is in it changes."""
    for _ in range(_MAX_LINKS):
        if not path.is_symlink():
            break
        yield path.parent
        target = Path(os.path.realpath(path.parent)) / path.readlink()
        path = Path(os.path.realpath(target.parent)) / target.name
    # What is not there yet may be made: then its nearest ancestor tells.
    yield next((one for one in (path, *path.parents) if _is_directory(one)), Path("/"))


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # Nobody may look: as good as missing, and whoever opens it is told why.
        return False
