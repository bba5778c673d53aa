"""Configurations inside ConfigMap manifests, with locations in the manifest."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.config.manifest import find_manifests, is_manifest
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from tests.support.configs import CONFIG_HEADER, collect_diagnostics, marked_text

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
    {CONFIG_HEADER.replace(chr(10), chr(10) + "    ")}resources:

      example.com/x:
        devices: [{{glob: /dev/x}}]
  node.w1.yaml: |2-
      resources: {{example.com/y: {{devices: [{{glob: /dev/y}}]}}}}
  node.w2.yaml: 'resources: {{example.com/x: null}}'
"""
DUPLICATE_KEY = f"""\
kind: ConfigMap
data:
  a.yaml: '{CONFIG_HEADER.splitlines()[0]}'
  a.yaml: ''
"""


def load_names(text: str, node_name: str | None = None) -> list[str]:
    """Return the resource names of the only configuration in a manifest, without their domain."""
    (manifest,) = find_manifests(text, "cm.yaml").configurations
    return [name.removeprefix("example.com/") for name in manifest.load(node_name).resources]


def find_diagnostics(text: str, node_name: str | None = None) -> tuple[Diagnostic, ...]:
    return collect_diagnostics(
        lambda: [manifest.load(node_name) for manifest in find_manifests(text, "cm.yaml").configurations],
    )


def locate_diagnostics(text: str, node_name: str | None = None) -> list[tuple[str, str]]:
    """Return the locations of the errors, and the texts that their carets mark."""
    return [(str(diagnostic.location), marked_text(diagnostic)) for diagnostic in find_diagnostics(text, node_name)]


def test_config_map_with_configuration_is_found_in_a_rendered_chart() -> None:
    assert is_manifest(RENDERED)
    assert load_names(RENDERED) == ["x"]
    assert load_names(RENDERED, "w1") == ["x", "y"]
    assert load_names(RENDERED, "w2") == []
    (manifest,) = find_manifests(RENDERED, "cm.yaml").configurations
    assert sorted(manifest.nodes.values()) == ["w1", "w2"]
    assert manifest.load(None).files == ("cm.yaml[genplug/genplug.yaml]",)


def test_error_in_literal_block_has_its_location_in_the_manifest() -> None:
    assert locate_diagnostics(RENDERED.replace("devices: [{glob: /dev/x}]", "devces: [{glob: /dev/x}]")) == [
        ("cm.yaml:25:9", "devces")
    ]
    assert locate_diagnostics(RENDERED.replace("glob: /dev/y", 'glob: "y${"'), "w1") == [("cm.yaml:27:54", "$")]


def test_syntax_error_has_its_location_in_the_manifest() -> None:
    assert locate_diagnostics(RENDERED.replace("devices: [{glob: /dev/x}]", "devices: 'x")) == [("cm.yaml:25:18", "'")]
    duplicates = find_diagnostics(
        RENDERED.replace("      example.com/x:\n", "      example.com/x: null\n      example.com/x:\n")
    )
    assert [(str(diagnostic.location), str(diagnostic.related_location)) for diagnostic in duplicates] == [
        ("cm.yaml:25:7", "cm.yaml:24:7")
    ]


def test_error_in_quoted_value_has_its_location_or_that_of_the_value() -> None:
    assert locate_diagnostics(RENDERED.replace("example.com/x: null", "x: {devices: []}"), "w2")[0] == (
        "cm.yaml:28:30",
        "x",
    )
    escaped = RENDERED.replace("'resources: {example.com/x: null}'", '"resources: {x: {devices: []}}\\n"')
    assert locate_diagnostics(escaped, "w2")[0] == ("cm.yaml:28:17", '"')


def test_json_list_of_kubectl_is_read() -> None:
    text = CONFIG_HEADER + "resources: {example.com/x: {devices: [{glob: /dev/x}]}}\n"
    item = {"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a.yaml": text}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [{"kind": "Pod"}, item]}
    for printed in (json.dumps(listed, indent=4), json.dumps(listed)):
        assert is_manifest(printed)
        assert load_names(printed) == ["x"]


