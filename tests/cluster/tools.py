"""The programs that .ci/tools and tests/cluster/build install for the cluster tests."""

import os
from collections.abc import Iterable
from pathlib import Path

TOOLS = Path(os.environ.get("GENPLUG_TOOLS", Path.home() / ".cache/genplug/tools"))
"""The directory of the programs."""


def find_versions(program: str) -> list[Path]:
    """Return the directories of the versions of Kubernetes that have a program, oldest version first."""
    return _sort_versions(path.parent for path in TOOLS.glob(f"kubernetes/*/{program}"))


def find_containerd() -> Path:
    """Return the directory of the newest containerd.

    Raises:
        FileNotFoundError: tests/cluster/build has not built containerd.
    """
    versions = _sort_versions(path.parent for path in TOOLS.glob("containerd/*/ctr"))
    if not versions:
        raise FileNotFoundError(f"{TOOLS}/containerd: expected a version of containerd; run tests/cluster/build")
    return versions[-1]


def _sort_versions(directories: Iterable[Path]) -> list[Path]:
    return sorted(directories, key=lambda directory: [int(part) for part in directory.name.split(".")])
