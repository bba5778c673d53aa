"""Configurations inside ConfigMap manifests, with positions in the manifest."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.config.diagnostics import ConfigInvalidError, Diagnostic, ErrorCode
from genplug.config.manifest import find_manifests, is_manifest
from tests.support.configs import HEAD

RENDERED = f"""\
# Source: genplug/templates/serviceaccount.yaml
apiVersion: v1
kind: ServiceAccount
metadata: {{name: genplug, name: twice}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: dashboard}}
data:
  dashboard.json: '{{"panels": [}}'
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: genplug
data:
  README: not yaml [
  genplug.yaml: |
    ---
    {HEAD.replace(chr(10), chr(10) + "    ")}resources:

      example.com/x:
        devices: [{{glob: /dev/x}}]
  node.w1.yaml: |2-
      resources: {{example.com/y: {{devices: [{{glob: /dev/y}}]}}}}
  node.w2.yaml: 'resources: {{example.com/x: null}}'
"""


def resources(text: str, node_name: str | None = None) -> list[str]:
    (manifest,) = find_manifests(text, "cm.yaml")
    return [name.removeprefix("example.com/") for name in manifest.load(node_name).resources]


def refused(text: str, node_name: str | None = None) -> tuple[Diagnostic, ...]:
    try:
        for manifest in find_manifests(text, "cm.yaml"):
            manifest.load(node_name)
    except ConfigInvalidError as error:
        return error.problems
    return ()


def told(text: str, node_name: str | None = None) -> list[tuple[str, str]]:
    """Return where the problems are, and what the carets stand under."""
    return [(str(one.location), one.line[one.location.column - 1 :][: one.width]) for one in refused(text, node_name)]


def test_of_a_rendered_chart_the_one_config_map_is_read_that_holds_a_configuration() -> None:
    assert is_manifest(RENDERED)
    assert resources(RENDERED) == ["x"]
    assert resources(RENDERED, "w1") == ["x", "y"]
    assert resources(RENDERED, "w2") == []
    (manifest,) = find_manifests(RENDERED, "cm.yaml")
    assert sorted(manifest.nodes.values()) == ["w1", "w2"]
    assert manifest.load(None).files == ("cm.yaml[genplug/genplug.yaml]",)


def test_a_mistake_in_a_literal_block_is_told_at_its_place_in_the_manifest() -> None:
    assert told(RENDERED.replace("devices: [{glob: /dev/x}]", "devces: [{glob: /dev/x}]")) == [
        ("cm.yaml:25:9", "devces")
    ]
    assert told(RENDERED.replace("glob: /dev/y", 'glob: "y${"'), "w1") == [("cm.yaml:27:53", "y")]


def test_a_mistake_of_yaml_is_told_at_its_place_too() -> None:
    assert told(RENDERED.replace("devices: [{glob: /dev/x}]", "devices: 'x")) == [("cm.yaml:25:18", "'")]
    twice = refused(RENDERED.replace("      example.com/x:\n", "      example.com/x: null\n      example.com/x:\n"))
    assert [(str(one.location), str(one.related_location)) for one in twice] == [("cm.yaml:25:7", "cm.yaml:24:7")]


def test_a_mistake_in_a_quoted_value_is_told_at_its_place_where_that_is_known() -> None:
    assert told(RENDERED.replace("example.com/x: null", "x: {devices: []}"), "w2")[0] == ("cm.yaml:28:30", "x")
    escaped = RENDERED.replace("'resources: {example.com/x: null}'", '"resources: {x: {devices: []}}\\n"')
    assert told(escaped, "w2")[0] == ("cm.yaml:28:17", '"')


def test_what_kubectl_prints_as_json_is_read() -> None:
    text = HEAD + "resources: {example.com/x: {devices: [{glob: /dev/x}]}}\n"
    item = {"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a.yaml": text}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [{"kind": "Pod"}, item]}
    for printed in (json.dumps(listed, indent=4), json.dumps(listed)):
        assert is_manifest(printed)
        assert resources(printed) == ["x"]


def test_two_config_maps_are_two_configurations() -> None:
    second = RENDERED.replace("name: genplug", "name: other").replace("example.com/x", "example.com/z")
    found = find_manifests(f"{RENDERED}---\n{second}", "cm.yaml")
    assert [list(one.load(None).resources) for one in found] == [["example.com/x"], ["example.com/z"]]


def test_a_single_config_map_is_meant_whatever_is_in_it() -> None:
    text = "kind: ConfigMap\ndata:\n  a.yaml: |\n    resorces: {}\n"
    assert {one.code for one in refused(text)} == {ErrorCode.UNKNOWN_KEY, ErrorCode.MISSING_KEY}
    assert {str(one.location) for one in refused(text)} == {"cm.yaml:4:5"}


@pytest.mark.parametrize(
    "text",
    [
        "kind: ConfigMap\n",
        "kind: ConfigMap\ndata: []\n",
        "kind: ConfigMap\ndata: {a.yaml: [1], README: x}\n",
        "kind: List\nitems: 5\n",
    ],
)
def test_no_configuration_anywhere_is_a_problem(text: str) -> None:
    assert is_manifest(text)
    assert [one.code for one in refused(text)] == [ErrorCode.NO_RESOURCES]


def test_a_stream_that_is_no_yaml_is_a_problem_at_its_place() -> None:
    assert told("kind: ConfigMap\ndata: [\n---\n")[0][0] == "cm.yaml:3:1"


def test_an_empty_value_is_an_empty_file() -> None:
    assert [one.code for one in refused('kind: ConfigMap\ndata: {a.yaml: ""}\n')] == [ErrorCode.NO_RESOURCES]


@pytest.mark.parametrize("text", [HEAD + "resources: {}\n", "", "a: ConfigMap\n", "data: |\n  x: ConfigMap\n"])
def test_a_configuration_is_no_manifest(text: str) -> None:
    assert not is_manifest(text)


def test_looking_for_a_manifest_takes_no_time_whatever_the_text() -> None:
    assert not is_manifest("\n" * 1_000_000 + " " * 1_000_000 + "{,\n" * 300_000)


@given(st.text("kind: ConfigMap\ndata:{}[]|'\"-&*a.yml", max_size=60))
@settings(deadline=None)
def test_no_text_gets_anything_but_an_answer(text: str) -> None:
    head = "kind: ConfigMap\ndata:\n  a.yaml: "
    # Whatever it is, it is no valid configuration.
    for whole in (text, f"{head}|\n    {text}", head + text):
        assert {one.location.file for one in refused(whole)} == {"cm.yaml"}
