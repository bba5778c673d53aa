"""The schema of the values: a misspelt key fails while Helm renders, and every value has a description."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema
import pytest

from tests.support.chart import (
    CHART,
    FUSE,
    HELMS,
    MINIMAL,
    RenderError,
    get_daemonsets,
    load_yaml,
    merge_values,
    read_configuration,
    render,
)

pytestmark = pytest.mark.helm

RESOURCE = "config: {resources: {a.example/x: %s}}"
MISSPELT_VALUES = {
    "imag: {tag: edge}": "imag",
    "image: {repo: docker.io/x}": "repo",
    "image: {tag: 1.20}": "tag",
    "image: {digest: 0a0a}": "digest",
    "daemonSet: {privileged: true}": "daemonSet",
    "daemonset: {nodeSelectr: {a: b}}": "nodeSelectr",
    "daemonset: {nodeSelector: {a: true}}": "a",
    "daemonset: {tolerations: [{key: a, efect: NoSchedule}]}": "efect",
    "daemonset: {updateStrategy: {rollingUpdate: {maxUnavailabel: 1}}}": "maxUnavailabel",
    "daemonset: {updateStrategy: {type: Recreate}}": "type",
    "daemonset: {resources: {limit: {memory: 1Gi}}}": "limit",
    "daemonset: {affinity: {podAffinity: {}}}": "podAffinity",
    "daemonset: {kubeletDir: var/lib/kubelet}": "kubeletDir",
    "daemonset: {privileged: 'true'}": "privileged",
    "daemonset: {hostMounts: [opt]}": "hostMounts",
    "pools: [{name: lab}]": "pools",
    "pools: {Lab: {}}": "Lab",
    "pools: {lab: {labelValue: [a]}}": "labelValue",
    "pools: {lab: {labelValues: [1]}}": "labelValues",
    "pools: {lab: {nodeSelector: {a: b}}}": "nodeSelector",
    "pools: {lab: {daemonset: {privilegd: true}}}": "privilegd",
    "pools: {lab: {config: {resource: {}}}}": "resource",
    "pools: {default: {labelValues: [a]}}": "labelValues",
    "poolLabel: a b": "poolLabel",
    "config: {resource: {}}": "resource",
    "config: {defaults: {devices: []}}": "devices",
    "config: {nodes: {n1: {resource: {}}}}": "resource",
    "config: {nodes: {N_1: {}}}": "N_1",
    RESOURCE % "{device: [{glob: /dev/x}]}": "device",
    RESOURCE % "{devices: [{globs: /dev/x}]}": "globs",
    RESOURCE % "{devices: [{where: {usb.vendor: '0403'}}]}": "glob",
    RESOURCE % "{devices: [{glob: /dev/x, where: {usb.vendor: 0403}}]}": "usb.vendor",
    RESOURCE % "{devices: [{glob: /dev/x}], allocate: {mount: []}}": "mount",
    RESOURCE % "{devices: [{glob: /dev/x}], allocate: {env: {A: 1}}}": "A",
    RESOURCE % "{devices: [{glob: /dev/x}], health: {periodSecond: 5}}": "periodSecond",
    RESOURCE % "{devices: [{glob: /dev/x}], health: {probes: [{opn: {}}]}}": "opn",
    RESOURCE % "{devices: [{glob: /dev/x}], tokens: many}": "tokens",
    "policy: {device: {}}": "device",
    "policy: {exec: [/bin/true]}": "exec",
    "metrics: {podMonitor: {enable: true}}": "enable",
    "metrics: {port: 98080}": "port",
    "metrics: {prometheusRule: {disabled: GenplugNotReady}}": "disabled",
    "networkPolicy: {form: []}": "form",
    "log: {level: verbose}": "level",
    "rolloutOnConfigChange: 'yes'": "rolloutOnConfigChange",
    "serviceAccount: {automountToken: true}": "automountToken",
    "admissionPolicy: {failureAction: [Refuse]}": "failureAction",
    "resourceQuota: {namespaces: {team-a: {a.example/x: two}}}": "a.example/x",
}
"""Invalid values -> the key that the error message must contain."""


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("misspelt", MISSPELT_VALUES)
def test_misspelt_key_is_rejected_with_its_name(misspelt: str, helm: str) -> None:
    with pytest.raises(RenderError) as error:
        render(MINIMAL, misspelt, helm=helm)
    text = str(error.value)
    assert "values don't meet the specifications of the schema(s)" in text
    # Helm 4 prints JSON pointers, in which a slash in a key is ~1.
    assert re.search(rf"(?<![\w-]){re.escape(MISSPELT_VALUES[misspelt])}(?![\w-])", text.replace("~1", "/")), text


@pytest.mark.parametrize("helm", HELMS)
def test_globals_of_a_parent_chart_are_accepted(helm: str) -> None:
    assert render(MINIMAL, "global: {storageClass: fast, postgresql: {auth: {}}}", helm=helm)


@pytest.mark.parametrize("helm", HELMS)
def test_incomplete_resource_is_merged_over_an_earlier_file(helm: str) -> None:
    part = {"config": {"resources": {FUSE: {"tokens": 5}}}}
    later = {**part, "pools": {"lab": merge_values(part, {"config": {"resources": {FUSE: {"tokens": 6}}}})}}
    found = render(MINIMAL, later, helm=helm)
    tokens = {pool: read_configuration(found, pool)["resources"][FUSE]["tokens"] for pool in get_daemonsets(found)}
    assert tokens == {"default": 5, "lab": 6}


def read_schema() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return read


def read_values() -> dict[str, Any]:
    read: dict[str, Any] = load_yaml((CHART / "values.yaml").read_text())
    return read


KEYWORDS = set(jsonschema.Draft7Validator.VALIDATORS) | {
    "$comment",
    "$schema",
    "$id",
    "title",
    "description",
    "default",
    "definitions",
    "examples",
}


def iterate_keywords(part: Any) -> Iterator[str]:
    """Yield every keyword of a schema; names of properties are not keywords."""
    if isinstance(part, list):
        for item in part:
            yield from iterate_keywords(item)
    if isinstance(part, dict):
        for key, value in part.items():
            yield key
            if key in {"properties", "patternProperties", "definitions"}:
                for definition in value.values():
                    yield from iterate_keywords(definition)
            elif key not in {"default", "enum", "examples", "const"}:
                yield from iterate_keywords(value)


def test_schema_uses_draft_07_keywords_only() -> None:
    assert read_schema()["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(read_schema())
    assert set(iterate_keywords(read_schema())) <= KEYWORDS


def resolve_references(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema merged over the definitions that it refers to."""
    result: dict[str, Any] = {}
    for reference in [*part.get("allOf", ()), *([part] if "$ref" in part else ())]:
        target: Any = read_schema()
        for step in reference["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        result |= resolve_references(target)
    return result | {key: value for key, value in part.items() if key not in {"allOf", "$ref"}}


def find_undescribed(tree: Mapping[str, Any], part: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in tree.items():
        definition = part.get("properties", {}).get(key)
        if definition is None:
            # The operator chooses the keys of a map such as labels.
            if not isinstance(part.get("additionalProperties"), dict):
                yield f"{path}{key} is not in the schema"
            continue
        if not definition.get("description"):
            yield f"{path}{key} has no description"
        if isinstance(value, Mapping):
            yield from find_undescribed(value, resolve_references(definition), f"{path}{key}.")


def test_every_value_is_in_the_schema_with_a_description() -> None:
    assert list(find_undescribed(read_values(), read_schema(), "")) == []
    assert list(find_undescribed({"image": {"repo": ""}}, read_schema(), "")) == ["image.repo is not in the schema"]


def test_every_value_has_a_description_above_it() -> None:
    text = (CHART / "values.yaml").read_text()
    keys = re.findall(r"^ *(\w+):", text, re.MULTILINE)
    described = re.findall(r"^( *)# -- .*\n(?:\1# (?!-- ).*\n)*\1(\w+):", text, re.MULTILINE)
    assert [key for _, key in described] == keys
    assert len(keys) > 80


def read_templates() -> str:
    return "\n".join(path.read_text() for path in sorted((CHART / "templates").rglob("*")) if path.is_file())


def has_path(tree: Any, path: Sequence[str]) -> bool:
    for key in path:
        # The operator chooses the keys of a map that is empty by default.
        if tree == {}:
            return True
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True


def test_every_value_used_by_a_template_is_in_values_yaml() -> None:
    used = set(re.findall(r"\.Values((?:\.\w+)+)", read_templates()))
    assert len(used) > 20
    assert [path for path in sorted(used) if not has_path(read_values(), path.strip(".").split("."))] == []


@pytest.mark.parametrize("key", read_values())
def test_null_for_a_top_level_value_is_accepted_or_rejected_with_its_name(key: str) -> None:
    if key in read_schema()["required"]:
        with pytest.raises(RenderError, match=f"missing property '{key}'"):
            render(MINIMAL, {key: None})
    else:
        assert render(MINIMAL, {key: None})


def iterate_leaves(tree: Mapping[str, Any], *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value that a template accesses by name; some maps are copied as a whole."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and "daemonset" not in path and key != "labels":
            yield from iterate_leaves(value, *path, key)
        else:
            yield *path, key


def test_every_value_is_used_by_a_template() -> None:
    text = read_templates()
    unused = [path for path in iterate_leaves(read_values()) if not re.search(rf'[."]{path[-1]}\b', text)]
    assert unused == []


def test_everything_on_file_sets_every_value() -> None:
    everything = load_yaml((CHART / "ci/everything-on-values.yaml").read_text())
    # Exceptions: the digest replaces the tag, and resources exclude an existing ConfigMap.
    assert [path for path in iterate_leaves(read_values()) if not has_path(everything, path)] == [
        ("image", "tag"),
        ("config", "existingConfigMap"),
    ]
