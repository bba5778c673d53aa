"""What the agents will read: every configuration that the chart renders is one that genplug takes."""

import subprocess
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
    agent,
    configuration,
    daemonsets,
    loaded,
    mounted,
    output,
    over,
    pod,
    policy,
    pools_that_read_ours,
    render,
)

pytestmark = pytest.mark.helm

RECIPES = sorted((Path(__file__).parents[2] / "examples/configs").glob("*.yaml"))


def as_mounted(found: Manifests, pool: str, volume: str, directory: Path) -> Path:
    """Write a ConfigMap's files as the agents see them."""
    path = directory / f"{pool}-{volume}"
    path.mkdir()
    for name, text in mounted(found, pool, volume).items():
        (path / name).write_text(text)
    return path


def nodes_of(found: Manifests, pool: str) -> list[str]:
    names = [name for name in mounted(found, pool, "config") if name.startswith("node.")]
    return [name.removeprefix("node.").removesuffix(".yaml") for name in names]


@pytest.mark.parametrize("path", CI_FILES, ids=lambda path: path.stem)
def test_every_pool_of_the_ci_values_gets_a_configuration_that_genplug_takes(path: Path, tmp_path: Path) -> None:
    found = render(loaded(path.read_text()))
    pools = list(pools_that_read_ours(found))
    for pool in pools:
        config = as_mounted(found, pool, "config", tmp_path)
        has_policy = "--policy" in agent(daemonsets(found)[pool])["args"]
        limits = as_mounted(found, pool, "policy", tmp_path) / "policy.yaml" if has_policy else None
        for node in ["a-node-without-a-file", *nodes_of(found, pool)]:
            assert load([config], node, limits).config.resources
    assert pools or "existing" in path.stem


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("name", ["minimal", "pools", "existing-configmap"])
def test_genplug_validate_reads_what_helm_prints(name: str, helm: str) -> None:
    (path,) = [path for path in CI_FILES if path.stem == f"{name}-values"]
    text = output(loaded(path.read_text()), helm=helm)
    command = [sys.executable, "-m", "genplug", "validate", "-"]
    run = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    broken = subprocess.run(command, input=text.replace("glob:", "blob:"), capture_output=True, text=True, check=False)
    assert broken.returncode == 78


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_file_of_the_examples_comes_out_as_it_went_in(path: Path) -> None:
    file = loaded(path.read_text())
    written = {key: file[key] for key in ("defaults", "resources") if key in file}
    # What the pods and the policy must allow for it is tested with the security context.
    allowing = {
        "policy": {"exec": {"allow": ["/**"]}, "mounts": {"allow": ["/**"]}, "openProbe": True},
        "daemonset": {"privileged": True, "cdiSpecDir": "/var/run/cdi", "hostMounts": ["/usr", "/var", "/opt", "/run"]},
    }
    found = configuration(render({"config": written, **allowing}))
    assert {key: found[key] for key in written} == written


def test_text_that_looks_like_a_number_stays_text() -> None:
    where = {"major": "0188", "name": "0x10de", "pci.address": "0000:00:02.0", "serial": "22:22", "minor": "1e3"}
    devices = [{"glob": "/dev/x", "where": where}, {"glob": "/dev/y", "where": {"name": ["on", "null", "0403"]}}]
    values = over(MINIMAL, {"config": {"resources": {FUSE: {"devices": devices}}}})
    assert configuration(render(values))["resources"][FUSE]["devices"] == devices


@pytest.mark.parametrize("helm", HELMS)
def test_an_existing_configmap_is_mounted_and_none_is_rendered_for_it(helm: str) -> None:
    (path,) = [path for path in CI_FILES if path.stem == "existing-configmap-values"]
    found = render(loaded(path.read_text()), helm=helm)
    names = {
        pool: volume["configMap"]["name"]
        for pool, daemonset in daemonsets(found).items()
        for volume in pod(daemonset)["volumes"]
        if volume["name"] == "config"
    }
    assert names == {
        "default": "genplug-devices",
        "lab": "genplug-lab-devices",
        "edge": "genplug-edge-config",
    }
    assert [name for kind, name in found if kind == "ConfigMap"] == ["genplug-edge-config"]


def test_an_existing_configmap_beside_resources_of_the_same_level_is_refused() -> None:
    values = over(MINIMAL, {"config": {"existingConfigMap": "mine"}})
    with pytest.raises(RenderError, match="read the ConfigMap mine, but config also sets defaults, resources or nodes"):
        render(values)


def test_a_pool_with_an_existing_configmap_leaves_the_common_resources_to_the_others() -> None:
    found = render(over(MINIMAL, {"pools": {"lab": {"config": {"existingConfigMap": "mine"}}}}))
    assert [name for kind, name in found if kind == "ConfigMap"] == ["genplug-config"]


def test_a_policy_is_an_object_of_its_own_and_the_agents_are_told_of_it() -> None:
    body = {"devices": {"allow": ["/dev/fuse"]}, "mounts": {"writable": ["/srv"]}}
    found = render(over(MINIMAL, {"policy": body, "pools": {"lab": {"policy": {"mounts": None}}}}))
    header = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginPolicy"}
    assert policy(found) == header | body
    assert policy(found, "lab") == header | {"devices": body["devices"]}
    assert set(mounted(found, "default", "config")) == {"genplug.yaml"}
    container = agent(daemonsets(found)["default"])
    assert container["args"][container["args"].index("--policy") + 1] == "/etc/genplug-policy/policy.yaml"
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "policy"]
    assert mount == {"name": "policy", "mountPath": "/etc/genplug-policy", "readOnly": True}


def test_without_a_policy_there_is_no_object_for_it() -> None:
    assert [name for kind, name in render(MINIMAL) if kind == "ConfigMap"] == ["genplug-config"]


def test_nothing_to_offer_is_refused_with_an_example_of_what_to_write() -> None:
    with pytest.raises(RenderError, match=r"Pool default has no resources(.|\n)*devices: ") as refused:
        render({})
    example = str(refused.value).split("-f:\n", 1)[1].split("\n\nAlternatively, ", 1)[0]
    assert daemonsets(render(loaded(example)))


def test_a_pool_that_deletes_its_last_resource_is_refused_by_its_name() -> None:
    with pytest.raises(RenderError, match=r"Pool lab has no resources(.|\n)*pools\.lab\.enabled=false"):
        render(over(MINIMAL, {"pools": {"lab": {"config": {"resources": {FUSE: None}}}}}))
