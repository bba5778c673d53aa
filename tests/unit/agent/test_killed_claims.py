"""Processes that are killed while they prepare and unprepare claims."""

import subprocess
import sys
from pathlib import Path

from genplug.agent.claim_files import Step


def test_claim_survives_a_process_that_is_killed_at_any_step() -> None:
    """DRA point 9."""
    command = [sys.executable, "-m", "tests.support.killed_claims", "20"]
    ended = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(": 20") == len(Step) == 8
