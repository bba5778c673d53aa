"""Finds a key of the configuration, the policy or the values of the chart by its path.

A path is as in the errors of ``genplug validate``, ``resources.example.com/x.devices[0].glob``, as in the reference,
``resources.*.devices[].glob``, or without the items of lists and maps, ``resources.devices.glob``.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import yaml
from msgspec import Struct

from genplug.config.schema import VALUES_SCHEMA, schema_text
from genplug.documentation.keys import RESOURCE, Schema, inline, load_schema, resolve
from genplug.documentation.pages import read_source
from genplug.struct_values import hide_in_repr

DOCUMENTS = {"config": "genplug", "policy": "genplug-policy", "values": "values"}
"""The documents with keys, and the name of the schema of each."""
MAX_DEPTH = 30
"""Levels of keys in each other; no schema is deeper."""
_INDEX = re.compile(r"\[[^\[\]]*\]")
_MISSING = object()


@hide_in_repr("root")
class FoundKey(Struct, frozen=True):
    """A key: its document, its path with ``[]`` for items of lists and ``*`` for names in maps, and its schema.

    ``root`` is the schema of the document. ``default`` is the default as YAML, or None if the key has none.
    """

    document: str
    path: str
    schema: Schema
    root: Schema
    is_required: bool = False
    default: str | None = None

    @property
    def short_path(self) -> str:
        """The path without the items of lists and maps, with the name of a document other than the configuration."""
        path = self.path.replace("[]", "").replace(".*", "")
        return path if self.document == "config" else f"{self.document}.{path}"

    @property
    def child_keys(self) -> "tuple[FoundKey, ...]":
        """The keys of the value, or of the items of a list or map."""
        return tuple(_list_children(self))


def find_key(path: str, documents: Sequence[str] = tuple(DOCUMENTS)) -> FoundKey | None:
    """Return the key with a path, in the first document that has it.

    A path in the configuration can also begin with a key of a resource, as in the reference. Unless a document is
    selected, ``policy`` or ``values`` at the start of a path selects it.
    """
    prefix, _, rest = path.partition(".")
    if len(documents) > 1 and prefix in documents and prefix != "config":
        return find_key(rest, [prefix])
    for document in documents:
        for start in _list_roots(document):
            if path == start.path:
                return start
            if (found := _match(start, path, 0)) is not None:
                return found
    return None


@cache
def list_all_keys(document: str) -> tuple[FoundKey, ...]:
    """Return every key of a document, without the keys of a type within itself."""
    found: list[FoundKey] = []
    pending = [*_list_roots(document)[0].child_keys]
    while pending:
        key = pending.pop(0)
        found.append(key)
        pending[:0] = key.child_keys
    return tuple(found)


def _list_roots(document: str) -> list[FoundKey]:
    """Return the objects in which a path of a document can begin."""
    schema = _load_schema(document)
    roots = [FoundKey(document, "", schema, schema, default=None)]
    if document == "config":
        roots.append(FoundKey(document, "resources.*", schema["definitions"][RESOURCE], schema))
    return roots


@cache
def _load_schema(document: str) -> Schema:
    if document == "values":
        schema: Schema = json.loads(schema_text(VALUES_SCHEMA))
        return schema
    return load_schema(DOCUMENTS[document])


@cache
def _load_values() -> Mapping[str, Any]:
    return dict(yaml.safe_load(read_source("values.yaml")))


def _match(key: FoundKey, path: str, depth: int) -> FoundKey | None:
    """Return the key that a path within the value of a key names, or None."""
    if depth > MAX_DEPTH:
        return None
    path = path.removeprefix(".")
    if not path:
        return key
    schema, _ = resolve(key.schema, key.root)
    if "properties" in schema:
        for child in _list_properties(key, schema):
            name = child.path.rpartition(".")[2] if key.path else child.path
            if path.startswith(name) and path[len(name) : len(name) + 1] in {"", ".", "["}:
                found = _match(child, path[len(name) :], depth + 1)
                if found is not None:
                    return found
    if isinstance(items := schema.get("items"), Mapping):
        index = _INDEX.match(path)
        inner = FoundKey(key.document, f"{key.path}[]", items, key.root)
        return _match(inner, path[index.end() :] if index is not None else path, depth + 1)
    if (values := _get_map_values(schema)) is not None:
        inner = FoundKey(key.document, f"{key.path}.*", values, key.root)
        for name, rest in _split_names(path):
            # The name of a resource has a slash; a word without one is a key, or misspelled.
            is_name = key.path != "resources" or "/" in name or name in {"", "*"}
            if is_name and (found := _match(inner, rest, depth + 1)) is not None:
                return found
    return None


def _get_map_values(schema: Schema) -> Schema | None:
    """Return the schema of the values of a map, or None if the schema has no map."""
    patterns = schema.get("patternProperties", {}).values()
    values = next(iter(patterns), schema.get("additionalProperties"))
    return values if isinstance(values, Mapping) else None


def _split_names(path: str) -> Iterator[tuple[str, str]]:
    """Yield the name of an entry of a map and what follows; a name can contain dots, and can be left out."""
    if path[:1] == "*" and path[1:2] in {"", ".", "["}:
        yield "*", path[1:]
        return
    yield "", path
    for match in re.finditer(r"\.|\[|$", path):
        yield path[: match.start()], path[match.start() :]


def _list_children(key: FoundKey) -> Iterator[FoundKey]:
    schema, _ = resolve(key.schema, key.root)
    path = key.path
    while "properties" not in schema:
        if isinstance(items := schema.get("items"), Mapping):
            schema, path = resolve(items, key.root)[0], f"{path}[]"
        elif (values := _get_map_values(schema)) is not None:
            schema, path = resolve(values, key.root)[0], f"{path}.*"
        else:
            return
    yield from _list_properties(FoundKey(key.document, path, schema, key.root), schema)


def _list_properties(key: FoundKey, schema: Schema) -> Iterator[FoundKey]:
    required = schema.get("required", ())
    for name, part in schema["properties"].items():
        path = f"{key.path}.{name}" if key.path else name
        resolved, _ = resolve(part, key.root)
        default = _find_default(key, path, resolved)
        # The schema of the values describes the merged values, which have every key of the defaults.
        is_given = default is not None or (key.document == "values" and _find_value(path) is not _MISSING)
        yield FoundKey(key.document, path, resolved, key.root, name in required and not is_given, default)


def _find_default(key: FoundKey, path: str, schema: Schema) -> str | None:
    value: Any = _MISSING
    if key.document == "values":
        value = _find_value(path)
        if isinstance(value, Mapping) and value and "properties" in schema:
            # Its keys have the defaults.
            return None
    if value is _MISSING:
        value = schema.get("default", _MISSING)
    return None if value is _MISSING else inline(value)


def _find_value(path: str) -> Any:  # noqa: ANN401 - a value of YAML
    """Return the value of a path in the default values of the chart, or ``_MISSING``."""
    value: Any = _load_values()
    for name in path.split("."):
        value = value.get(name, _MISSING) if isinstance(value, Mapping) else _MISSING
    return value
