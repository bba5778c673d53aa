"""A directory for the files that targets write."""

import tempfile
from functools import cache
from pathlib import Path

_DIRECTORIES: list[tempfile.TemporaryDirectory[str]] = []
"""Removed at the end of the process; the runner removes those of processes that libFuzzer ends."""


@cache
def scratch_directory(name: str) -> Path:
    """Return a directory of this process."""
    directory = tempfile.TemporaryDirectory(prefix=f"genplug-fuzz-{name}-")
    _DIRECTORIES.append(directory)
    return Path(directory.name)
