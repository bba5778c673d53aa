"""What helm makes is right for both of its majors, for every Kubernetes that the chart is for, and without helm."""

import functools
import subprocess
from pathlib import Path

import pytest

from tests.support.chart import CI_FILES, HELMS, MINIMAL, ROOT, TOOLS, RenderError, loaded, objects, over, render

# Where it is missing in CI, every other test of the chart fails for it.
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the dev extra")
utils = kubernetes_validate.utils
pytestmark = pytest.mark.helm

OLDEST = 26
VERSIONS = [
    one for one in dict.fromkeys(map(utils.major_minor, utils.all_versions())) if int(one.split(".")[1]) >= OLDEST
]
CUSTOM = {"PodMonitor", "PrometheusRule", "SecurityContextConstraints"}
"""Kinds of the Prometheus operator and of OpenShift, for which Kubernetes has no schema."""
POLICIES_SINCE = 30


@pytest.mark.parametrize("path", CI_FILES, ids=lambda path: path.stem)
def test_both_majors_of_helm_make_the_same_objects(path: Path) -> None:
    values = loaded(path.read_text())
    assert render(values, helm="helm3") == render(values, helm="helm4")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_strictly_valid(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # It would read megabytes again for each object.
    monkeypatch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
    unknown = set()
    for path in CI_FILES:
        values = loaded(path.read_text())
        if int(version.split(".")[1]) < POLICIES_SINCE:
            values = over(values, {"admissionPolicy": {"enabled": False}})
        for (kind, _), manifest in render(values, kube_version=f"{version}.0").items():
            try:
                assert kubernetes_validate.validate(manifest, version, strict=True) == version
            except kubernetes_validate.SchemaNotFoundError:
                unknown.add(kind)
    assert unknown == CUSTOM


def test_a_wrong_object_would_be_seen() -> None:
    daemonset = render(MINIMAL)["DaemonSet", "genplug"]
    daemonset["spec"]["updateStrategie"] = daemonset["spec"].pop("updateStrategy")
    with pytest.raises(kubernetes_validate.ValidationError, match="updateStrategie"):
        kubernetes_validate.validate(daemonset, VERSIONS[-1], strict=True)


def test_the_versions_are_those_that_the_chart_is_for() -> None:
    chart = loaded((ROOT / "deploy/helm/genplug/Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0"


@pytest.mark.parametrize("helm", HELMS)
def test_the_versions_of_vendors_are_let_in_and_older_ones_are_not(helm: str) -> None:
    assert render(MINIMAL, helm=helm, kube_version="1.26.3-gke.100")
    with pytest.raises(RenderError, match=r"requires kubeVersion: >=1\.26\.0-0"):
        render(MINIMAL, helm=helm, kube_version="1.25.16")


@pytest.mark.parametrize("helm", HELMS)
def test_admission_policies_are_refused_where_the_cluster_has_none(helm: str) -> None:
    values = over(MINIMAL, {"admissionPolicy": {"enabled": True}})
    with pytest.raises(RenderError, match=r"Kubernetes v1\.29\.0 has no ValidatingAdmissionPolicy"):
        render(values, helm=helm, kube_version="1.29.0")
    assert render(values, helm=helm, kube_version="1.30.0")


def test_kustomize_makes_of_its_base_what_the_plain_manifest_has() -> None:
    command = [TOOLS / "kubectl", "kustomize", ROOT / "deploy/kustomize/base"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert objects(run.stdout) == objects((ROOT / "deploy/manifest/genplug.yaml").read_text())


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_the_plain_manifest_is_strictly_valid_and_knows_nothing_of_helm(version: str) -> None:
    text = (ROOT / "deploy/manifest/genplug.yaml").read_text()
    for manifest in objects(text).values():
        assert kubernetes_validate.validate(manifest, version, strict=True) == version
    assert "managed-by" not in text
    assert "helm.sh/chart" not in text
