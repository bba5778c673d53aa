"""The chart as a real helm renders it: values in, Kubernetes objects out, by kind and name."""

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

FUSE = "devices.example.com/fuse"
MINIMAL: Values = {"config": {"resources": {FUSE: {"devices": [{"glob": "/dev/fuse"}], "tokens": 100}}}}
"""The least that the chart takes."""


class RenderError(Exception):
    """Helm refused; the text is its own."""


class _Loader(yaml.CSafeLoader):
    """PyYAML takes the last of two equal keys; kustomize and the API server refuse them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        assert not twice, f"twice in one map: {twice}, {node.start_mark}"
        return super().construct_mapping(node, deep)


def loaded(text: str) -> Any:
    return yaml.load(text, _Loader)


def objects(text: str) -> Manifests:
    manifests = [one for one in yaml.load_all(text, _Loader) if one]
    keyed = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    assert len(keyed) == len(manifests), "two objects of one kind and name"
    return keyed


def over(values: Values, changes: Values) -> dict[str, Any]:
    """Return the values with the changes over them, maps key by key."""
    result = dict(values)
    for key, change in changes.items():
        old = result.get(key)
        result[key] = over(old, change) if isinstance(old, Mapping) and isinstance(change, Mapping) else change
    return result


def at(path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return maps in maps with the value at the path."""
    for key in reversed(path):
        value = {key: value}
    return value


def output(
    *files: Values | str,
    helm: str = "helm4",
    chart: Path = CHART,
    kube_version: str | None = None,
    api_versions: Sequence[str] = (),
) -> str:
    """Return what `helm template` prints with these values, each as a file of its own and later ones over earlier."""
    command = [str(TOOLS / helm), "template", "genplug", str(chart), "--namespace", "devices"]
    command += ["--kube-version", kube_version] if kube_version else []
    command += [option for one in api_versions for option in ("--api-versions", one)]
    with tempfile.TemporaryDirectory() as directory:
        for number, values in enumerate(files):
            path = Path(directory, f"{number}.yaml")
            path.write_text(values if isinstance(values, str) else json.dumps(values))
            command += ["--values", str(path)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RenderError(run.stderr)
    return run.stdout


def render(*files: Values | str, **how: Any) -> Manifests:
    """Return the objects that helm makes of these values; what else there is to say, as for `output`."""
    return objects(output(*files, **how))


def daemonsets(manifests: Manifests) -> dict[str, Manifest]:
    """Return the DaemonSets by their pools."""
    found = [one for (kind, _), one in manifests.items() if kind == "DaemonSet"]
    by_pool = {one["metadata"]["labels"]["genplug.io/pool"]: one for one in found}
    assert len(by_pool) == len(found), "two DaemonSets of one pool"
    return by_pool


def pod(daemonset: Manifest) -> Manifest:
    spec: Manifest = daemonset["spec"]["template"]["spec"]
    return spec


def agent(daemonset: Manifest) -> Manifest:
    (container,) = pod(daemonset)["containers"]
    found: Manifest = container
    return found


def mounted(manifests: Manifests, pool: str, volume: str) -> dict[str, str]:
    """Return the files of a ConfigMap as the agents of a pool see them, by name."""
    volumes = {one["name"]: one for one in pod(daemonsets(manifests)[pool])["volumes"]}
    files: dict[str, str] = manifests["ConfigMap", volumes[volume]["configMap"]["name"]]["data"]
    return files


def configuration(manifests: Manifests, pool: str = "default", file: str = "genplug.yaml") -> dict[str, Any]:
    read: dict[str, Any] = loaded(mounted(manifests, pool, "config")[file])
    return read


def policy(manifests: Manifests, pool: str = "default") -> dict[str, Any]:
    read: dict[str, Any] = loaded(mounted(manifests, pool, "policy")["policy.yaml"])
    return read


def pools_that_read_ours(manifests: Manifests) -> Iterator[str]:
    """Name the pools whose ConfigMap the chart makes."""
    for pool, daemonset in daemonsets(manifests).items():
        (volume,) = [one for one in pod(daemonset)["volumes"] if one["name"] == "config"]
        if ("ConfigMap", volume["configMap"]["name"]) in manifests:
            yield pool
