"""The notes that Helm prints after an installation: their commands exist and their manifest is valid."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart import (
    CHART,
    FUSE,
    MINIMAL,
    TOOLS,
    Values,
    get_daemonsets,
    load_yaml,
    merge_values,
    render,
    run_program,
)

# In CI, where the tools are required, the other tests of the chart fail without it.
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the dev extra")
pytestmark = pytest.mark.helm


def render_notes(values: Values, directory: Path, namespace: str = "devices") -> str:
    (directory / "values.yaml").write_text(json.dumps(values))
    # Only Helm 4 renders the notes without a cluster.
    command: list[str | Path] = [
        TOOLS / "helm4",
        "install",
        "genplug",
        CHART,
        "--namespace",
        namespace,
        "--dry-run=client",
    ]
    command += ["--values", directory / "values.yaml", "--kubeconfig", directory / "none"]
    run = run_program(*command)
    assert run.returncode == 0, run.stderr
    return run.stdout.split("\nNOTES:\n")[1]


def test_notes_wait_for_every_daemonset(tmp_path: Path) -> None:
    values = merge_values(MINIMAL, {"pools": {"lab": {}, "edge": {}, "attic": {"enabled": False}}})
    waited = re.findall(r"kubectl -n devices rollout status ds/(\S+)", render_notes(values, tmp_path))
    assert sorted(waited) == sorted(
        daemonset["metadata"]["name"] for daemonset in get_daemonsets(render(values)).values()
    )


def test_pod_in_the_notes_is_valid_and_requests_a_configured_resource(tmp_path: Path) -> None:
    (text,) = re.findall(r"<<END\n(.*?)\n *END\n", render_notes(MINIMAL, tmp_path), re.DOTALL)
    pod: dict[str, Any] = load_yaml(text)
    assert kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    assert pod["spec"]["containers"][0]["resources"] == {"limits": {FUSE: 1}}


def test_genplug_commands_in_the_notes_exist(tmp_path: Path) -> None:
    used = set(re.findall(r"-- genplug (\w+)", render_notes(MINIMAL, tmp_path)))
    assert used
    for command in used:
        run = run_program(sys.executable, "-m", "genplug", command, "--help")
        assert run.returncode == 0, f"genplug has no command {command}"


def test_notes_warn_about_the_default_namespace_only(tmp_path: Path) -> None:
    assert "The agents run in the namespace default." in render_notes(MINIMAL, tmp_path, "default")
    assert "The agents run in the namespace default." not in render_notes(MINIMAL, tmp_path)


def test_notes_name_pools_that_have_more_privileges_than_they_need(tmp_path: Path) -> None:
    lab = {"daemonset": {"privileged": True}, "policy": {"openProbe": True}}
    text = "The agents of pool lab are privileged, but no `open` probe in their configuration needs it."
    assert text in render_notes(merge_values(MINIMAL, {"pools": {"lab": lab}}), tmp_path)
    probes: Values = {"config": {"resources": {FUSE: {"health": {"probes": [{"open": {}}]}}}}}
    assert "privileged, but" not in render_notes(merge_values(MINIMAL, {"pools": {"lab": {**lab, **probes}}}), tmp_path)


def test_notes_refer_to_the_needs_of_an_existing_configmap(tmp_path: Path) -> None:
    pools = {"lab": {"config": {"existingConfigMap": "mine"}}}
    command = "kubectl -n devices get configmap mine -o yaml | genplug validate --privileges -"
    assert command in render_notes(merge_values(MINIMAL, {"pools": pools}), tmp_path)
    pools["lab"]["daemonset"] = {"kernelLog": "always"}
    assert command not in render_notes(merge_values(MINIMAL, {"pools": pools}), tmp_path)
