"""The rendered objects: equal with Helm 3 and Helm 4, and valid for every supported version of Kubernetes."""

import functools
from pathlib import Path

import pytest

from tests.support.chart import (
    CI_FILES,
    HELMS,
    MINIMAL,
    ROOT,
    TOOLS,
    RenderError,
    load_yaml,
    merge_values,
    parse_manifests,
    render,
    run_program,
)

# In CI, where the tools are required, the other tests of the chart fail without it.
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the dev extra")
utils = kubernetes_validate.utils
pytestmark = pytest.mark.helm

OLDEST_MINOR = 26
VERSIONS = [
    version
    for version in dict.fromkeys(map(utils.major_minor, utils.all_versions()))
    if int(version.split(".")[1]) >= OLDEST_MINOR
]
CUSTOM_KINDS = {"PodMonitor", "PrometheusRule", "SecurityContextConstraints"}
"""Kinds of the Prometheus operator and of OpenShift, for which Kubernetes has no schema."""
ADMISSION_POLICIES_MINOR = 30
DRA_MINOR = 34


@pytest.mark.parametrize("path", CI_FILES, ids=lambda path: path.stem)
def test_helm_3_and_helm_4_render_equal_objects(path: Path) -> None:
    values = load_yaml(path.read_text())
    assert render(values, helm="helm3") == render(values, helm="helm4")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_for_every_supported_kubernetes(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the cache, the schemas would be read again for each object.
    monkeypatch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
    unknown = set()
    for path in CI_FILES:
        values = load_yaml(path.read_text())
        if int(version.split(".")[1]) < ADMISSION_POLICIES_MINOR:
            values = merge_values(values, {"admissionPolicy": {"enabled": False}})
        if path.stem == "dra-values" and int(version.split(".")[1]) < DRA_MINOR:
            continue
        for (kind, _), manifest in render(values, kube_version=f"{version}.0").items():
            try:
                assert kubernetes_validate.validate(manifest, version, strict=True) == version
            except kubernetes_validate.SchemaNotFoundError:
                unknown.add(kind)
    assert unknown == CUSTOM_KINDS


def test_invalid_object_fails_validation() -> None:
    daemonset = render(MINIMAL)["DaemonSet", "genplug"]
    daemonset["spec"]["updateStrategie"] = daemonset["spec"].pop("updateStrategy")
    with pytest.raises(kubernetes_validate.ValidationError, match="updateStrategie"):
        kubernetes_validate.validate(daemonset, VERSIONS[-1], strict=True)


def test_tested_versions_begin_with_the_minimum_of_the_chart() -> None:
    chart = load_yaml((ROOT / "deploy/helm/genplug/Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0"


@pytest.mark.parametrize("helm", HELMS)
def test_vendor_versions_are_accepted_and_older_versions_are_rejected(helm: str) -> None:
    assert render(MINIMAL, helm=helm, kube_version="1.26.3-gke.100")
    with pytest.raises(RenderError, match=r"requires kubeVersion: >=1\.26\.0-0"):
        render(MINIMAL, helm=helm, kube_version="1.25.16")


@pytest.mark.parametrize("helm", HELMS)
def test_admission_policies_are_rejected_before_kubernetes_1_30(helm: str) -> None:
    values = merge_values(MINIMAL, {"admissionPolicy": {"enabled": True}})
    with pytest.raises(RenderError, match=r"Kubernetes v1\.29\.0 has no ValidatingAdmissionPolicy"):
        render(values, helm=helm, kube_version="1.29.0")
    assert render(values, helm=helm, kube_version="1.30.0")


def test_kustomize_base_equals_the_manifest() -> None:
    run = run_program(TOOLS / "kubectl", "kustomize", ROOT / "deploy/kustomize/base")
    assert run.returncode == 0, run.stderr
    assert parse_manifests(run.stdout) == parse_manifests((ROOT / "deploy/manifest/genplug.yaml").read_text())


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_manifest_is_valid_and_contains_no_helm_labels(version: str) -> None:
    text = (ROOT / "deploy/manifest/genplug.yaml").read_text()
    for manifest in parse_manifests(text).values():
        assert kubernetes_validate.validate(manifest, version, strict=True) == version
    assert "managed-by" not in text
    assert "helm.sh/chart" not in text