def test_each_config_map_is_a_configuration() -> None:
    second = RENDERED.replace("name: genplug", "name: other").replace("example.com/x", "example.com/z")
    manifests = find_manifests(f"{RENDERED}---\n{second}", "cm.yaml").configurations
    assert [list(manifest.load(None).resources) for manifest in manifests] == [["example.com/x"], ["example.com/z"]]


def test_single_config_map_is_read_without_a_version() -> None:
    text = "kind: ConfigMap\ndata:\n  a.yaml: |\n    resorces: {}\n"
    assert {diagnostic.code for diagnostic in find_diagnostics(text)} == {ErrorCode.UNKNOWN_KEY, ErrorCode.MISSING_KEY}
    assert {str(diagnostic.location) for diagnostic in find_diagnostics(text)} == {"cm.yaml:4:5"}


@pytest.mark.parametrize(
    "text",
    [
        "kind: ConfigMap\n",
        "kind: ConfigMap\ndata: []\n",
        "kind: ConfigMap\ndata: {a.yaml: [1], README: x}\n",
        "kind: List\nitems: 5\n",
    ],
)
def test_manifest_without_configuration_is_reported(text: str) -> None:
    assert is_manifest(text)
    assert [diagnostic.code for diagnostic in find_diagnostics(text)] == [ErrorCode.NO_RESOURCES]


def test_invalid_yaml_stream_is_reported_at_its_error() -> None:
    assert locate_diagnostics("kind: ConfigMap\ndata: [\n---\n")[0][0] == "cm.yaml:3:1"


def test_empty_value_is_read_like_an_empty_file() -> None:
    assert [diagnostic.code for diagnostic in find_diagnostics('kind: ConfigMap\ndata: {a.yaml: ""}\n')] == [
        ErrorCode.NO_RESOURCES
    ]


@pytest.mark.parametrize("text", [CONFIG_HEADER + "resources: {}\n", "", "a: ConfigMap\n", "data: |\n  x: ConfigMap\n"])
def test_text_without_config_map_is_not_a_manifest(text: str) -> None:
    assert not is_manifest(text)


def test_manifest_check_is_linear_in_the_text() -> None:
    assert not is_manifest("\n" * 1_000_000 + " " * 1_000_000 + "{,\n" * 300_000)


@given(st.text("kind: ConfigMap\ndata:{}[]|'\"-&*a.yml", max_size=60))
@settings(deadline=None)
def test_any_text_in_a_manifest_is_reported_as_invalid(text: str) -> None:
    head = "kind: ConfigMap\ndata:\n  a.yaml: "
    for manifest in (text, f"{head}|\n    {text}", head + text):
        assert {diagnostic.location.file for diagnostic in find_diagnostics(manifest)} == {"cm.yaml"}


def test_duplicate_key_is_reported_only_in_a_config_map_of_genplug() -> None:
    found = collect_diagnostics(lambda: find_manifests(DUPLICATE_KEY, "cm.yaml"))
    assert [(diagnostic.code, str(diagnostic.location), str(diagnostic.related_location)) for diagnostic in found] == [
        (ErrorCode.DUPLICATE_KEY, "cm.yaml:4:3", "cm.yaml:3:3")
    ]
    ours = f"kind: ConfigMap\ndata:\n  a.yaml: |\n    {CONFIG_HEADER.splitlines()[0]}\n"
    assert len(find_manifests(f"{ours}---\n{DUPLICATE_KEY.replace('genplug.io', 'x')}", "cm.yaml").configurations) == 1


@pytest.mark.parametrize("text", ["kind: ConfigMap\ndata: {", "kind: ConfigMap\ndata: [\n", "kind: ConfigMap\n\n\n- "])
def test_truncated_manifest_is_reported_as_a_syntax_error(text: str) -> None:
    assert {diagnostic.code for diagnostic in collect_diagnostics(lambda: find_manifests(text, "cm.yaml"))} == {
        ErrorCode.SYNTAX
    }
