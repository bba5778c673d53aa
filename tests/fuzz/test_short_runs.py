"""A short run of every fuzzing target, and the tool itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import load_targets

ROOT = Path(__file__).parents[2]


def run_fuzzer(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m tests.fuzz``; equal arguments give equal runs."""
    return subprocess.run(
        (sys.executable, "-m", "tests.fuzz", *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.fuzzer
@pytest.mark.timeout(300)
def test_short_run_has_no_findings(tmp_path: Path) -> None:
    run = run_fuzzer("--short", "--seed", "1", "--state", str(tmp_path))
    reports = "\n".join(path.read_text() for path in tmp_path.glob("findings/*/*.txt"))
    assert run.returncode == 0, f"{run.stdout}{run.stderr}{reports}"
    for target in load_targets():
        assert f"{target.name} " in run.stdout
