"""Records in the log of this machine's kernel."""

import platform
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

KMSG = Path("/dev/kmsg")
_CRASH = """
import ctypes, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)  # PR_SET_NAME
ctypes.string_at(0)
"""

needs_crash_log = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="other processors do not log crashes of programs by default"
)


def make_name() -> str:
    """Return a name for a process that no other process has."""
    return f"gp{uuid4().hex[:8]}"


def crash(name: str) -> None:
    """Run a process of this name that crashes, which the kernel logs."""
    assert subprocess.run([sys.executable, "-c", _CRASH, name], check=False).returncode < 0


def log_program(text: str) -> None:
    """Write a record to the log, as a program does."""
    KMSG.write_text(f"<3>{text}\n")
