"""Install wheels into a directory with pip, for the builds of the wheel and of the packages."""  # noqa: INP001 - a script, not a package

import os
import subprocess
import sys
from pathlib import Path


def install_wheels(target: Path, *arguments: str | Path) -> None:
    """Unpack wheels into a directory, without their dependencies, byte code or messages of pip."""
    command: list[str | Path] = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
        *(f"--target={target}", "--no-deps", "--only-binary=:all:"),
        *arguments,
    ]
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
    subprocess.run(command, check=True, env=environment)  # noqa: S603 - the arguments come from the scripts


def install_locked_wheels(target: Path, lock: Path, *arguments: str | Path) -> None:
    """Unpack the wheels of a lock file; pip compares the hash of each."""
    install_wheels(target, "--require-hashes", "--requirement", lock, *arguments)
