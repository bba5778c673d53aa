"""The workflows of GitHub run fixed versions of actions and sessions that exist."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_have_a_commit_and_name_its_version(path: Path) -> None:
    used = re.findall(r"^ *(?:- )?uses: (.*)$", path.read_text(), re.MULTILINE)
    assert used
    assert [text for text in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v[\d.]+", text)] == []


def test_an_action_has_the_same_commit_everywhere() -> None:
    used = {text for path in WORKFLOWS for text in re.findall(r"uses: (.*)$", path.read_text(), re.MULTILINE)}
    assert len(used) == len({text.split("@")[0] for text in used})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_packages_are_installed_with_hashes_or_without_dependencies(path: Path) -> None:
    commands = re.findall(r"pip install (.*)$", path.read_text(), re.MULTILINE)
    assert commands
    assert {command for command in commands if "--require-hashes" not in command} <= {
        "--no-deps --no-build-isolation --editable ."
    }


def test_jobs_can_only_read_by_default() -> None:
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}


def test_sessions_of_the_workflows_exist() -> None:
    sessions = set(
        re.findall(r"^@nox\.session(?:\(name=\"(.+)\"\))?\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    )
    known = {name or function for name, function in sessions}
    named = set()
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        for job in workflow["jobs"].values():
            named |= set(job.get("strategy", {}).get("matrix", {}).get("session", []))
            for step in job["steps"]:
                named |= set(re.findall(r"--session ([\w-]+)", step.get("run", "")))
    assert named >= {"audit", "release", "test"}
    assert named <= known


def test_lock_of_the_development_dependencies_has_hashes() -> None:
    text = (ROOT / "requirements-dev.lock").read_text()
    entries = re.split(r"\n(?=\w)", text.strip())
    assert len(entries) > 50
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
