"""Print the tree of an archive of ``genplug capture``, for genplug/testing/machines/trees.

``python -m tests.support.tree_of_archive node.tar.gz '/dev/ptp*' > genplug/testing/machines/trees/ptp-clock.tree``

An archive has every name under ``/dev``; the globs select the names that the recipe needs. Everything else is printed.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from genplug.capture.archive import open_root
from genplug.hardware.host import STAND_INS_MARKER

_STAND_IN = re.compile(r"(char|block) \d+:\d+")


def tree_lines(root: Path, device_globs: Sequence[str]) -> Iterator[str]:
    """Yield the entries of the files under a root, in the form of :mod:`genplug.testing.node.file_trees`."""
    for directory, subdirectories, files in os.walk(root):
        subdirectories.sort()
        if not subdirectories and not files and directory != str(root):
            yield f"/{Path(directory).relative_to(root)}/ directory"
        links = [name for name in subdirectories if Path(directory, name).is_symlink()]
        for name in sorted([*files, *links]):
            path = Path(directory, name)
            host_path = f"/{path.relative_to(root)}"
            is_device_name = host_path.startswith("/dev/")
            if name == STAND_INS_MARKER or (
                is_device_name and not any(fnmatchcase(host_path, glob) for glob in device_globs)
            ):
                continue
            yield f"{host_path} {_content(path, is_device_name=is_device_name)}"


def _content(path: Path, *, is_device_name: bool) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    if path.is_socket():
        return "socket"
    text = path.read_text("latin-1").removesuffix("\n")
    if is_device_name and _STAND_IN.fullmatch(text):
        return text
    return f"= {text}".replace("\n", "\\n")


if __name__ == "__main__":
    with open_root(sys.argv[1]) as unpacked:
        print("\n".join(tree_lines(unpacked, sys.argv[2:])))
