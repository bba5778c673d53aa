"""Build the wheel and the sdist of genplug with the locked build backend.

``python deploy/packages/build_wheel.py --output dist`` writes both files. Requires pip only: it installs the backend
from ``deploy/image/build.lock``, with the hash of each file, into a temporary directory. Equal sources give equal
files, whatever the directory, the umask, the time zone and the times of the files are.
"""  # noqa: INP001 - a script, not a package

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from locked_wheels import install_locked_wheels

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "deploy/image/build.lock"


def main() -> None:
    """Build both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="directory of the result (default: dist)")
    output = parser.parse_args().output.resolve()
    with tempfile.TemporaryDirectory() as directory:
        install_locked_wheels(Path(directory), LOCK)
        # -P: the directories of the checkout are not packages of the backend.
        hatchling = [sys.executable, "-P", "-m", "hatchling", "build", "--directory", str(output)]
        environment = {**os.environ, "PYTHONPATH": directory}
        subprocess.run(hatchling, check=True, cwd=ROOT, env=environment)  # noqa: S603 - the arguments come from this file


if __name__ == "__main__":
    main()
