r"""Create the files of a machine from a text, a tree, with an entry on each line.

# An entry is a device node, a link, a file with its content, a directory, or a socket.
/dev/nvidia0 char 195:0
/sys/bus/pci/devices/0000:3b:00.0 -> ../../../devices/pci0000:3a/0000:3b:00.0
/sys/devices/pci0000:3a/0000:3b:00.0/vendor = 0x10de
/run/vendor/ directory
/run/vendor/x.sock socket

Parent directories are created; ``\n`` in the content of a file is a line break. Device nodes are stand-in files
(``STAND_INS_MARKER``), which can be created without root.
"""

import os
import re
import socket
from pathlib import Path

from genplug.hardware.host import STAND_INS_MARKER

_NODE = re.compile(r"(/\S+) (char|block) (\d+:\d+)")
_LINK = re.compile(r"(/\S+) -> (\S+)")
_FILE = re.compile(r"(/\S+) = ?(.*)")
_OTHER = re.compile(r"(/\S+?)/? (directory|socket)")


class TreeError(ValueError):
    """A line is not an entry, or its file cannot be created; the message contains the line."""


def build_tree(text: str, root: Path) -> None:
    """Create the files of a tree in a directory.

    Raises:
        TreeError: a line is not an entry, or its file cannot be created.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / STAND_INS_MARKER).touch()
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            try:
                _create_entry(entry, root)
            except OSError as error:
                raise TreeError(f"line {number}: {entry!r}: {error}") from error
            except TreeError:
                raise TreeError(
                    f"line {number}: {entry!r} is not an entry of a tree, for example '/dev/x char 240:0'"
                ) from None


def _create_entry(entry: str, root: Path) -> None:
    if found := _NODE.fullmatch(entry):
        _prepare_path(root, found[1]).write_text(f"{found[2]} {found[3]}\n")
    elif found := _LINK.fullmatch(entry):
        _prepare_path(root, found[1]).symlink_to(found[2])
    elif found := _FILE.fullmatch(entry):
        _prepare_path(root, found[1]).write_text(found[2].replace("\\n", "\n") + "\n")
    elif found := _OTHER.fullmatch(entry):
        location = _prepare_path(root, found[1])
        if found[2] == "directory":
            location.mkdir(exist_ok=True)
        else:
            _bind_socket(location)
    else:
        raise TreeError


def _prepare_path(root: Path, path: str) -> Path:
    location = root / path.lstrip("/")
    location.parent.mkdir(parents=True, exist_ok=True)
    return location


def _bind_socket(location: Path) -> None:
    # The path of a socket has at most 107 bytes. The path of an open descriptor is short.
    directory = os.open(location.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{directory}/{location.name}")
    finally:
        os.close(directory)
