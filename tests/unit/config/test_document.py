"""The reader: positions, strict scalars, and an answer in words to whatever it is given."""

import json
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genplug.config.diagnostics import ConfigInvalidError, Diagnostics, ErrorCode
from genplug.config.load import load_text
from genplug.config.yaml_tree import ListNode, MapNode, Node, ScalarNode, parse_document, parse_documents, to_python
from genplug.spec.location import SourceLocation
from tests.support.configs import HEAD, find_problems


def tree_of(text: str) -> Node:
    found = Diagnostics()
    tree = parse_document(text, "f", found)
    assert found.found == []
    assert tree is not None
    return tree


def scalar(text: str) -> ScalarNode:
    tree = tree_of(f"key: {text}\n")
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


@pytest.mark.parametrize(("written", "value"), SCALARS.items(), ids=[one[:20] or "nothing" for one in SCALARS])
def test_only_what_json_would_take_is_anything_but_a_text(written: str, value: object) -> None:
    found = scalar(written).value
    assert found == value
    assert type(found) is type(value)


# What YAML allows unescaped: no control characters, no line breaks of its own, and nothing that JSON escapes as a pair.
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
def test_json_is_read_as_what_it_means(value: object) -> None:
    assert to_python(tree_of(json.dumps(value))) == value
    assert to_python(tree_of(json.dumps(value, indent=2, ensure_ascii=False))) == value


class Quoted(yaml.SafeDumper):
    """Writes every text in quotes, as its idea of a plain text is another, and floats as JSON does."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the name that it overrides
        return True


Quoted.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(TEXT), st.lists))
@settings(deadline=None)
def test_what_another_program_writes_as_yaml_is_read_as_that(value: object) -> None:
    assert to_python(tree_of(yaml.dump({"key": value}, Dumper=Quoted, allow_unicode=True))) == {"key": value}


def test_every_key_and_value_knows_its_place() -> None:
    tree = tree_of('# a comment\na:\n  - "x"\n  - {b: 12}\n')
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


PLACES = {
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


@pytest.mark.parametrize(("written", "location"), PLACES.values(), ids=PLACES)
def test_a_character_of_a_text_is_found_in_the_file(written: str, location: tuple[int, int]) -> None:
    node = scalar(written)
    assert node.at(node.text.index("x}")) == SourceLocation("f", *location)


def test_lines_that_end_as_on_other_systems_are_counted_as_yaml_counts_them() -> None:
    found = find_problems(HEAD.replace("\n", "\r\n") + "resources: {}\r\nreplica: 1\r\n")
    assert [(str(one.location), one.line) for one in found] == [("c.yaml:4:1", "replica: 1")]


WRONG = {
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


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_is_not_of_the_language_is_one_clear_problem(text: str) -> None:
    found = Diagnostics()
    parse_document(text, "f", found)
    (problem,) = found.found
    assert problem.code in {ErrorCode.SYNTAX, ErrorCode.DUPLICATE_KEY, ErrorCode.UNREADABLE}
    assert problem.message
    assert problem.hint


def test_a_duplicate_key_is_told_with_both_places() -> None:
    found = Diagnostics()
    parse_document("a: 1\nb:\n  c: 1\n  c: 2\n", "f", found)
    (problem,) = found.found
    assert (problem.location, problem.related_location) == (SourceLocation("f", 4, 3), SourceLocation("f", 3, 3))


def test_all_slips_that_leave_a_tree_are_told_at_once_with_those_of_its_meaning() -> None:
    found = find_problems(
        HEAD + "resources: {a.io/x: {devices: [{glob: x}], replicas: 1, replicas: 2}}\nresources: {}\n"
    )
    assert [one.code for one in found] == [ErrorCode.GLOB, ErrorCode.DUPLICATE_KEY, ErrorCode.DUPLICATE_KEY]


def test_an_alias_stands_for_what_it_repeats() -> None:
    assert to_python(tree_of("a: &a {x: [1]}\nb: *a\nc: [*a]\n")) == {
        "a": {"x": [1]},
        "b": {"x": [1]},
        "c": [{"x": [1]}],
    }


def test_an_anchor_ends_with_its_document() -> None:
    found = Diagnostics()
    assert parse_documents("a: &a 1\n---\nb: *a\n", "f", found) is None
    assert [one.location for one in found.found] == [SourceLocation("f", 3, 4)]


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"%YAML 9.9\n---\n")
@example(b"? [")
@settings(deadline=None)
def test_no_bytes_get_anything_but_an_answer(content: bytes) -> None:
    answered(content.decode("utf-8", "surrogateescape"))


@given(st.text(st.sampled_from("ab:-?[]{},#&*!|>'\"%@`\n\t 0.~<=\\u${}/"), max_size=60))
@settings(deadline=None, max_examples=500)
def test_no_text_of_yamls_own_characters_gets_anything_but_an_answer(text: str) -> None:
    answered(text)
    answered(HEAD + "resources:\n  example.com/x:\n    " + text)


def answered(text: str) -> None:
    with suppress(ConfigInvalidError):
        load_text(text, "f")
