"""Methods to write a configuration file, as people and programs write files.

Each method causes different inotify events in the directory.
"""

import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final


def write_in_place(path: Path, text: str) -> None:
    """Truncate the file and write it, as a redirection of a shell does. For a moment the file is empty."""
    path.write_text(text)


def write_by_rename(path: Path, text: str) -> None:
    """Write a new file and rename it to the path, so that readers find the old or the new content."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(3)}")
    new.write_text(text)
    new.rename(path)


def write_as_vim(path: Path, text: str) -> None:
    """Write the file as vim does: create a test file, rename the old file, write the new file, delete the old file."""
    test_file, backup = path.with_name("4913"), path.with_name(f"{path.name}~")
    test_file.touch()
    test_file.unlink()
    if path.exists():
        path.rename(backup)
    path.write_text(text)
    backup.unlink(missing_ok=True)


def write_as_config_map(path: Path, text: str) -> None:
    """Add or replace a file in a ConfigMap volume."""
    directory = path.parent
    present = {entry.name: entry.read_text() for entry in directory.iterdir() if entry.is_symlink() and entry.is_file()}
    swap_config_map(directory, present | {path.name: text})


def swap_config_map(directory: Path, files: Mapping[str, str]) -> None:
    """Replace all files in a directory, as the kubelet updates a ConfigMap volume.

    The files are written to a directory that is named after the time. A rename replaces the link ``..data`` with a link
    to that directory. The names of the files are links into ``..data``, and the old directory is removed last.
    """
    data = directory / "..data"
    old = directory / data.readlink() if data.is_symlink() else None
    new = directory / f"{time.strftime('..%Y_%m_%d_%H_%M_%S')}.{secrets.randbelow(10**9)}"
    new.mkdir()
    for name, text in files.items():
        (new / name).write_text(text)
    swap = directory / "..data_tmp"
    swap.symlink_to(new.name)
    swap.rename(data)
    for name in files:
        if not (directory / name).is_symlink():
            (directory / name).unlink(missing_ok=True)
            (directory / name).symlink_to(Path("..data", name))
    for entry in list(directory.iterdir()):
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in files:
            entry.unlink()
    if old is not None:
        shutil.rmtree(old)


WRITE_METHODS: Final[Mapping[str, Callable[[Path, str], None]]] = MappingProxyType(
    {"in_place": write_in_place, "rename": write_by_rename, "editor": write_as_vim, "configmap": write_as_config_map}
)
"""The methods by name."""
