"""Render the chart with a real Helm: values in, Kubernetes objects by kind and name out."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Values = Mapping[str, Any]
Manifest = dict[str, Any]
Manifests = dict[tuple[str, str], Manifest]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/genplug"
TOOLS = Path(os.environ.get("GENPLUG_TOOLS") or Path.home() / ".cache/genplug/tools")
HELMS = ("helm3", "helm4")
CI_FILES = sorted((CHART / "ci").glob("*-values.yaml"))

KUBE_VERSION = "1.37.0"
"""The version of Kubernetes to render for by default; that of Helm itself is older in Helm 3."""

FUSE = "devices.example.com/fuse"
MINIMAL: Values = {"config": {"resources": {FUSE: {"devices": [{"glob": "/dev/fuse"}], "tokens": 100}}}}
"""The smallest values that the chart accepts."""


class RenderError(Exception):
    """Helm failed to render the chart; the text is Helm's error message."""


class _Loader(yaml.CSafeLoader):
    """A loader that rejects duplicate keys, as kustomize and the API server do; PyYAML keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys = [key.value for key, _ in node.value]
        duplicates = sorted({key for key in keys if keys.count(key) > 1})
        assert not duplicates, f"duplicate keys in a map: {duplicates}, {node.start_mark}"
        return super().construct_mapping(node, deep)


def run_program(*command: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program with ``text`` as its standard input and return its result, whatever its exit status is."""
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def load_yaml(text: str) -> Any:
    """Return the value of a YAML document.

    Raises:
        AssertionError: A map contains a key twice.
    """
    return yaml.load(text, _Loader)


def parse_manifests(text: str) -> Manifests:
    """Return the objects of a YAML stream by kind and name.

    Raises:
        AssertionError: Two objects have the same kind and name.
    """
    manifests = [manifest for manifest in yaml.load_all(text, _Loader) if manifest]
    keyed = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}
    assert len(keyed) == len(manifests), "two objects have the same kind and name"
    return keyed


def merge_values(values: Values, changes: Values) -> dict[str, Any]:
    """Return the values with the changes merged over them, maps key by key."""
    result = dict(values)
    for key, change in changes.items():
        previous = result.get(key)
        if isinstance(previous, Mapping) and isinstance(change, Mapping):
            result[key] = merge_values(previous, change)
        else:
            result[key] = change
    return result


def nest_value(path: Sequence[str], value: Any) -> Any:
    """Return nested maps that contain the value at the path."""
    for key in reversed(path):
        value = {key: value}
    return value


def render_text(
    *files: Values | str,
    helm: str = "helm4",
    chart: Path = CHART,
    kube_version: str = KUBE_VERSION,
    api_versions: Sequence[str] = (),
) -> str:
    """Return the output of ``helm template`` with these values, each passed as a values file of its own.

    Raises:
        RenderError: Helm failed.
    """
    command: list[str | Path] = [TOOLS / helm, "template", "genplug", chart, "--namespace", "devices"]
    command += ["--kube-version", kube_version]
    command += [option for version in api_versions for option in ("--api-versions", version)]
    with tempfile.TemporaryDirectory() as directory:
        for number, values in enumerate(files):
            path = Path(directory, f"{number}.yaml")
            path.write_text(values if isinstance(values, str) else json.dumps(values))
            command += ["--values", path]
        run = run_program(*command)
    if run.returncode:
        raise RenderError(run.stderr)
    return run.stdout


def render(*files: Values | str, **options: Any) -> Manifests:
    """Return the objects that Helm renders with these values; the options are those of :func:`render_text`."""
    return parse_manifests(render_text(*files, **options))


def get_daemonsets(manifests: Manifests) -> dict[str, Manifest]:
    """Return the DaemonSets by pool."""
    daemonsets = [manifest for (kind, _), manifest in manifests.items() if kind == "DaemonSet"]
    by_pool = {daemonset["metadata"]["labels"]["genplug.io/pool"]: daemonset for daemonset in daemonsets}
    assert len(by_pool) == len(daemonsets), "two DaemonSets have the same pool"
    return by_pool


def get_pod_spec(daemonset: Manifest) -> Manifest:
    """Return the spec of a DaemonSet's pods."""
    spec: Manifest = daemonset["spec"]["template"]["spec"]
    return spec


def get_agent(daemonset: Manifest) -> Manifest:
    """Return the only container of a DaemonSet's pods."""
    (container,) = get_pod_spec(daemonset)["containers"]
    agent: Manifest = container
    return agent


def read_mounted_files(manifests: Manifests, pool: str, volume: str) -> dict[str, str]:
    """Return the files of the ConfigMap that is mounted as ``volume`` in the pods of a pool, by name."""
    sources = {source["name"]: source for source in get_pod_spec(get_daemonsets(manifests)[pool])["volumes"]}
    files: dict[str, str] = manifests["ConfigMap", sources[volume]["configMap"]["name"]]["data"]
    return files


def read_configuration(manifests: Manifests, pool: str = "default", file: str = "genplug.yaml") -> dict[str, Any]:
    """Return a configuration file of a pool's agents."""
    configuration: dict[str, Any] = load_yaml(read_mounted_files(manifests, pool, "config")[file])
    return configuration


def read_policy(manifests: Manifests, pool: str = "default") -> dict[str, Any]:
    """Return the policy of a pool's agents."""
    policy: dict[str, Any] = load_yaml(read_mounted_files(manifests, pool, "policy")["policy.yaml"])
    return policy


def list_pools_with_chart_config(manifests: Manifests) -> Iterator[str]:
    """Yield the pools whose ConfigMap the chart creates."""
    for pool, daemonset in get_daemonsets(manifests).items():
        (volume,) = [volume for volume in get_pod_spec(daemonset)["volumes"] if volume["name"] == "config"]
        if ("ConfigMap", volume["configMap"]["name"]) in manifests:
            yield pool
