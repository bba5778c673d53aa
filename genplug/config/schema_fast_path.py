"""Decides quickly whether a document matches our JSON Schema, without the jsonschema library.

jsonschema explains *what* is wrong, but costs 30 ms at every start and 4 MiB of memory; it is only loaded for a
document that does not match. This module supports the draft-07 keywords that our schemas use. Tests check that it
supports all of them (:func:`check_keywords`) and that it agrees with jsonschema.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

Schema = Mapping[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_NOTES = frozenset(
    {"$schema", "$id", "$comment", "title", "description", "default", "examples", "definitions", "markdownDescription"}
)
_KNOWN = frozenset(
    {
        "$ref",
        "additionalProperties",
        "allOf",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "oneOf",
        "pattern",
        "properties",
        "required",
        "type",
        "uniqueItems",
    }
)


def check_keywords(schema: Schema) -> frozenset[str]:
    """Return the keywords anywhere in a schema that :func:`is_valid` does not support."""
    return frozenset(_unknown(schema))


def is_valid(schema: Schema, document: object, root: Schema | None = None) -> bool:
    """Return whether a document of dicts, lists and scalars matches; ``$ref`` is resolved from ``root``."""
    root = schema if root is None else root
    if "$ref" in schema:
        # In draft-07, a reference hides the keywords next to it.
        return is_valid(_resolve_reference(root, schema["$ref"]), document, root)
    if not _is_of_type(schema.get("type"), document) or ("enum" in schema and not _is_among(document, schema["enum"])):
        return False
    if not all(is_valid(part, document, root) for part in schema.get("allOf", ())):
        return False
    if "oneOf" in schema and sum(is_valid(part, document, root) for part in schema["oneOf"]) != 1:
        return False
    if isinstance(document, str):
        return _is_string(schema, document)
    if isinstance(document, dict):
        return _is_object(schema, document, root)
    if isinstance(document, list):
        return _is_array(schema, document, root)
    return isinstance(document, bool) or not isinstance(document, int | float) or _is_number(schema, document)


def _is_of_type(wanted: str | list[str] | None, document: object) -> bool:
    if wanted is None:
        return True
    names = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(document, bool):
        return "boolean" in names
    # JSON does not distinguish integers and floats: 2.0 is an integer.
    is_integral = isinstance(document, float) and document.is_integer() and "integer" in names
    return is_integral or any(isinstance(document, _TYPES[name]) for name in names)


def _is_among(document: object, others: Sequence[object]) -> bool:
    # In JSON, true does not equal 1.
    return any(other == document and isinstance(other, bool) == isinstance(document, bool) for other in others)


def _is_string(schema: Schema, text: str) -> bool:
    if not schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", len(text)):
        return False
    return "pattern" not in schema or re.search(schema["pattern"], text) is not None


def _is_number(schema: Schema, number: float) -> bool:
    return (
        number >= schema.get("minimum", number)
        and number <= schema.get("maximum", number)
        and ("exclusiveMinimum" not in schema or number > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or number < schema["exclusiveMaximum"])
    )


def _is_array(schema: Schema, items: list[object], root: Schema) -> bool:
    if not schema.get("minItems", 0) <= len(items) <= schema.get("maxItems", len(items)):
        return False
    if schema.get("uniqueItems") and any(_is_among(item, items[:number]) for number, item in enumerate(items)):
        return False
    return "items" not in schema or all(is_valid(schema["items"], item, root) for item in items)


def _is_object(schema: Schema, entries: dict[str, object], root: Schema) -> bool:
    if not schema.get("minProperties", 0) <= len(entries) <= schema.get("maxProperties", len(entries)):
        return False
    if not entries.keys() >= set(schema.get("required", ())):
        return False
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, value in entries.items():
        rule = known.get(key, others)
        if rule is False or (rule is not True and not is_valid(rule, value, root)):
            return False
    return True


@lru_cache(maxsize=64)
def _steps(reference: str) -> tuple[str, ...]:
    return tuple(step for step in reference.removeprefix("#").split("/") if step)


def _resolve_reference(root: Schema, reference: str) -> Schema:
    found: Any = root
    for step in _steps(reference):
        found = found[step]
    return found  # type: ignore[no-any-return] # references in our schemas lead to schemas


def _unknown(schema: object) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return
    for keyword, value in schema.items():
        if keyword in ("properties", "definitions"):
            for inner in value.values():
                yield from _unknown(inner)
        elif keyword in ("items", "additionalProperties"):
            yield from _unknown(value)
        elif keyword in ("allOf", "oneOf"):
            for inner in value:
                yield from _unknown(inner)
        elif keyword not in _KNOWN | _NOTES:
            yield keyword
