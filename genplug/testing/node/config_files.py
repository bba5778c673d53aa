"""A configuration's file, written as people and programs write files: each way makes other events in its directory."""

import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final


def write_in_place(path: Path, text: str) -> None:
    """Truncate the file and write it, as a shell's redirection does: for a moment it is empty."""
    path.write_text(text)


def write_by_rename(path: Path, text: str) -> None:
    """Write a new file and rename it over the old one, as careful programs do."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(3)}")
    new.write_text(text)
    new.rename(path)


def write_as_vim(path: Path, text: str) -> None:
    """Write as vim does: a trial file, the old file renamed to a backup, a new one, the backup deleted."""
    trial, backup = path.with_name("4913"), path.with_name(f"{path.name}~")
    trial.touch()
    trial.unlink()
    if path.exists():
        path.rename(backup)
    path.write_text(text)
    backup.unlink(missing_ok=True)


def write_as_config_map(path: Path, text: str) -> None:
    """Add or replace one file of a ConfigMap volume."""
    directory = path.parent
    now = {one.name: one.read_text() for one in directory.iterdir() if one.is_symlink() and one.is_file()}
    swap_config_map(directory, now | {path.name: text})


def swap_config_map(directory: Path, files: Mapping[str, str]) -> None:
    """Make a directory hold exactly these files, as the kubelet updates a ConfigMap volume.

    A directory with a time for a name is written, ``..data`` is swapped to it by a rename, names are links into
    ``..data``, and the old directory goes last.
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
"""Every way by its name."""
