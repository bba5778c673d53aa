"""Which files make a configuration, and one consistent reading of them (config-language: One file).

A ConfigMap's folder is swapped as a whole by its ``..data`` link: the link is resolved once, everything is read through
it, and it must still be the same afterwards. Other files are compared before and after.
"""

import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from genplug.config.diagnostics import Code, Problems
from genplug.config.yaml_tree import MOST_BYTES
from genplug.spec.location import Place

SUFFIXES = (".yaml", ".yml", ".json")
OVERLAY = "node."
"""Files of this prefix are for one node: ``node.<node-name>.yaml``."""
_TRIES = 5
_PAUSE = 0.02
_MOST_LINKS = 40
"""As the kernel has it."""


@frozen
class Text:
    """One file of a configuration: the name to show, and what it says."""

    name: str
    text: str


@frozen
class Reading:
    """All files of a configuration, in the order in which they merge, and the folders in which they may change."""

    texts: tuple[Text, ...]
    folders: frozenset[Path]


@frozen
class _Source:
    """A file to read: the name to show, and the path, which for a ConfigMap leads through its resolved ``..data``."""

    name: str
    path: Path


def read_files(paths: Sequence[Path], node_name: str | None, problems: Problems) -> Reading:
    """Return one consistent reading of files and directories; what cannot be read is noted as a problem."""
    for remaining in reversed(range(_TRIES)):
        attempt = Problems()
        sources = [one for path in paths for one in _sources(path, node_name, attempt)]
        before = [_state(one.path) for one in sources]
        texts = [text for one in sources if (text := _read(one, attempt)) is not None]
        again = [one for path in paths for one in _sources(path, node_name, Problems())]
        if again == sources and [_state(one.path) for one in sources] == before:
            break
        if not remaining:
            message, hint = "the files change while they are read", "have them replaced in one step, by a rename"
            attempt.add(Code.UNREADABLE, Place(str(paths[0]), 1, 1), message, hint=hint)
        # Somebody is writing: a moment later it is whole.
        time.sleep(_PAUSE)
    problems.found.extend(attempt.found)
    texts.sort(key=lambda text: node_of(Path(text.name).name) is not None)
    return Reading(tuple(texts), frozenset(folder for path in paths for folder in _folders(path)))


def decoded(content: bytes, name: str, problems: Problems) -> Text | None:
    """Return a file's content as text; None, and a problem noted, where it is none."""
    try:
        return Text(name, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        # Counted from behind the byte order mark, if there is one.
        before = error.object[: error.start]
        place = Place(name, before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode()) + 1)
        message = f"the byte 0x{error.object[error.start]:02x} is not UTF-8"
        problems.add(Code.UNREADABLE, place, message, hint="save the file as UTF-8 text")
        return None


def node_of(name: str) -> str | None:
    """Return the node that a file of this name is for; None if it is for every node."""
    return Path(name).stem.removeprefix(OVERLAY) if name.startswith(OVERLAY) else None


def nodes_of(paths: Sequence[Path]) -> list[str]:
    """Return the nodes that have a file of their own in these directories."""
    names = [one.name for path in paths if _is_folder(path) for one in path.iterdir() if is_config_file(one.name)]
    return sorted({node for name in names if (node := node_of(name)) is not None})


def is_config_file(name: str) -> bool:
    """Say whether a file of this name in a directory is part of the configuration."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def _sources(path: Path, node_name: str | None, problems: Problems) -> list[_Source]:
    if not _is_folder(path):
        return [_Source(str(path), path)]
    try:
        link = path / "..data"
        folder = path / link.readlink() if link.is_symlink() else path
        names = sorted(one.name for one in folder.iterdir() if is_config_file(one.name))
    except OSError as error:
        problems.add(Code.UNREADABLE, Place(str(path), 1, 1), f"the folder cannot be read: {error.strerror}")
        return []
    counted = [name for name in names if node_of(name) in (None, node_name)]
    if not counted:
        hint = f"genplug reads files that end in {', '.join(SUFFIXES)}, and those named node.* on their node only"
        problems.add(Code.UNREADABLE, Place(str(path), 1, 1), "the folder holds no configuration", hint=hint)
    return [_Source(str(path / name), folder / name) for name in counted]


def _read(source: _Source, problems: Problems) -> Text | None:
    place = Place(source.name, 1, 1)
    try:
        with source.path.open("rb") as file:
            # One byte more than is allowed is enough to refuse it, whatever endless thing it is.
            return decoded(file.read(MOST_BYTES + 1), source.name, problems)
    except FileNotFoundError:
        hint = "check the path, and that the ConfigMap is mounted there"
        problems.add(Code.UNREADABLE, place, "there is no such file or folder", hint=hint)
    except OSError as error:
        problems.add(Code.UNREADABLE, place, f"it cannot be read: {error.strerror}")
    except ValueError as error:
        problems.add(Code.UNREADABLE, place, f"it cannot be read: {error}")
    return None


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    # What comes through a pipe is read once: its times change by reading.
    return (found.st_ino, found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else ()


def _folders(path: Path) -> Iterator[Path]:
    """Yield where it shows that a path, a link on the way to it, or what is in it changes."""
    for _ in range(_MOST_LINKS):
        if not path.is_symlink():
            break
        yield path.parent
        target = Path(os.path.realpath(path.parent)) / path.readlink()
        path = Path(os.path.realpath(target.parent)) / target.name
    # What is not there yet may be made: then its nearest ancestor tells.
    yield next((one for one in (path, *path.parents) if _is_folder(one)), Path("/"))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # Nobody may look: as good as missing, and whoever opens it is told why.
        return False
