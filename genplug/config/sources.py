"""Which files make a configuration, and one consistent reading of them (config-language: One file).

A ConfigMap's folder is swapped as a whole by its ``..data`` link: the link is resolved once, everything is read through
it, and it must still be the same afterwards. Other files are compared before and after.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from genplug.config.place import Place
from genplug.config.problem import Code, Problems

SUFFIXES = (".yaml", ".yml", ".json")
OVERLAY = "node."
"""Files of this prefix are for one node: ``node.<node-name>.yaml``."""
_TRIES = 5
_PAUSE = 0.02


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


def read_files(paths: Sequence[Path], node_name: str | None, problems: Problems) -> Reading:
    """Return one consistent reading of files and directories; what cannot be read is noted as a problem."""
    folders = frozenset(folder for path in paths for folder in _folders(path))
    for remaining in range(_TRIES, 0, -1):
        attempt = Problems()
        before = _state(paths)
        texts = tuple(text for path in paths for text in _texts(path, node_name, attempt))
        if _state(paths) == before or remaining == 1:
            break
        # Somebody is writing: a moment later it is whole.
        time.sleep(_PAUSE)
    problems.found.extend(attempt.found)
    overlays = tuple(text for text in texts if _is_overlay(Path(text.name).name))
    base = tuple(text for text in texts if text not in overlays)
    return Reading(base + overlays, folders)


def is_for_node(name: str, node_name: str | None) -> bool:
    """Say whether a file of this name counts on a node."""
    return not _is_overlay(name) or (node_name is not None and Path(name).stem == OVERLAY + node_name)


def is_config_file(name: str) -> bool:
    """Say whether a file of this name in a directory is part of the configuration."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def _is_overlay(name: str) -> bool:
    return name.startswith(OVERLAY)


def _data(path: Path) -> Path | None:
    """Return the folder that a ConfigMap's ``..data`` points to now, or None where there is none."""
    link = path / "..data"
    return path / link.readlink() if link.is_symlink() else None


def _folders(path: Path) -> Iterator[Path]:
    # A folder that is not there yet may be made: then its parent tells.
    yield path if path.is_dir() else path.parent
    if path.is_symlink():
        yield path.resolve().parent


def _files(path: Path, node_name: str | None) -> list[tuple[str, Path]]:
    if not path.is_dir():
        return [(str(path), path)]
    data = _data(path)
    names = [one.name for one in path.iterdir() if is_config_file(one.name) and is_for_node(one.name, node_name)]
    # Through the resolved folder: what `..data` is swapped to meanwhile is another set.
    return [
        (str(path / name), data / name if data is not None and (data / name).exists() else path / name)
        for name in sorted(names)
    ]


def _texts(path: Path, node_name: str | None, problems: Problems) -> Iterator[Text]:
    start = Place(str(path), 1, 1)
    try:
        files = _files(path, node_name)
    except OSError as error:
        problems.add(Code.UNREADABLE, start, f"the folder cannot be read: {error.strerror}")
        return
    if path.is_dir() and not files:
        hint = f"genplug reads files that end in {', '.join(SUFFIXES)}"
        problems.add(Code.UNREADABLE, start, "the folder holds no configuration", hint=hint)
    for name, file in files:
        place = Place(name, 1, 1)
        try:
            yield Text(name, file.read_bytes().decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            hint = "save the file as UTF-8 text"
            problems.add(Code.UNREADABLE, place, f"byte {error.start} is not UTF-8", hint=hint)
        except FileNotFoundError:
            hint = "check the path given with --config, and that the ConfigMap is mounted there"
            problems.add(Code.UNREADABLE, place, "there is no such file or folder", hint=hint)
        except OSError as error:
            problems.add(Code.UNREADABLE, place, f"it cannot be read: {error.strerror}")


def _state(paths: Sequence[Path]) -> tuple[object, ...]:
    state: list[object] = []
    for path in paths:
        try:
            data = _data(path) if path.is_dir() else None
            files = [path] if not path.is_dir() else sorted(path.iterdir())
            stats = [(file.name, file.stat()) for file in files if data is None and file.is_file()]
            state.append((data, [(name, found.st_ino, found.st_mtime_ns, found.st_size) for name, found in stats]))
        except OSError:
            state.append(None)
    return tuple(state)
