"""What helm prints after an install: every command in it is one that works."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart import CHART, FUSE, MINIMAL, TOOLS, Values, daemonsets, loaded, over, render

# Where it is missing in CI, every other test of the chart fails for it.
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the dev extra")
pytestmark = pytest.mark.helm


def notes(values: Values, directory: Path, namespace: str = "devices") -> str:
    (directory / "values.yaml").write_text(json.dumps(values))
    # helm 3 asks a cluster for this.
    command = [TOOLS / "helm4", "install", "genplug", CHART, "--namespace", namespace, "--dry-run=client"]
    command += ["--values", directory / "values.yaml", "--kubeconfig", directory / "none"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split("\nNOTES:\n")[1]


def test_the_notes_wait_for_every_daemonset(tmp_path: Path) -> None:
    values = over(MINIMAL, {"pools": {"lab": {}, "edge": {}, "attic": {"enabled": False}}})
    waited = re.findall(r"kubectl -n devices rollout status ds/(\S+)", notes(values, tmp_path))
    assert sorted(waited) == sorted(one["metadata"]["name"] for one in daemonsets(render(values)).values())


def test_the_pod_of_the_notes_is_valid_and_asks_for_a_resource_of_the_values(tmp_path: Path) -> None:
    (text,) = re.findall(r"<<END\n(.*?)\n *END\n", notes(MINIMAL, tmp_path), re.DOTALL)
    pod: dict[str, Any] = loaded(text)
    assert kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    assert pod["spec"]["containers"][0]["resources"] == {"limits": {FUSE: 1}}


def test_every_command_of_genplug_in_the_notes_is_there(tmp_path: Path) -> None:
    used = set(re.findall(r"-- genplug (\w+)", notes(MINIMAL, tmp_path)))
    assert used
    for command in used:
        run = subprocess.run([sys.executable, "-m", "genplug", command, "--help"], capture_output=True, check=False)
        assert run.returncode == 0, f"there is no genplug {command}"


def test_the_namespace_default_is_warned_of_and_a_namespace_of_its_own_is_not(tmp_path: Path) -> None:
    assert "The agents run in the namespace default." in notes(MINIMAL, tmp_path, "default")
    assert "The agents run in the namespace default." not in notes(MINIMAL, tmp_path)
