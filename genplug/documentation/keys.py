"""The keys that the JSON Schemas describe, for the pages of the reference and for ``genplug explain``."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml
from msgspec import Struct

from genplug.config.schema import schema_text

Schema = Mapping[str, Any]
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`]|genplug )")


class Key(Struct, frozen=True):
    """A key that a JSON Schema describes.

    ``path`` is the path of the key as the pages show it, and ``section`` that of the object that has the key.
    ``same_as`` is the section that documents the keys of the value, if it differs from ``path``.
    """

    section: str
    path: str
    schema: Schema
    is_required: bool
    same_as: str = ""


CONFIG = "genplug"
RESOURCE = "resource"
"""The section of the keys of a resource; the paths of its keys are relative to the resource."""


@cache
def load_schema(name: str) -> Schema:
    """Return a schema that ships with genplug by the name of its file without ``.schema.json``."""
    schema: Schema = json.loads(schema_text(f"{name}.schema.json"))
    return schema


@cache
def list_keys(name: str) -> tuple[Key, ...]:
    """Return every key of a schema once, in the order of the schema."""
    schema = load_schema(name)
    found = list(_walk(schema, schema, "", "", {}))
    if name != CONFIG:
        return tuple(found)
    # A resource is documented once: `defaults` has the same keys.
    top = [key for key in found if key.path in schema["properties"]]
    return (*top, *_walk(schema["definitions"][RESOURCE], schema, "", RESOURCE, {}))


def _walk(schema: Schema, root: Schema, path: str, section: str, documented: dict[str, str]) -> Iterator[Key]:
    """Yield the keys of an object, of the objects in it, and of the items of its lists and maps."""
    required = schema.get("required", ())
    inner: list[tuple[str, Schema]] = []
    for name, written in schema.get("properties", {}).items():
        key_path = f"{path}.{name}" if path else name
        part, value_path, reference = resolve_items(written, root, key_path)
        same_as = ""
        if "properties" in part:
            same_as = documented.setdefault(reference, value_path) if reference else value_path
            if same_as == value_path:
                inner.append((value_path, part))
        elsewhere = same_as if same_as != value_path else ""
        yield Key(section, key_path, resolve(written, root)[0], name in required, elsewhere)
    for value_path, part in inner:
        yield from _walk(part, root, value_path, value_path, documented)


def resolve(schema: Schema, root: Schema) -> tuple[Schema, str]:
    """Return a schema with what it refers to merged into it, and the last reference."""
    reference = schema.get("$ref") or next((part["$ref"] for part in schema.get("allOf", ())), "")
    if not reference:
        return schema, ""
    target = root
    for step in reference.removeprefix("#/").split("/"):
        target = target[step]
    resolved, inner = resolve(target, root)
    own = {key: value for key, value in schema.items() if key not in {"$ref", "allOf"}}
    return {**resolved, **own}, inner or reference


def resolve_items(schema: Schema, root: Schema, path: str) -> tuple[Schema, str, str]:
    """Return the schema of what a key holds, through lists and maps, with its path and the last reference."""
    resolved, reference = resolve(schema, root)
    if "properties" in resolved:
        return resolved, path, reference
    if isinstance(items := resolved.get("items"), dict):
        return resolve_items(items, root, f"{path}[]")
    if isinstance(values := resolved.get("additionalProperties"), dict):
        return resolve_items(values, root, f"{path}.*")
    return resolved, path, reference


def type_text(schema: Schema, root: Schema, plural: str = "", *, is_nullable: bool = True) -> str:
    """Return the type of a value in words."""
    schema, _ = resolve(schema, root)
    types = schema.get("type", "string")
    words = []
    for name in [types] if isinstance(types, str) else types:
        match name:
            case "array":
                items = type_text(schema.get("items", {}), root, "s", is_nullable=False)
                words.append(f"list{plural} of {items}")
            case "object" if isinstance(schema.get("additionalProperties"), dict):
                values = type_text(schema["additionalProperties"], root, is_nullable=False)
                words.append(f"map{plural} from string to " + (f"({values})" if " or " in values else values))
            case "null":
                words += [name] if is_nullable else []
            case "boolean":
                words.append(name)
            case _:
                words.append(name + plural)
    return " or ".join(words)


def constraints(schema: Schema) -> Iterator[str]:
    """Yield what a schema demands of a value beyond its type."""
    if "enum" in schema:
        yield "Allowed values: " + ", ".join(f"`{inline(value)}`" for value in schema["enum"] if value is not None)
    bounds = [
        f"{word} {schema[keyword]}"
        for keyword, word in {
            "minimum": "at least",
            "exclusiveMinimum": "greater than",
            "maximum": "at most",
            "exclusiveMaximum": "less than",
        }.items()
        if keyword in schema
    ]
    if bounds and bounds != ["at least 0"]:
        yield "Range: " + ", ".join(bounds)
    if "pattern" in schema:
        yield f"Pattern of a string: `{schema['pattern']}`"
    if "maxLength" in schema:
        yield f"Maximum length: {schema['maxLength']}"
    if schema.get("minItems"):
        yield f"Minimum number of items: {schema['minItems']}"
    if schema.get("format") == "date-time":
        yield "Format: RFC 3339"


def inline(value: object) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 20, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, each as a line."""
    return SENTENCE_END.sub("\n", " ".join(text.split())).split("\n")
