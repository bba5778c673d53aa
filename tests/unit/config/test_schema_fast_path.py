"""The fast path accepts exactly the documents that jsonschema accepts."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from genplug.config.schema import schema_text
from genplug.config.schema_fast_path import check_keywords, is_valid

SCHEMA = json.loads(schema_text())
VALIDATOR = Draft7Validator(SCHEMA)

scalars = (
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats(-3, 200, width=32) | st.sampled_from(["", "rw", "x"])
)


def near_documents(schema: dict[str, Any]) -> st.SearchStrategy[object]:
    """Return documents that are valid under a schema, or invalid at some location."""
    if "$ref" in schema:
        return near_documents(SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]])
    if "allOf" in schema:
        return near_documents(schema["allOf"][0])
    documents: list[st.SearchStrategy[object]] = [st.just(example) for example in schema.get("examples", ())]
    if "enum" in schema:
        documents.append(st.sampled_from(schema["enum"]))
    types = schema.get("type", "string")
    types = [types] if isinstance(types, str) else types
    if "object" in types:
        documents.append(st.deferred(lambda: near_objects(schema)))
    if "array" in types and isinstance(schema.get("items"), dict):
        documents.append(st.deferred(lambda: st.lists(near_documents(schema["items"]), max_size=2)))
    documents.append(scalars)
    return st.one_of(documents)


def near_objects(schema: dict[str, Any]) -> st.SearchStrategy[object]:
    known = {key: near_documents(value) for key, value in schema.get("properties", {}).items()}
    required = {key: known.pop(key) for key in schema.get("required", ()) if key in known}
    others = schema.get("additionalProperties")
    base = st.fixed_dictionaries(required, optional=known)
    if isinstance(others, dict):
        extra = st.dictionaries(st.sampled_from(["a.io/x", "b"]), near_documents(others), max_size=2)
        return st.tuples(base, extra).map(lambda both: both[0] | both[1])
    return base | base.map(lambda document: document | {"unknown": 1})


def test_fast_path_supports_all_keywords_of_the_schema() -> None:
    assert check_keywords(SCHEMA) == frozenset()


def test_unsupported_keyword_is_found() -> None:
    assert check_keywords({"properties": {"a": {"not": {}}}}) == {"not"}


@given(near_documents(SCHEMA))
@settings(max_examples=400, deadline=None)
def test_fast_path_agrees_with_jsonschema_on_the_schema(document: object) -> None:
    assert is_valid(SCHEMA, document) == VALIDATOR.is_valid(document)


KEYWORDS: list[dict[str, Any]] = [
    *({"type": kind} for kind in ("string", "integer", "number", "boolean", "array", "object", "null")),
    {"type": ["string", "integer"]},
    {"enum": ["a", 1, None]},
    {"minimum": 1, "maximum": 2},
    {"exclusiveMinimum": 1, "exclusiveMaximum": 2},
    {"minLength": 1, "maxLength": 2},
    {"pattern": "^a+$"},
    {"minItems": 1, "maxItems": 2},
    {"uniqueItems": True},
    {"items": {"type": "integer"}},
    {"minProperties": 1, "maxProperties": 1},
    {"required": ["a"]},
    {"properties": {"a": {"type": "integer"}}},
    {"properties": {"a": {}}, "additionalProperties": False},
    {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}},
    {"allOf": [{"type": "integer"}, {"minimum": 1}]},
    {"oneOf": [{"type": "integer"}, {"minimum": 1}]},
    {"definitions": {"x": {"type": "integer"}}, "$ref": "#/definitions/x"},
]
few = st.none() | st.booleans() | st.sampled_from([0, 1, 1.0, 1.5, 2, 2.5, 3, "", "a", "aa", "aaa", "b"])
documents = few | st.lists(few, max_size=3) | st.dictionaries(st.sampled_from("ab"), few)


@pytest.mark.parametrize("schema", KEYWORDS, ids=str)
@given(document=documents)
@settings(deadline=None)
def test_fast_path_agrees_with_jsonschema_on_each_keyword(schema: dict[str, Any], document: object) -> None:
    assert check_keywords(schema) == frozenset()
    assert is_valid(schema, document) == Draft7Validator(schema).is_valid(document)
