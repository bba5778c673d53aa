"""Changes YAML and JSON documents as a whole, so that the fuzzer reaches the code behind the parser.

A document is built from the keys of a JSON Schema, or is one of the corpus in which a value is replaced, removed,
repeated or moved.
"""

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import yaml

from genplug.config.diagnostics import Diagnostics
from genplug.config.schema import schema_text
from genplug.config.yaml_tree import parse_documents, to_python
from tests.fuzz.target import Mutator

Json: TypeAlias = Any

TEXTS = (
    *("", "a", "*", "/", "/dev/x*", "/dev/{a,b}*", "/sys/class/*/*", "/dev/**", "${path}", "${pci.address|upper}"),
    *(
        "${a|or:b|default:c}",
        "${env.X}",
        "${sysfs|basename}",
        "example.com/x",
        "example.com/${pci.vendor}",
        "nvidia.com/*",
    ),
    *(
        "vendor.example/class=name",
        "0000:00:02.0",
        "8086:1593",
        "10s",
        "1e3",
        "0x10",
        "0b1",
        "010",
        ".inf",
        "-1",
        "null",
    ),
    *("~", "true", "yes", "{value}", "^(a|b)$", "(?P<value>\\d+)", "[", "(", "\\", "..", "../x", "LD_PRELOAD", "PATH"),
    *("rwm", "r", "0660", "root", "http://localhost:1/x", "unix", "127.0.0.1:80", "[::1]:80", "10.0.0.0/8", "::/0"),
    *(
        "=5",
        ">=1.2",
        "<1Gi",
        "1..5",
        "pci",
        "usb",
        "net",
        "drm",
        "infiniband",
        "\0",
        "\x1b[31m",
        "\u202e",
        "\ud800",
        "ä",
        "²",
    ),
    *(
        "٣",
        "9" * 30,
        "9" * 5000,
        "a" * 300,
        "${" * 5,
        "{a,b}" * 6,
        "*" * 20,
        "node.x.yaml",
        "genplug.yaml",
        "\n",
        "a\nb",
        "#",
        "- a",
        "a: b",
    ),
)
NUMBERS = (0, 1, -1, 2, 3, 10, 60, 100, 1000, 65535, 65536, 1 << 31, 1 << 63, 1 << 64, -(1 << 63), 0.5, 1e308, 1e-9)


@cache
def read_schema(name: str) -> Mapping[str, Json]:
    """Return a JSON Schema of genplug."""
    schema: Mapping[str, Json] = json.loads(schema_text(name))
    return schema


def build_value(schema: Json, source: random.Random, root: Json, depth: int = 0) -> Json:  # noqa: C901, PLR0912 - cases
    """Return a value that mostly conforms to a JSON Schema."""
    if not isinstance(schema, dict) or source.random() < 0.03 or depth > 12:
        return build_scalar(source)
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].lstrip("#/").split("/"):
            target = target[step]
        return build_value(target, source, root, depth + 1)
    for key in ("oneOf", "anyOf"):
        if key in schema and source.random() < 0.9:
            return build_value(source.choice(schema[key]), source, root, depth + 1)
    if schema.get("examples") and source.random() < 0.4:
        return source.choice(schema["examples"])
    if "default" in schema and source.random() < 0.1:
        return schema["default"]
    if "enum" in schema:
        return source.choice(schema["enum"])
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = source.choice(kind)
    if kind == "object" or "properties" in schema:
        return _build_object(schema, source, root, depth)
    if kind == "array":
        count = source.choice((0, 1, 1, 1, 2, 3))
        return [build_value(schema.get("items", {}), source, root, depth + 1) for _ in range(count)]
    if kind in {"integer", "number"}:
        bounds = [schema[bound] for bound in ("minimum", "maximum") if bound in schema]
        return source.choice((*NUMBERS, *bounds, *bounds, source.randrange(20)))
    if kind == "boolean":
        return source.random() < 0.5
    return build_scalar(source)


