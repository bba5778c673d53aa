"""The YAML reader: locations, strict scalars, and an error for every unsupported text."""

import json
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genplug.config.diagnostics import ConfigInvalidError, Diagnostics
from genplug.config.load import load_text
from genplug.config.yaml_tree import ListNode, MapNode, Node, ScalarNode, parse_document, parse_documents, to_python
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.location import SourceLocation
from tests.support.configs import CONFIG_HEADER, DEVICES, find_diagnostics, render_config


def parse_tree(text: str) -> Node:
    found = Diagnostics()
    tree = parse_document(text, "f", found)
    assert found.found == []
    assert tree is not None
    return tree


def parse_scalar(text: str) -> ScalarNode:
    tree = parse_tree(f"key: {text}\n")
    assert isinstance(tree, MapNode)
    node = tree.get("key")
    assert isinstance(node, ScalarNode)
    return node


SCALARS: dict[str, Any] = {
    "true": True,
    "false": False,
    "null": None,
    "": None,
    "0": 0,
    "-7": -7,
    "12": 12,
    "1.5": 1.5,
    "-0.25": -0.25,
    "1e3": 1000.0,
    "2.5E-1": 0.25,
    "True": "True",
    "TRUE": "TRUE",
    "yes": "yes",
    "on": "on",
    "off": "off",
    "n": "n",
    "Null": "Null",
    "~": "~",
    "+5": "+5",
    "0403": "0403",
    "007": "007",
    "1_000": "1_000",
    "0x10de": "0x10de",
    "0b11": "0b11",
    "0o17": "0o17",
    "22:22": "22:22",
    "1:30:00": "1:30:00",
    "0000:00:02.0": "0000:00:02.0",
    "2026-11-23": "2026-11-23",
    "64Gi": "64Gi",
    "1.": "1.",
    ".5": ".5",
    ".inf": ".inf",
    ".nan": ".nan",
    "1e400": "1e400",
    "=": "=",
    "9" * 301: "9" * 301,
    "'12'": "12",
    '"true"': "true",
    '""': "",
}


@pytest.mark.parametrize(("written", "value"), SCALARS.items(), ids=[text[:20] or "empty" for text in SCALARS])
def test_scalar_is_a_string_unless_json_has_its_type(written: str, value: object) -> None:
    found = parse_scalar(written).value
    assert found == value
    assert type(found) is type(value)


