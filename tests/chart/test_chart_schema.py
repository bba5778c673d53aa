"""A typo fails while helm renders, before any node sees it; and every value is described."""

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
    configuration,
    daemonsets,
    loaded,
    over,
    render,
)

pytestmark = pytest.mark.helm

RESOURCE = "config: {resources: {a.example/x: %s}}"
TYPOS = {
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
"""What somebody writes -> the key that helm must name."""


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("typo", TYPOS)
def test_a_typo_is_refused_by_the_name_of_its_key(typo: str, helm: str) -> None:
    with pytest.raises(RenderError) as refused:
        render(MINIMAL, typo, helm=helm)
    text = str(refused.value)
    assert "values don't meet the specifications of the schema(s)" in text
    # helm 4 writes paths as JSON pointers, where a slash in a key is ~1.
    assert re.search(rf"(?<![\w-]){re.escape(TYPOS[typo])}(?![\w-])", text.replace("~1", "/")), text


@pytest.mark.parametrize("helm", HELMS)
def test_what_a_parent_chart_has_among_its_globals_is_no_typo(helm: str) -> None:
    assert render(MINIMAL, "global: {storageClass: fast, postgresql: {auth: {}}}", helm=helm)


@pytest.mark.parametrize("helm", HELMS)
def test_a_part_of_a_resource_may_be_in_another_file_than_its_devices(helm: str) -> None:
    part = {"config": {"resources": {FUSE: {"tokens": 5}}}}
    later = {**part, "pools": {"lab": over(part, {"config": {"resources": {FUSE: {"tokens": 6}}}})}}
    found = render(MINIMAL, later, helm=helm)
    tokens = {pool: configuration(found, pool)["resources"][FUSE]["tokens"] for pool in daemonsets(found)}
    assert tokens == {"default": 5, "lab": 6}


def schema() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return read


def values() -> dict[str, Any]:
    read: dict[str, Any] = loaded((CHART / "values.yaml").read_text())
    return read


KEYWORDS = set(jsonschema.Draft7Validator.VALIDATORS) | {
    "$schema",
    "$id",
    "title",
    "description",
    "default",
    "definitions",
    "examples",
}


def keywords(part: Any) -> Iterator[str]:
    """Every keyword of a schema, which the names of properties are not."""
    if isinstance(part, list):
        for one in part:
            yield from keywords(one)
    if isinstance(part, dict):
        for key, value in part.items():
            yield key
            if key in {"properties", "patternProperties", "definitions"}:
                for one in value.values():
                    yield from keywords(one)
            elif key not in {"default", "enum", "examples", "const"}:
                yield from keywords(value)


def test_the_schema_says_nothing_that_helm_3_would_ignore_without_a_word() -> None:
    assert schema()["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(schema())
    assert set(keywords(schema())) <= KEYWORDS


def expanded(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with what it refers to; its own words win."""
    result: dict[str, Any] = {}
    for one in [*part.get("allOf", ()), *([part] if "$ref" in part else ())]:
        target: Any = schema()
        for step in one["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        result |= expanded(target)
    return result | {key: value for key, value in part.items() if key not in {"allOf", "$ref"}}


def undescribed(tree: Mapping[str, Any], part: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in tree.items():
        one = part.get("properties", {}).get(key)
        if one is None:
            # A map from names, like labels: its keys are the operator's.
            if not isinstance(part.get("additionalProperties"), dict):
                yield f"{path}{key} is not in the schema"
            continue
        if not one.get("description"):
            yield f"{path}{key} has no description"
        if isinstance(value, Mapping):
            yield from undescribed(value, expanded(one), f"{path}{key}.")


def test_every_value_is_in_the_schema_with_a_description() -> None:
    assert list(undescribed(values(), schema(), "")) == []
    assert list(undescribed({"image": {"repo": ""}}, schema(), "")) == ["image.repo is not in the schema"]


def test_every_value_has_a_description_above_it() -> None:
    text = (CHART / "values.yaml").read_text()
    keys = re.findall(r"^ *(\w+):", text, re.MULTILINE)
    described = re.findall(r"^( *)# -- .*\n(?:\1# (?!-- ).*\n)*\1(\w+):", text, re.MULTILINE)
    assert [key for _, key in described] == keys
    assert len(keys) > 80


def templates() -> str:
    return "\n".join(path.read_text() for path in sorted((CHART / "templates").rglob("*")) if path.is_file())


def has(tree: Any, path: Sequence[str]) -> bool:
    for key in path:
        # An empty map is free for the operator, so what is in it cannot be told.
        if tree == {}:
            return True
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True


def test_every_value_that_a_template_uses_is_in_the_values() -> None:
    used = set(re.findall(r"\.Values((?:\.\w+)+)", templates()))
    assert len(used) > 20
    assert [path for path in sorted(used) if not has(values(), path.strip(".").split("."))] == []


@pytest.mark.parametrize("key", values())
def test_null_for_a_whole_value_is_taken_or_refused_by_its_name(key: str) -> None:
    if key in schema()["required"]:
        with pytest.raises(RenderError, match=f"missing property '{key}'"):
            render(MINIMAL, {key: None})
    else:
        assert render(MINIMAL, {key: None})


def leaves(tree: Mapping[str, Any], *path: str) -> Iterator[tuple[str, ...]]:
    """Every value that a template handles by its name; what is in some maps goes into an object whole."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and "daemonset" not in path and key != "labels":
            yield from leaves(value, *path, key)
        else:
            yield *path, key


def test_every_value_is_used_by_a_template() -> None:
    text = templates()
    unused = [path for path in leaves(values()) if not re.search(rf'[."]{path[-1]}\b', text)]
    assert unused == []


def test_the_file_with_everything_on_shows_how_each_value_is_written() -> None:
    everything = loaded((CHART / "ci/everything-on-values.yaml").read_text())
    # The digest stands in for the tag, and resources for a ConfigMap of the operator's own.
    assert [path for path in leaves(values()) if not has(everything, path)] == [
        ("image", "tag"),
        ("config", "existingConfigMap"),
    ]
