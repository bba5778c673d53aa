"""Mounts for tests that run as root; each is unmounted at the end of its context."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genplug.testing.node.hanging_files import HangingFiles


@contextmanager
def bind_mount(source: Path, target: Path, options: str = "rw") -> Iterator[None]:
    """Mount a directory at the new directory ``target``, as a container gets a directory of the host."""
    target.mkdir(parents=True)
    subprocess.run(["mount", "--bind", source, target], check=True)
    try:
        remount(target, options)
        yield
    finally:
        subprocess.run(["umount", "--lazy", target], check=True)


def remount(target: Path, options: str) -> None:
    """Change the options of a bind mount."""
    subprocess.run(["mount", "-o", f"remount,bind,{options}", target], check=True)


@contextmanager
def mount_hanging_files(directory: Path, *names: str) -> Iterator[HangingFiles]:
    """Mount files that have the text "ok" and can hang."""
    with HangingFiles(directory, dict.fromkeys(names, "ok\n")) as files:
        yield files


@contextmanager
def mount_tmpfs(target: Path, options: str) -> Iterator[None]:
    """Mount an empty tmpfs at an existing directory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", target], check=True)
