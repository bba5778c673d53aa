r"""Trees: a part of a machine's files as a text, one entry a line, made real in a directory.

# what a line can be: a device node, a link, a file with its text, a directory, a socket
/dev/nvidia0 char 195:0
/sys/bus/pci/devices/0000:3b:00.0 -> ../../../devices/pci0000:3a/0000:3b:00.0
/sys/devices/pci0000:3a/0000:3b:00.0/vendor = 0x10de
/run/vendor/ directory
/run/vendor/x.sock socket

Parent directories are made; ``\n`` in a file's text is a line break. Device nodes are stand-ins (``STAND_INS_MARKER``),
so that anybody can make them.
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
    """A line that says nothing; the text names it."""


def build_tree(text: str, root: Path) -> None:
    """Make the files of a tree under a directory.

    Raises:
        TreeError: a line is none of a tree's.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / STAND_INS_MARKER).touch()
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            try:
                _grow(entry, root)
            except OSError as error:
                raise TreeError(f"line {number}: {entry!r}: {error}") from error
            except TreeError:
                raise TreeError(f"line {number}: {entry!r} is no entry of a tree") from None


def _grow(entry: str, root: Path) -> None:
    if found := _NODE.fullmatch(entry):
        _place(root, found[1]).write_text(f"{found[2]} {found[3]}\n")
    elif found := _LINK.fullmatch(entry):
        _place(root, found[1]).symlink_to(found[2])
    elif found := _FILE.fullmatch(entry):
        _place(root, found[1]).write_text(found[2].replace("\\n", "\n") + "\n")
    elif found := _OTHER.fullmatch(entry):
        location = _place(root, found[1])
        if found[2] == "directory":
            location.mkdir(exist_ok=True)
        else:
            _bind(location)
    else:
        raise TreeError


def _place(root: Path, path: str) -> Path:
    location = root / path.lstrip("/")
    location.parent.mkdir(parents=True, exist_ok=True)
    return location


def _bind(location: Path) -> None:
    # A socket's path has 107 bytes; a directory that is open has a short one.
    directory = os.open(location.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{directory}/{location.name}")
    finally:
        os.close(directory)
