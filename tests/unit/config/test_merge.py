"""Merging: maps key by key, the rest replaced, null deletes, and places that stay with what they are the places of."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from genplug.config.files import ConfigFile
from genplug.config.load import load_texts
from genplug.config.merge import apply_defaults, drop_nulls, merge
from genplug.config.yaml_tree import ListNode, MapEntry, MapNode, ScalarNode, to_python
from genplug.spec.location import SourceLocation
from tests.support.configs import HEAD

keys = st.sampled_from("abc")
leaves = st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
maps = st.recursive(
    st.dictionaries(keys, leaves, max_size=3),
    lambda inner: st.dictionaries(keys, leaves | inner, max_size=3),
    max_leaves=8,
)


def tree(content: Any, file: str = "f") -> Any:
    """Return content as a tree of one file."""
    location = SourceLocation(file, 1, 1)
    if isinstance(content, dict):
        return MapNode(location, {key: MapEntry(location, tree(value, file)) for key, value in content.items()})
    if isinstance(content, list):
        return ListNode(location, tuple(tree(item, file) for item in content))
    return ScalarNode(location, content, str(content), None)


def over(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Return what the language's page says, on plain values."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        result[key] = over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def pruned(content: dict[str, Any]) -> dict[str, Any]:
    return {
        key: pruned(value) if isinstance(value, dict) else value for key, value in content.items() if value is not None
    }


def content_of(*contents: dict[str, Any]) -> object:
    return to_python(drop_nulls(merge([tree(one) for one in contents])))


@given(maps, maps, maps)
def test_it_does_what_the_page_says(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    assert content_of(one, two, three) == pruned(over(over(one, two), three))


@given(maps)
def test_nothing_over_a_file_and_the_file_over_itself_change_nothing(one: dict[str, Any]) -> None:
    assert content_of(one, {}) == content_of({}, one) == content_of(one, one) == content_of(one)


@given(maps, maps)
def test_every_key_and_value_keeps_the_file_that_it_is_from(one: dict[str, Any], two: dict[str, Any]) -> None:
    def check(node: MapNode, second: dict[str, Any]) -> None:
        for key, entry in node.entries.items():
            assert entry.key.file == ("two" if key in second else "one")
            if isinstance(entry.value, MapNode):
                inner = second.get(key, {})
                check(entry.value, inner if isinstance(inner, dict) else {})
            else:
                assert entry.value.location.file == entry.key.file

    check(merge([tree(one, "one"), tree(two, "two")]), two)


def test_defaults_lie_under_each_resource_but_its_devices_and_aliases() -> None:
    whole = apply_defaults(
        tree(
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


DEFAULTS = f"""{HEAD}
defaults: {{tokens: 100}}
resources:
  a.io/x: {{devices: [{{glob: /dev/x}}]}}
  a.io/y: {{devices: [{{glob: /dev/y}}]}}
"""


def resources(*texts: str) -> dict[str, tuple[int, int | None]]:
    config = load_texts([ConfigFile(f"{number}.yaml", text) for number, text in enumerate(texts)])
    return {name: (one.replicas, one.tokens) for name, one in config.resources.items()}


def test_null_deletes_a_resource_of_an_earlier_file() -> None:
    assert resources(DEFAULTS, "resources: {a.io/x: null}\n") == {"a.io/y": (1, 100)}


def test_null_in_a_resource_deletes_what_defaults_say() -> None:
    assert resources(DEFAULTS.replace("x}]}", "x}], tokens: null, replicas: 4}")) == {
        "a.io/x": (4, None),
        "a.io/y": (1, 100),
    }


def test_null_in_a_later_file_deletes_what_defaults_of_an_earlier_one_say() -> None:
    assert resources(DEFAULTS, "resources: {a.io/x: {tokens: null}}\n")["a.io/x"] == (1, None)
    assert resources(DEFAULTS, "defaults: {tokens: null}\n")["a.io/x"] == (1, None)


def test_a_key_that_was_deleted_can_be_written_anew() -> None:
    anew = "resources: {a.io/x: {devices: [{glob: /dev/z}], tokens: 5}}\n"
    assert resources(DEFAULTS, "resources: {a.io/x: null}\n", anew)["a.io/x"] == (1, 5)


def test_a_list_is_replaced_as_a_whole() -> None:
    config = load_texts(
        [ConfigFile("a", DEFAULTS), ConfigFile("b", "resources: {a.io/x: {devices: [{glob: /dev/z*}]}}\n")]
    )
    assert [glob.text for source in config.resources["a.io/x"].sources for glob in source.globs] == ["/dev/z*"]
    assert str(config.resources["a.io/x"].sources[0].location) == "b:1:33"


def test_the_digest_is_of_what_is_said_and_not_of_how() -> None:
    def digest(*texts: str) -> str:
        return load_texts([ConfigFile(str(number), text) for number, text in enumerate(texts)]).sha256

    other_layout = "# a comment\n" + DEFAULTS.replace("{glob: /dev/x}", '{"glob": "/dev/x"}')
    assert digest(DEFAULTS) == digest(other_layout) == digest(DEFAULTS, "{}")
    assert digest(DEFAULTS) != digest(DEFAULTS, "resources: {a.io/x: {tokens: 5}}")
