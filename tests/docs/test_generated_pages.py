"""The generated regions of the reference are those that docs/generate.py writes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import REFERENCE, ROOT

GENERATE = ROOT / "docs" / "generate.py"
PAGES = sorted(path.name for path in REFERENCE.glob("*.md"))


@pytest.fixture(scope="module")
def check() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, GENERATE, "--check"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("page", PAGES)
def test_page_is_up_to_date(page: str, check: subprocess.CompletedProcess[str]) -> None:
    assert check.stderr == ""
    assert f"docs/reference/{page} is not up to date" not in check.stdout


def test_check_succeeds_if_and_only_if_no_page_differs(check: subprocess.CompletedProcess[str]) -> None:
    assert (check.returncode, check.stdout) == (0, "")


def test_generation_does_not_depend_on_the_environment(tmp_path: Path) -> None:
    environment = {"GENPLUG_POLICY": "/etc/policy.yaml", "GENPLUG_LISTEN": ":1", "NODE_NAME": "n", "COLUMNS": "20"}
    run = subprocess.run(
        [sys.executable, GENERATE, "--check"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