def _build_object(schema: Json, source: random.Random, root: Json, depth: int) -> Json:
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    chance = source.choice((0.1, 0.3, 0.6)) if depth else 0.9
    found = {
        key: build_value(properties[key], source, root, depth + 1)
        for key in properties
        if (key in required and source.random() < 0.95) or source.random() < chance
    }
    others = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    for other in others:
        if isinstance(other, dict):
            for _ in range(source.choice((0, 1, 1, 2))):
                found[str(source.choice(TEXTS))] = build_value(other, source, root, depth + 1)
    if source.random() < 0.02:
        found[str(source.choice(TEXTS))] = build_scalar(source)
    return found


def build_scalar(source: random.Random) -> Json:
    """Return a text, a number or another scalar."""
    return source.choice((*TEXTS, *NUMBERS, True, False, None, [], {}))


def change_value(value: Json, other: Json, source: random.Random) -> Json:
    """Return a document with one change; ``other`` is a value that may be inserted."""
    if isinstance(value, dict) and value and source.random() < 0.85:
        key = source.choice(list(value))
        action = source.random()
        rest = {name: inner for name, inner in value.items() if name != key}
        if action < 0.06:
            return rest
        if action < 0.1:
            return {**rest, str(source.choice(TEXTS)): value[key]}
        if action < 0.14:
            return {**value, str(source.choice(TEXTS)): other}
        return {**value, key: change_value(value[key], other, source)}
    if isinstance(value, list) and value and source.random() < 0.85:
        index = source.randrange(len(value))
        action = source.random()
        if action < 0.08:
            return [*value[:index], *value[index + 1 :]]
        if action < 0.16:
            return [*value, value[index]]
        return [*value[:index], change_value(value[index], other, source), *value[index + 1 :]]
    if isinstance(value, str) and value and source.random() < 0.5:
        position = source.randrange(len(value) + 1)
        text = str(source.choice(TEXTS))
        return value[:position] + text + value[position + source.choice((0, 0, 1, 3)) :]
    return other if source.random() < 0.4 else build_scalar(source)


def pick_value(value: Json, source: random.Random) -> Json:
    """Return a part of a document."""
    while isinstance(value, dict | list) and value and source.random() < 0.7:
        value = source.choice(list(value.values()) if isinstance(value, dict) else value)
    return value


def parse_text(text: str) -> list[Json]:
    """Return the documents of a text; empty if it is not YAML."""
    trees = parse_documents(text, "f", Diagnostics(limit=1 << 30), max_values=2000)
    return [to_python(tree) for tree in trees or ()]


def format_documents(documents: Sequence[Json], source: random.Random) -> bytes:
    """Return documents as YAML in one of its styles, or as JSON."""
    style = source.random()
    try:
        if style < 0.4:
            text = "\n---\n".join(json.dumps(document, ensure_ascii=style < 0.2) for document in documents)
        else:
            text = yaml.dump_all(documents, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=style < 0.7)
    except (yaml.YAMLError, RecursionError, ValueError):
        return b""
    return text.encode("utf-8", "surrogatepass")


def document_mutator(schemas: Sequence[str] = (), *, values: Sequence[Json] = ()) -> Mutator:
    """Return a mutator for texts of documents; ``schemas`` describe them, ``values`` are documents or parts of them."""

    def build(source: random.Random) -> Json:
        if values and (not schemas or source.random() < 0.5):
            return source.choice(values)
        if not schemas:
            return build_scalar(source)
        schema = read_schema(source.choice(schemas))
        return build_value(schema, source, schema)

    def mutate(content: bytes, source: random.Random) -> bytes | None:
        if source.random() < 0.1:
            return format_documents([build(source)], source)
        documents = parse_text(content.decode(errors="surrogateescape"))
        if not documents:
            return None
        for _ in range(source.choice((1, 1, 2, 4))):
            index = source.randrange(len(documents))
            action = source.random()
            other = pick_value(build(source) if action < 0.7 else source.choice(documents), source)
            documents[index] = change_value(documents[index], other, source)
            if action > 0.97:
                documents.append(build(source))
        return format_documents(documents, source)

    return mutate
