"""Every machine of the tests: the trees of the recipes, and the captured ``/sys`` of real machines with their nodes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from genplug.testing.machines.catalog import build_machine
from genplug.testing.node.file_trees import build_tree
from tests.support.recipes import RECIPES
from tests.support.sysroots import SYSROOTS, extract_sysroot

CAPTURES = sorted(path.name.removesuffix(".tar.gz") for path in SYSROOTS.glob("*.tar.gz"))
MACHINES = [*RECIPES, *CAPTURES]


@contextmanager
def open_machine(name: str) -> Iterator[Path]:
    """Yield the root of a machine whose kernel log can be read and is empty."""
    # The path of a socket in a tree has at most 107 bytes.
    root = Path(mkdtemp(prefix="gp", dir="/tmp"))
    try:
        if name in CAPTURES:
            extract_sysroot(name, root)
            build_tree("\n".join(list_nodes(root)), root)
        else:
            build_machine(name, root)
        location = root / "dev" / "kmsg"
        location.parent.mkdir(exist_ok=True)
        os.mkfifo(location)
        log = os.open(location, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield root
        finally:
            os.close(log)
    finally:
        rmtree(root)


def list_nodes(root: Path) -> Iterator[str]:
    """Yield the entries of a tree for the device nodes that a captured ``/sys`` describes."""
    links = set()
    for dev in sorted((root / "sys" / "devices").rglob("dev")):
        numbers, directory = dev.read_text().strip(), dev.parent
        if not dev.is_file() or ":" not in numbers:
            continue
        uevent = (directory / "uevent").read_text().splitlines() if (directory / "uevent").is_file() else []
        name = next((line.partition("=")[2] for line in uevent if line.startswith("DEVNAME=")), directory.name)
        kind = "block" if "/block/" in f"{directory}/" else "char"
        yield f"/dev/{name} {kind} {numbers}"
        link = root / "sys" / "dev" / kind / numbers
        if not link.is_symlink() and link not in links:
            links.add(link)
            yield f"/sys/dev/{kind}/{numbers} -> ../../{directory.relative_to(root / 'sys')}"
