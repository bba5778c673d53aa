"""Releases of the chart: upgrades from earlier releases, helm lint and package, generated files."""

import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart import (
    CHART,
    CI_FILES,
    HELMS,
    MINIMAL,
    ROOT,
    TOOLS,
    get_agent,
    get_daemonsets,
    load_yaml,
    merge_values,
    render,
    run_program,
)

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
"""Release -> pool -> name and selector of its DaemonSet. Both must not change in an upgrade: the API server rejects a
changed selector, and under another name two agents would run on a node until Helm has deleted the old DaemonSet."""


def read_chart_metadata() -> dict[str, Any]:
    metadata: dict[str, Any] = load_yaml((CHART / "Chart.yaml").read_text())
    return metadata


def parse_version(version: str) -> tuple[int, ...]:
    match = SEMVER.fullmatch(version)
    assert match, version
    return tuple(map(int, match.groups()[:3]))


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("version", RELEASED_FILES)
def test_values_of_a_release_render_the_same_daemonset_names_and_selectors(version: str, helm: str) -> None:
    found = get_daemonsets(render(RELEASED_FILES[version].read_text(), helm=helm))
    kept = {}
    for pool, daemonset in found.items():
        selector = dict(daemonset["spec"]["selector"]["matchLabels"])
        assert selector.pop("genplug.io/pool") == pool
        kept[pool] = (daemonset["metadata"]["name"], selector)
    assert kept == RELEASED[version]


def select_keys(keys: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the tree whose keys exist in ``keys`` too."""
    return {
        key: select_keys(keys[key], value) if isinstance(value, Mapping) and isinstance(keys[key], Mapping) else value
        for key, value in tree.items()
        if key in keys
    }


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("version", RELEASED_FILES)
def test_chart_renders_without_values_added_after_a_release(version: str, helm: str, tmp_path: Path) -> None:
    # `helm upgrade --reuse-values` uses the values of the old chart, which lack the values that are new.
    values = load_yaml(RELEASED_FILES[version].read_text())
    copy = shutil.copytree(CHART, tmp_path / "genplug")
    old = select_keys(values, load_yaml((CHART / "values.yaml").read_text()))
    (copy / "values.yaml").write_text(json.dumps(old))
    assert render(values, helm=helm, chart=copy) == render(values, helm=helm)


def test_chart_version_is_semantic_and_not_older_than_a_release() -> None:
    assert parse_version(read_chart_metadata()["version"]) >= max(map(parse_version, RELEASED_FILES))
    assert parse_version(read_chart_metadata()["appVersion"])


def test_chart_has_maintainers() -> None:
    assert all(
        maintainer["name"] and maintainer["url"].startswith("https://")
        for maintainer in read_chart_metadata()["maintainers"]
    )
    assert read_chart_metadata()["maintainers"]


def test_artifact_hub_image_is_the_image_of_the_agent() -> None:
    annotations = read_chart_metadata()["annotations"]
    assert all(isinstance(value, str) for value in annotations.values())
    (image,) = load_yaml(annotations["artifacthub.io/images"])
    assert get_agent(get_daemonsets(render(MINIMAL))["default"])["image"] == image["image"]


def test_artifact_hub_changes_are_those_of_the_chart_version(tmp_path: Path) -> None:
    copy_generator_files(tmp_path)
    changelog = f"""
## {read_chart_metadata()["version"]}, 2026-01-02

### Security

- A limit.

### Fixed

- One error
  in two lines.
- Another error.

## 0.0.9, 2026-01-01

### Removed

- A key.
"""
    with (tmp_path / "CHANGELOG.md").open("a") as file:
        file.write(changelog)
    run = run_program(sys.executable, tmp_path / "deploy/helm/generate.py")
    assert run.returncode == 0, run.stdout + run.stderr
    annotations = load_yaml((tmp_path / "deploy/helm/genplug/Chart.yaml").read_text())["annotations"]
    assert load_yaml(annotations["artifacthub.io/changes"]) == [
        {"kind": "security", "description": "A limit."},
        {"kind": "fixed", "description": "One error in two lines."},
        {"kind": "fixed", "description": "Another error."},
    ]
    assert annotations["artifacthub.io/containsSecurityUpdates"] == "true"


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("path", CI_FILES, ids=lambda path: path.stem)
def test_helm_lint_reports_nothing(path: Path, helm: str) -> None:
    run = run_program(TOOLS / helm, "lint", "--strict", CHART, "--values", path)
    assert run.returncode == 0, run.stdout
    assert not re.search("WARN|ERROR", run.stdout), run.stdout


@pytest.mark.parametrize("helm", HELMS)
def test_chart_as_a_dependency_renders_the_same_objects(helm: str, tmp_path: Path) -> None:
    parent = {"apiVersion": "v2", "name": "parent", "version": "1.0.0"}
    dependency = {"name": "genplug", "version": read_chart_metadata()["version"]}
    (tmp_path / "Chart.yaml").write_text(json.dumps(parent | {"dependencies": [dependency]}))
    (tmp_path / "values.yaml").write_text("global: {storageClass: fast}")
    (tmp_path / "charts").mkdir()
    shutil.copytree(CHART, tmp_path / "charts/genplug")
    values = load_yaml(RELEASED_FILES["0.1.0"].read_text())
    shared = {"global": values.pop("global")}
    found = render({"genplug": values, **shared}, helm=helm, chart=tmp_path)
    assert found == render({**values, **shared}, helm=helm)


@pytest.mark.parametrize("helm", HELMS)
def test_packaged_chart_renders_the_same_objects(helm: str, tmp_path: Path) -> None:
    run = run_program(TOOLS / helm, "package", CHART, "--destination", tmp_path)
    assert run.returncode == 0, run.stderr
    (package,) = tmp_path.iterdir()
    assert package.name == f"genplug-{read_chart_metadata()['version']}.tgz"
    values = RELEASED_FILES["0.1.0"].read_text()
    assert render(values, helm=helm, chart=package) == render(values, helm=helm)


def copy_generator_files(directory: Path) -> None:
    """Copy what deploy/helm/generate.py reads and writes."""
    for part in ("deploy", "schemas"):
        shutil.copytree(ROOT / part, directory / part)
    shutil.copy(ROOT / "CHANGELOG.md", directory)


def test_generated_files_are_up_to_date() -> None:
    run = run_program(sys.executable, ROOT / "deploy/helm/generate.py", "--check")
    assert run.returncode == 0, run.stdout + run.stderr


def test_generate_check_names_a_differing_file(tmp_path: Path) -> None:
    copy_generator_files(tmp_path)
    schema = tmp_path / "deploy/helm/genplug/values.schema.json"
    schema.write_text(json.dumps(merge_values(json.loads(schema.read_text()), {"title": "edited"})))
    run = run_program(sys.executable, tmp_path / "deploy/helm/generate.py", "--check")
    assert run.returncode == 1
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["deploy/helm/genplug/values.schema.json"]
