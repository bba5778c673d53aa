"""What a release of the chart must keep: upgrades from the last one, helm's own checks, generated files up to date."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart import CHART, CI_FILES, HELMS, MINIMAL, ROOT, TOOLS, agent, daemonsets, loaded, over, render

pytestmark = pytest.mark.helm

SEMVER = re.compile(r"(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?")
RELEASED_FILES = {path.name.removesuffix("-values.yaml"): path for path in Path(__file__).parent.glob("released/*")}
RELEASED = {
    "0.1.0": {
        "default": ("genplug", {"app.kubernetes.io/name": "genplug", "app.kubernetes.io/instance": "genplug"}),
        "edge": ("genplug-edge", {"app.kubernetes.io/name": "genplug", "app.kubernetes.io/instance": "genplug"}),
        "lab": ("genplug-lab", {"app.kubernetes.io/name": "genplug", "app.kubernetes.io/instance": "genplug"}),
    }
}
"""Release -> pool -> name and selector of its DaemonSet. The API server refuses another selector at an upgrade, and
under another name the old agents would stay until the new ones wait for their sockets."""


def chart() -> dict:
    return loaded((CHART / "Chart.yaml").read_text())


def numbers(version: str) -> tuple[int, ...]:
    match = SEMVER.fullmatch(version)
    assert match, version
    return tuple(map(int, match.groups()[:3]))


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("version", RELEASED_FILES)
def test_the_values_of_a_release_still_render_and_keep_its_daemonsets(version: str, helm: str) -> None:
    found = daemonsets(render(RELEASED_FILES[version].read_text(), helm=helm))
    kept = {}
    for pool, daemonset in found.items():
        selector = dict(daemonset["spec"]["selector"]["matchLabels"])
        assert selector.pop("genplug.io/pool") == pool
        kept[pool] = (daemonset["metadata"]["name"], selector)
    assert kept == RELEASED[version]


def only(keys: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return of the tree what the keys have too."""
    return {
        key: only(keys[key], value) if isinstance(value, Mapping) and isinstance(keys[key], Mapping) else value
        for key, value in tree.items()
        if key in keys
    }


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("version", RELEASED_FILES)
def test_the_chart_needs_no_value_that_a_release_did_not_have(version: str, helm: str, tmp_path: Path) -> None:
    # With `helm upgrade --reuse-values` the old chart's values stand in for the new one's: what is new is not there.
    values = loaded(RELEASED_FILES[version].read_text())
    copy = shutil.copytree(CHART, tmp_path / "genplug")
    old = only(values, loaded((CHART / "values.yaml").read_text()))
    (copy / "values.yaml").write_text(json.dumps(old))
    assert render(values, helm=helm, chart=copy) == render(values, helm=helm)


def test_the_version_is_a_semantic_one_and_newer_than_what_is_released_or_the_release_itself() -> None:
    assert numbers(chart()["version"]) >= max(map(numbers, RELEASED_FILES))
    assert numbers(chart()["appVersion"])


def test_the_chart_says_who_maintains_it() -> None:
    assert all(one["name"] and one["url"].startswith("https://") for one in chart()["maintainers"])
    assert chart()["maintainers"]


def test_the_notes_for_artifact_hub_are_what_it_reads() -> None:
    notes = chart()["annotations"]
    assert all(isinstance(value, str) for value in notes.values())
    kinds = {change["kind"] for change in loaded(notes["artifacthub.io/changes"])}
    assert kinds
    assert kinds <= {"added", "changed", "deprecated", "removed", "fixed", "security"}
    (image,) = loaded(notes["artifacthub.io/images"])
    assert agent(daemonsets(render(MINIMAL))["default"])["image"] == image["image"]


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("path", CI_FILES, ids=lambda path: path.stem)
def test_helm_lint_has_nothing_to_say(path: Path, helm: str) -> None:
    command = [TOOLS / helm, "lint", "--strict", CHART, "--values", path]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert not re.search("WARN|ERROR", run.stdout), run.stdout


@pytest.mark.parametrize("helm", HELMS)
def test_as_a_dependency_the_chart_is_what_it_is_alone(helm: str, tmp_path: Path) -> None:
    parent = {"apiVersion": "v2", "name": "parent", "version": "1.0.0"}
    dependency = {"name": "genplug", "version": chart()["version"]}
    (tmp_path / "Chart.yaml").write_text(json.dumps(parent | {"dependencies": [dependency]}))
    (tmp_path / "values.yaml").write_text("global: {storageClass: fast}")
    (tmp_path / "charts").mkdir()
    shutil.copytree(CHART, tmp_path / "charts/genplug")
    values = loaded(RELEASED_FILES["0.1.0"].read_text())
    shared = {"global": values.pop("global")}
    found = render({"genplug": values, **shared}, helm=helm, chart=tmp_path)
    assert found == render({**values, **shared}, helm=helm)


@pytest.mark.parametrize("helm", HELMS)
def test_the_package_has_what_the_directory_has(helm: str, tmp_path: Path) -> None:
    subprocess.run([TOOLS / helm, "package", CHART, "--destination", tmp_path], check=True, capture_output=True)
    (package,) = tmp_path.iterdir()
    assert package.name == f"genplug-{chart()['version']}.tgz"
    values = RELEASED_FILES["0.1.0"].read_text()
    assert render(values, helm=helm, chart=package) == render(values, helm=helm)


def test_the_generated_files_are_up_to_date() -> None:
    command = [sys.executable, ROOT / "deploy/helm/generate.py", "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_file_that_is_not_up_to_date_is_named(tmp_path: Path) -> None:
    for part in ("deploy", "schemas"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "CHANGELOG.md", tmp_path)
    schema = tmp_path / "deploy/helm/genplug/values.schema.json"
    schema.write_text(json.dumps(over(json.loads(schema.read_text()), {"title": "edited"})))
    command = [sys.executable, tmp_path / "deploy/helm/generate.py", "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["deploy/helm/genplug/values.schema.json"]
