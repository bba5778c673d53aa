"""Merging: maps are merged by key, other values are replaced, null removes a key, and locations are kept."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from genplug.config.files import ConfigFile
from genplug.config.load import load_texts
from genplug.config.merge import apply_defaults, drop_nulls, merge
from genplug.config.yaml_tree import ListNode, MapEntry, MapNode, ScalarNode, to_python
from genplug.spec.location import SourceLocation
from tests.support.configs import CONFIG_HEADER

keys = st.sampled_from("abc")
leaves = st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
maps = st.recursive(
    st.dictionaries(keys, leaves, max_size=3),
    lambda inner: st.dictionaries(keys, leaves | inner, max_size=3),
    max_leaves=8,
)


def build_tree(content: Any, file: str = "f") -> Any:
    """Return content as the tree of a file."""
    location = SourceLocation(file, 1, 1)
    if isinstance(content, dict):
        return MapNode(location, {key: MapEntry(location, build_tree(value, file)) for key, value in content.items()})
    if isinstance(content, list):
        return ListNode(location, tuple(build_tree(item, file) for item in content))
    return ScalarNode(location, content, str(content), None)


def merge_values(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Return plain values merged as docs/reference/configuration.md defines."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        result[key] = merge_values(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def remove_nulls(content: dict[str, Any]) -> dict[str, Any]:
    return {
        key: remove_nulls(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if value is not None
    }


def merge_contents(*contents: dict[str, Any]) -> object:
    return to_python(drop_nulls(merge([build_tree(content) for content in contents])))


@given(maps, maps, maps)
def test_merge_agrees_with_the_reference_on_plain_values(
    first: dict[str, Any], second: dict[str, Any], third: dict[str, Any]
) -> None:
    assert merge_contents(first, second, third) == remove_nulls(merge_values(merge_values(first, second), third))


@given(maps)
def test_merge_with_an_empty_or_the_same_file_changes_nothing(content: dict[str, Any]) -> None:
    merged = merge_contents(content)
    assert merge_contents(content, {}) == merge_contents({}, content) == merge_contents(content, content) == merged


@given(maps, maps)
def test_merged_key_and_value_keep_the_file_of_their_location(first: dict[str, Any], second: dict[str, Any]) -> None:
    def check(node: MapNode, later: dict[str, Any]) -> None:
        for key, entry in node.entries.items():
            assert entry.key.file == ("second" if key in later else "first")
            if isinstance(entry.value, MapNode):
                inner = later.get(key, {})
                check(entry.value, inner if isinstance(inner, dict) else {})
            else:
                assert entry.value.location.file == entry.key.file

    check(merge([build_tree(first, "first"), build_tree(second, "second")]), second)


def test_defaults_apply_to_all_keys_except_devices_and_aliases() -> None:
    whole = apply_defaults(
        build_tree(
            {
                "defaults": {"devices": [1], "aliases": [2], "share": {"a": 1, "b": 2}},
                "resources": {"x": {"share": {"b": 3}}},
            }
        )
    )
    assert to_python(whole) == {
        "defaults": {"devices": [1], "aliases": [2], "share": {"a": 1, "b": 2}},
        "resources": {"x": {"share": {"a": 1, "b": 3}}},
    }


DEFAULTS = f"""{CONFIG_HEADER}
defaults: {{tokens: 100}}
resources:
  a.io/x: {{devices: [{{glob: /dev/x}}]}}
  a.io/y: {{devices: [{{glob: /dev/y}}]}}
"""


def load_counts(*texts: str) -> dict[str, tuple[int, int | None]]:
    config = load_texts([ConfigFile(f"{number}.yaml", text) for number, text in enumerate(texts)])
    return {name: (resource.replicas, resource.tokens) for name, resource in config.resources.items()}


def test_null_removes_a_resource_of_an_earlier_file() -> None:
    assert load_counts(DEFAULTS, "resources: {a.io/x: null}\n") == {"a.io/y": (1, 100)}


def test_null_in_a_resource_removes_a_default() -> None:
    assert load_counts(DEFAULTS.replace("x}]}", "x}], tokens: null, replicas: 4}")) == {
        "a.io/x": (4, None),
        "a.io/y": (1, 100),
    }


def test_null_in_a_later_file_removes_a_default_of_an_earlier_file() -> None:
    assert load_counts(DEFAULTS, "resources: {a.io/x: {tokens: null}}\n")["a.io/x"] == (1, None)
    assert load_counts(DEFAULTS, "defaults: {tokens: null}\n")["a.io/x"] == (1, None)


def test_removed_resource_can_be_added_again_in_a_later_file() -> None:
    added = "resources: {a.io/x: {devices: [{glob: /dev/z}], tokens: 5}}\n"
    assert load_counts(DEFAULTS, "resources: {a.io/x: null}\n", added)["a.io/x"] == (1, 5)


def test_list_of_a_later_file_replaces_the_earlier_list() -> None:
    config = load_texts(
        [ConfigFile("a", DEFAULTS), ConfigFile("b", "resources: {a.io/x: {devices: [{glob: /dev/z*}]}}\n")]
    )
    assert [glob.text for source in config.resources["a.io/x"].sources for glob in source.globs] == ["/dev/z*"]
    assert str(config.resources["a.io/x"].sources[0].location) == "b:1:33"