# Characters that YAML allows unescaped, without line separators and characters that JSON escapes as a pair.
TEXT = st.characters(min_codepoint=32, max_codepoint=0xD7FF, exclude_categories=["Cc", "Zl", "Zp"])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(TEXT, max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc*&!%@ü'\"{}:", max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
@settings(deadline=None)
def test_json_document_keeps_its_values(value: object) -> None:
    assert to_python(parse_tree(json.dumps(value))) == value
    assert to_python(parse_tree(json.dumps(value, indent=2, ensure_ascii=False))) == value


class Quoted(yaml.SafeDumper):
    """Writes every string in quotes: PyYAML and genplug differ in the plain scalars that are strings."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the name of the overridden parameter
        return True


Quoted.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(TEXT), st.lists))
@settings(deadline=None)
def test_yaml_of_another_writer_keeps_its_values(value: object) -> None:
    assert to_python(parse_tree(yaml.dump({"key": value}, Dumper=Quoted, allow_unicode=True))) == {"key": value}


def test_key_and_value_have_their_locations() -> None:
    tree = parse_tree('# a comment\na:\n  - "x"\n  - {b: 12}\n')
    assert isinstance(tree, MapNode)
    assert tree.entries["a"].key == SourceLocation("f", 2, 1)
    items = tree.get("a")
    assert isinstance(items, ListNode)
    assert items.items[0].location == SourceLocation("f", 3, 5)
    inner = items.items[1]
    assert isinstance(inner, MapNode)
    assert (inner.entries["b"].key, inner.entries["b"].value.location) == (
        SourceLocation("f", 4, 6),
        SourceLocation("f", 4, 9),
    )


CHARACTERS = {
    "plain": ("ab${x}", (1, 10)),
    "single quotes": ("'ab${x}'", (1, 11)),
    "double quotes": ('"ab${x}"', (1, 11)),
    "escapes before it: the value as a whole": ('"a\\x62${x}"', (1, 6)),
    "doubled quotes before it: the value as a whole": ("'a''b${x}'", (1, 6)),
    "a literal block": ("|\n    ü\n\n    ab${x}\n", (4, 9)),
    "a literal block with its own indentation": ("|2-\n    ab${x}\n", (2, 9)),
    "a literal block that begins with empty lines": ("|\n\n\n  ab${x}\n", (4, 7)),
    "a folded block: the value as a whole": (">\n  a\n  ab${x}\n", (1, 6)),
    "a plain text over two lines: the value as a whole": ("a\n  ab${x}\n", (1, 6)),
}


@pytest.mark.parametrize(("written", "location"), CHARACTERS.values(), ids=CHARACTERS)
def test_character_of_a_string_has_its_location(written: str, location: tuple[int, int]) -> None:
    node = parse_scalar(written)
    assert node.at(node.text.index("x}")) == SourceLocation("f", *location)


def test_line_numbers_count_carriage_return_line_feed_once() -> None:
    found = find_diagnostics(CONFIG_HEADER.replace("\n", "\r\n") + "resources: {}\r\nreplica: 1\r\n")
    assert [(str(diagnostic.location), diagnostic.line) for diagnostic in found] == [("c.yaml:4:1", "replica: 1")]


UNSUPPORTED = {
    "a key twice": "a: 1\nb: 2\na: 3\n",
    "a key twice, deep": "a: [{b: 1, 'b': 2}]\n",
    "merge key": "a: &a {x: 1}\nb: {<<: *a}\n",
    "tag": "a: !!int '3'\n",
    "tag of python": "a: !!python/object/apply:os.system [ls]\n",
    "list as key": "[a, b]: 1\n",
    "map as key": "{a: b}: 1\n",
    "alias as key": "a: &a x\n*a : 1\n",
    "template as key": "${x}: {${y}: 1}\n",
    "undefined alias": "a: *b\n",
    "recursive alias": "a: &a [*a]\n",
    "second document": "a: 1\n---\nb: 1\n",
    "NUL": "a: b\0\n",
    "NUL by escape": 'a: "b\\0"\n',
    "tab": "a:\n\tb: 1\n",
    "open bracket": "a: [b\n",
    "open quote": 'a: "b\n',
    "deep": "a: " + "[" * 200 + "]" * 200,
    "deep lines": "[\n" * 100_000,
    "deep dashes": "- " * 100_000,
    "deep by aliases": "a0: &a0 x\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(60)),
    "wide by aliases": "a: &a [" + "x, " * 1000 + "]\nb: [" + "*a, " * 1000 + "]\n",
    "larger than 1 MiB": "a: " + "x" * (1 << 20),
    "larger than 1 MiB in bytes": "a: " + "ü" * (1 << 19),
    "half a character": "a: \ud800\n",
}


@pytest.mark.parametrize("text", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported_yaml_is_reported_as_a_single_error(text: str) -> None:
    found = Diagnostics()
    parse_document(text, "f", found)
    (diagnostic,) = found.found
    assert diagnostic.code in {ErrorCode.SYNTAX, ErrorCode.DUPLICATE_KEY, ErrorCode.UNREADABLE, ErrorCode.LIMIT}
    assert diagnostic.message
    assert diagnostic.hint


@pytest.mark.parametrize(("mebibytes", "hint"), [(1, "a ConfigMap cannot be larger than 1 MiB either"), (2, "")])
def test_limit_of_config_maps_is_the_hint_for_texts_with_this_limit_only(mebibytes: int, hint: str) -> None:
    found, limit = Diagnostics(), mebibytes << 20
    parse_documents("x" * (limit + 1), "f", found, limit)
    (diagnostic,) = found.found
    assert diagnostic.message == f"the file is larger than {mebibytes} MiB, the maximum"
    assert diagnostic.hint == hint


def test_duplicate_key_is_reported_with_both_locations() -> None:
    found = Diagnostics()
    parse_document("a: 1\nb:\n  c: 1\n  c: 2\n", "f", found)
    (diagnostic,) = found.found
    assert (diagnostic.location, diagnostic.related_location) == (SourceLocation("f", 4, 3), SourceLocation("f", 3, 3))


def test_duplicate_keys_are_reported_together_with_semantic_errors() -> None:
    found = find_diagnostics(
        CONFIG_HEADER + "resources: {a.io/x: {devices: [{glob: x}], replicas: 1, replicas: 2}}\nresources: {}\n"
    )
    assert [diagnostic.code for diagnostic in found] == [
        ErrorCode.GLOB,
        ErrorCode.DUPLICATE_KEY,
        ErrorCode.DUPLICATE_KEY,
    ]


def test_alias_repeats_the_value_of_its_anchor() -> None:
    assert to_python(parse_tree("a: &a {x: [1]}\nb: *a\nc: [*a]\n")) == {
        "a": {"x": [1]},
        "b": {"x": [1]},
        "c": [{"x": [1]}],
    }


def test_anchor_is_unknown_in_the_next_document() -> None:
    found = Diagnostics()
    assert parse_documents("a: &a 1\n---\nb: *a\n", "f", found) is None
    assert [diagnostic.location for diagnostic in found.found] == [SourceLocation("f", 3, 4)]


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"%YAML 9.9\n---\n")
@example(b"? [")
@settings(deadline=None)
def test_any_bytes_load_or_raise_config_invalid_error(content: bytes) -> None:
    try_to_load(content.decode("utf-8", "surrogateescape"))


@given(st.text(st.sampled_from("ab:-?[]{},#&*!|>'\"%@`\n\t 0.~<=\\u${}/"), max_size=60))
@settings(deadline=None, max_examples=500)
def test_any_yaml_text_loads_or_raises_config_invalid_error(text: str) -> None:
    try_to_load(text)
    try_to_load(CONFIG_HEADER + "resources:\n  example.com/x:\n    " + text)


def try_to_load(text: str) -> None:
    with suppress(ConfigInvalidError):
        load_text(text, "f")


@pytest.mark.parametrize("end", ["---\n", "...\n", "---\n# nothing\n", "---\n---\n"])
def test_document_marker_at_the_end_starts_no_document(end: str) -> None:
    assert list(load_text(render_config(DEVICES) + end, "c.yaml").resources) == ["example.com/x"]


def test_file_of_document_markers_is_empty() -> None:
    assert [diagnostic.code for diagnostic in find_diagnostics("---\n---\n")] == [ErrorCode.NO_RESOURCES]
