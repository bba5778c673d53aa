"""Writes requirements.lock and build.lock: the image's wheels by version and by hash for each platform.

Run it to take newer versions: ``python3.11 deploy/image/lock.py``. Both builds of one commit then hold the same files.
"""  # noqa: INP001 - a script, not a package

import subprocess
import sys
import tempfile
import tomllib
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
MACHINES = ("x86_64", "aarch64")


def locked(requirements: list[str]) -> str:
    """Each wheel that the requirements lead to on any of the platforms, as pip's hash-checking mode reads it."""
    hashes: dict[str, set[str]] = {}
    for machine in MACHINES:
        with tempfile.TemporaryDirectory() as folder:
            platforms = [f"--platform={tag}_{machine}" for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, "--only-binary=:all:"]
            version = ["--implementation=cp", "--python-version=3.11"]
            subprocess.run([*command, *version, *platforms, *requirements], check=True)  # noqa: S603 - as written above
            for wheel in Path(folder).glob("*.whl"):
                name, number, *_ = wheel.name.split("-")
                pin = f"{name.replace('_', '-').lower()}=={number}"
                hashes.setdefault(pin, set()).add(sha256(wheel.read_bytes()).hexdigest())
    lines = [
        " \\\n    ".join([pin, *(f"--hash=sha256:{one}" for one in sorted(hashes[pin]))]) for pin in sorted(hashes)
    ]
    return "# Made by deploy/image/lock.py.\n" + "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Write both files."""
    project = tomllib.loads((HERE.parent.parent / "pyproject.toml").read_text())
    (HERE / "requirements.lock").write_text(locked(project["project"]["dependencies"]))
    (HERE / "build.lock").write_text(locked(project["build-system"]["requires"]))


if __name__ == "__main__":
    main()
