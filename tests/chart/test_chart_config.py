"""The configuration that the agents read: genplug accepts every configuration that the chart renders."""

import sys
from pathlib import Path

import pytest

from genplug.config.load import load
from tests.support.chart import (
    CI_FILES,
    FUSE,
    HELMS,
    MINIMAL,
    Manifests,
    RenderError,
    get_agent,
    get_daemonsets,
    get_pod_spec,
    list_pools_with_chart_config,
    load_yaml,
    merge_values,
    read_configuration,
    read_mounted_files,
    read_policy,
    render,
    render_text,
    run_program,
)

pytestmark = pytest.mark.helm

RECIPES = sorted((Path(__file__).parents[2] / "examples/configs").glob("*.yaml"))


def write_mounted_files(manifests: Manifests, pool: str, volume: str, directory: Path) -> Path:
    """Write the files of a mounted ConfigMap to a new subdirectory and return the subdirectory."""
    path = directory / f"{pool}-{volume}"
    path.mkdir()
    for name, text in read_mounted_files(manifests, pool, volume).items():
        (path / name).write_text(text)
    return path


def list_configured_nodes(manifests: Manifests, pool: str) -> list[str]:
    names = [name for name in read_mounted_files(manifests, pool, "config") if name.startswith("node.")]
    return [name.removeprefix("node.").removesuffix(".yaml") for name in names]


@pytest.mark.parametrize("path", CI_FILES, ids=lambda path: path.stem)
def test_every_pool_of_the_ci_values_has_a_valid_configuration(path: Path, tmp_path: Path) -> None:
    found = render(load_yaml(path.read_text()))
    pools = list(list_pools_with_chart_config(found))
    for pool in pools:
        config = write_mounted_files(found, pool, "config", tmp_path)
        has_policy = "--policy" in get_agent(get_daemonsets(found)[pool])["args"]
        limits = write_mounted_files(found, pool, "policy", tmp_path) / "policy.yaml" if has_policy else None
        for node in ["node-without-a-file", *list_configured_nodes(found, pool)]:
            assert load([config], node, limits).config.resources
    assert pools or "existing" in path.stem


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("name", ["minimal", "pools", "existing-configmap"])
def test_genplug_validate_accepts_the_output_of_helm_template(name: str, helm: str) -> None:
    (path,) = [path for path in CI_FILES if path.stem == f"{name}-values"]
    text = render_text(load_yaml(path.read_text()), helm=helm)
    command = (sys.executable, "-m", "genplug", "validate", "-")
    run = run_program(*command, text=text)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run_program(*command, text=text.replace("glob:", "blob:")).returncode == 78


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_example_configuration_is_rendered_unchanged(path: Path) -> None:
    file = load_yaml(path.read_text())
    expected = {key: file[key] for key in ("defaults", "resources") if key in file}
    # test_chart_pod.py tests what the pods and the policy must allow.
    permissions = {
        "policy": {"exec": {"allow": ["/**"]}, "mounts": {"allow": ["/**"]}, "openProbe": True},
        "daemonset": {"privileged": True, "cdiSpecDir": "/var/run/cdi", "hostMounts": ["/usr", "/var", "/opt", "/run"]},
    }
    found = read_configuration(render({"config": expected, **permissions}))
    assert {key: found[key] for key in expected} == expected


def test_quoted_number_is_rendered_as_text() -> None:
    where = {"major": "0188", "name": "0x10de", "pci.address": "0000:00:02.0", "serial": "22:22", "minor": "1e3"}
    devices = [{"glob": "/dev/x", "where": where}, {"glob": "/dev/y", "where": {"name": ["on", "null", "0403"]}}]
    values = merge_values(MINIMAL, {"config": {"resources": {FUSE: {"devices": devices}}}})
    assert read_configuration(render(values))["resources"][FUSE]["devices"] == devices


@pytest.mark.parametrize("helm", HELMS)
def test_existing_configmap_is_mounted_and_not_rendered(helm: str) -> None:
    (path,) = [path for path in CI_FILES if path.stem == "existing-configmap-values"]
    found = render(load_yaml(path.read_text()), helm=helm)
    names = {
        pool: volume["configMap"]["name"]
        for pool, daemonset in get_daemonsets(found).items()
        for volume in get_pod_spec(daemonset)["volumes"]
        if volume["name"] == "config"
    }
    assert names == {
        "default": "genplug-devices",
        "lab": "genplug-lab-devices",
        "edge": "genplug-edge-config",
    }
    assert [name for kind, name in found if kind == "ConfigMap"] == ["genplug-edge-config"]


def test_existing_configmap_with_resources_of_the_same_level_is_rejected() -> None:
    values = merge_values(MINIMAL, {"config": {"existingConfigMap": "mine"}})
    with pytest.raises(RenderError, match="read the ConfigMap mine, but config also sets defaults, resources or nodes"):
        render(values)


def test_existing_configmap_of_a_pool_replaces_the_common_resources() -> None:
    found = render(merge_values(MINIMAL, {"pools": {"lab": {"config": {"existingConfigMap": "mine"}}}}))
    assert [name for kind, name in found if kind == "ConfigMap"] == ["genplug-config"]


def test_policy_is_mounted_from_its_own_configmap() -> None:
    body = {"devices": {"allow": ["/dev/fuse"]}, "mounts": {"writable": ["/srv"]}}
    found = render(merge_values(MINIMAL, {"policy": body, "pools": {"lab": {"policy": {"mounts": None}}}}))
    header = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginPolicy"}
    assert read_policy(found) == header | body
    assert read_policy(found, "lab") == header | {"devices": body["devices"]}
    assert set(read_mounted_files(found, "default", "config")) == {"genplug.yaml"}
    container = get_agent(get_daemonsets(found)["default"])
    assert container["args"][container["args"].index("--policy") + 1] == "/etc/genplug-policy/policy.yaml"
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "policy"]
    assert mount == {"name": "policy", "mountPath": "/etc/genplug-policy", "readOnly": True}


def test_empty_policy_renders_no_configmap() -> None:
    assert [name for kind, name in render(MINIMAL) if kind == "ConfigMap"] == ["genplug-config"]


def test_values_without_resources_are_rejected_with_an_example() -> None:
    with pytest.raises(RenderError, match=r"Pool default has no resources(.|\n)*devices: ") as error:
        render({})
    example = str(error.value).split("-f:\n", 1)[1].split("\n\nAlternatively, ", 1)[0]
    assert get_daemonsets(render(load_yaml(example)))


def test_pool_without_resources_is_rejected_with_its_name() -> None:
    with pytest.raises(RenderError, match=r"Pool lab has no resources(.|\n)*pools\.lab\.enabled=false"):
        render(merge_values(MINIMAL, {"pools": {"lab": {"config": {"resources": {FUSE: None}}}}}))
