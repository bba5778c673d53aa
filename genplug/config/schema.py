"""Validates the shape of a configuration or policy against its JSON Schema, with messages for operators.

The schemas in ``schemas/`` describe the public format; ``genplug.config.decode`` checks what a schema cannot express.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genplug.config.diagnostics import Diagnostics
from genplug.config.foreign_keys import translate_key
from genplug.config.merge import NOT_DEFAULTS
from genplug.config.schema_fast_path import is_valid
from genplug.config.yaml_tree import ListNode, MapNode, Node, ScalarNode, to_python
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.location import SourceLocation

if TYPE_CHECKING:
    from jsonschema import Draft7Validator

SCHEMA = "genplug.schema.json"
POLICY_SCHEMA = "genplug-policy.schema.json"
VALUES_SCHEMA = "values.schema.json"
_CHECKOUT_DIRECTORIES = {VALUES_SCHEMA: "deploy/helm/genplug"}
_Error = Any
"""``jsonschema.ValidationError``; its fields are wide unions, so it is treated as untyped."""
_TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}
_TRANSLATIONS: Mapping[str, Callable[[str, str], str]] = {
    POLICY_SCHEMA: partial(translate_key, is_policy=True),
    VALUES_SCHEMA: lambda _key, _where: "",
}
"""The hints for words of other programs, by schema; the schema of the configuration has :func:`translate_key`."""
_CHECKED_BEFORE = ("apiVersion", "kind", "resources")
"""Keys that ``load.py`` has checked in each file."""


def schema_text(name: str = SCHEMA) -> str:
    """Return the text of a JSON Schema: from the installed package, or from the top level of a checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "schemas" / name
    checkout = package.parent / _CHECKOUT_DIRECTORIES.get(name, "schemas") / name
    return (shipped if shipped.is_file() else checkout).read_text("utf-8")


def check_schema(tree: MapNode, diagnostics: Diagnostics, name: str = SCHEMA) -> None:
    """Record every difference between a tree and a schema."""
    content, schema = to_python(tree), _schema(name)
    if not is_valid(schema, content):
        for error in _validator(name).iter_errors(content):
            _add_diagnostic(error, tree, diagnostics, _TRANSLATIONS.get(name, translate_key))


def check_values_schema(tree: MapNode, diagnostics: Diagnostics) -> None:
    """Record every difference between values and the schema of the chart, except missing keys: the chart sets them."""
    for error in _validator(VALUES_SCHEMA).iter_errors(to_python(tree)):
        if error.validator != "required":
            _add_diagnostic(error, tree, diagnostics, _TRANSLATIONS[VALUES_SCHEMA])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint with the known word that is closest to ``word``, or an empty string."""
    lowered = {known_word.lower(): known_word for known_word in sorted(known)}
    import difflib  # noqa: PLC0415 - only errors need it

    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f"did you mean {lowered[found[0]]!r}?" if found else ""


def format_key_path(path: Iterable[str | int]) -> str:
    """Return a path of keys as text: ``resources.a.io/x.devices[0].glob``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


@cache
def _schema(name: str) -> dict[str, Any]:
    return dict(json.loads(schema_text(name)))


@cache
def _validator(name: str) -> "Draft7Validator":
    # Imported here: only an invalid configuration needs it.
    from jsonschema import Draft7Validator  # noqa: PLC0415

    return Draft7Validator(_schema(name))


def _add_diagnostic(
    error: _Error, tree: MapNode, diagnostics: Diagnostics, translate: Callable[[str, str], str]
) -> None:
    path = list(error.absolute_path)
    node, location, width = _locate(tree, path)
    where = format_key_path(path)
    match error.validator:
        case "additionalProperties":
            _add_unknown_keys(error, node, where, diagnostics, translate)
        case "required":
            _add_missing_keys(error, location, where, width, diagnostics)
        case "oneOf":
            _add_probe_kinds(error, location, where, diagnostics)
        case "type":
            message, expected = f"found {_kind(error.instance)}", _expected(error.schema)
            hint = _type_hint(node, error.schema)
            diagnostics.add(
                ErrorCode.WRONG_TYPE, location, message, key_path=where, expected=expected, hint=hint, width=width
            )
        case "enum" if where not in _CHECKED_BEFORE:
            choices = error.validator_value
            message, hint = (
                f"{_format(error.instance)} is not a valid value",
                did_you_mean(str(error.instance), choices),
            )
            expected = f"one of {', '.join(choices)}"
            diagnostics.add(
                ErrorCode.WRONG_VALUE, location, message, key_path=where, expected=expected, hint=hint, width=width
            )
        case "enum":
            pass
        case _:
            message, hint = f"{_format(error.instance)} is not allowed", error.schema.get("$comment", "")
            expected = _format_limit(error)
            diagnostics.add(
                ErrorCode.WRONG_VALUE, location, message, key_path=where, expected=expected, hint=hint, width=width
            )


def _add_unknown_keys(
    error: _Error, node: Node | None, where: str, diagnostics: Diagnostics, translate: Callable[[str, str], str]
) -> None:
    known = error.schema.get("properties", {})
    for key in error.instance:
        if key not in known and isinstance(node, MapNode):
            location, width = node.entries[key].key, len(key)
            hint = (
                (_other_number(key, known) if not where else "")
                or translate(key, where)
                or _where_it_belongs(key, where, known)
                or did_you_mean(key, known)
                or f"valid keys: {', '.join(known)}"
            )
            diagnostics.add(
                ErrorCode.UNKNOWN_KEY, location, f"unknown key {key!r}", key_path=where, hint=hint, width=width
            )


def _other_number(key: str, known: Mapping[str, Any]) -> str:
    """Return a hint with the known key that is the plural or the singular of a key, or an empty string."""
    return next((f"did you mean {name!r}?" for name in (f"{key}s", key.removesuffix("s")) if name in known), "")


def _where_it_belongs(key: str, where: str, known: Mapping[str, Any]) -> str:
    """Return a hint with the parent under which a misplaced key belongs, or an empty string."""
    if where == "defaults" and key in NOT_DEFAULTS:
        return "move it to a resource: defaults cannot set it"
    parents = (name for name, schema in known.items() if key in _inner(schema).get("properties", {}))
    return next((f"it belongs under {name!r}" for name in parents), "")


def _inner(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of the mappings inside the values of a schema."""
    if "allOf" in schema:
        return _inner(schema["allOf"][0])
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/definitions/")
        own = _schema(SCHEMA)["definitions"]
        # Names of the schema of the chart differ from these.
        return _inner(own[name] if name in own else _schema(VALUES_SCHEMA)["definitions"].get(name, {}))
    return _inner(schema["items"]) if isinstance(schema.get("items"), dict) else schema


def _add_missing_keys(
    error: _Error, location: SourceLocation, where: str, width: int, diagnostics: Diagnostics
) -> None:
    known = error.schema["properties"]
    unknown = set(error.instance) - set(known)
    for key in error.validator_value:
        # A key similar to the missing one has been reported as unknown; do not report it twice.
        if key in error.instance or (not where and key == "resources") or did_you_mean(key, unknown):
            continue
        schema = known[key]
        hint = f"add {key}: {_format(schema['examples'][0])}" if not where or "examples" in schema else ""
        message, expected = f"missing key {key!r}", _first_sentence(schema)
        diagnostics.add(
            ErrorCode.MISSING_KEY, location, message, key_path=where, expected=expected, hint=hint, width=width
        )


def _add_probe_kinds(error: _Error, location: SourceLocation, where: str, diagnostics: Diagnostics) -> None:
    kinds = [branch["required"][0] for branch in error.validator_value]
    present = [kind for kind in kinds if kind in error.instance]
    if not present and set(error.instance) - set(error.schema["properties"]):
        return
    message = f"a probe must have exactly one kind, found {' and '.join(present) if present else 'none'}"
    diagnostics.add(
        ErrorCode.WRONG_VALUE, location, message, key_path=where, expected=f"exactly one of {', '.join(kinds)}"
    )


def _locate(tree: MapNode, path: Sequence[str | int]) -> tuple[Node, SourceLocation, int]:
    """Return the node at a path, the location to point at, and its width: the scalar, or the key of other nodes."""
    node: Node = tree
    location, width = tree.location, 1
    for step in path:
        if isinstance(node, MapNode) and isinstance(step, str):
            location, width, node = node.entries[step].key, len(step), node.entries[step].value
        elif isinstance(node, ListNode) and isinstance(step, int):
            node = node.items[step]
            location, width = node.location, 1
        if isinstance(node, ScalarNode):
            location, width = node.at(0), len(node.text)
    return node, location, max(width, 1)


def _expected(schema: Mapping[str, Any]) -> str:
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return " or ".join(_TYPES[name] for name in types if name != "null") + _example(schema)


def _first_sentence(schema: Mapping[str, Any]) -> str:
    """Return the first sentence of a key's description, which says what the key is, without its full stop."""
    description: str = schema.get("description", "")
    return description.partition(". ")[0].removesuffix(".")


def _example(schema: Mapping[str, Any]) -> str:
    examples = schema.get("examples", ())
    return f", for example {json.dumps(examples[0])}" if examples else ""


def _type_hint(node: Node, schema: Mapping[str, Any]) -> str:
    wanted = schema["type"]
    if isinstance(node, MapNode):
        if (
            "string" in wanted
            and node.entries
            and all(to_python(entry.value) is None for entry in node.entries.values())
        ):
            return "quote a string with braces: YAML reads it as a mapping"
        return "start it with '- ': a list is required, even for one entry" if "array" in wanted else ""
    if isinstance(node, ListNode):
        return "write keys instead of '- ' entries" if "object" in wanted else ""
    if "string" in wanted and not isinstance(node.value, str | None):
        return f'quote it: "{node.written or node.text}"'
    # An attribute has a path or a value; everything else that starts with a path requires one key.
    required = schema.get("required") or [key for key in ("path",) if key in schema.get("properties", {})]
    if "object" in wanted and node.text.startswith("/") and len(required) == 1:
        return f"write '{required[0]}: {node.text}'"
    if wanted in ("integer", "number") and isinstance(node.value, str):
        return "write a decimal number, without quotes and without leading zeros"
    if wanted == "boolean" and isinstance(node.value, str):
        return "write true or false; on, off, yes and no are strings"
    return ""


def _format_limit(error: _Error) -> str:
    value = error.validator_value
    texts = {
        "minimum": f"at least {value}",
        "maximum": f"at most {value}",
        "exclusiveMinimum": f"more than {value}",
        "minLength": "a non-empty string",
        "minItems": "at least one entry",
        "minProperties": "at least one key",
        "pattern": _first_sentence(error.schema),
    }
    text = texts.get(error.validator) or str(error.message)
    return text + _example(error.schema)


def _kind(instance: object) -> str:
    if isinstance(instance, bool):
        return f"a boolean ({json.dumps(instance)})"
    if isinstance(instance, int | float):
        return f"a number ({_format(instance)})"
    if isinstance(instance, str):
        return f"a string ({_format(instance)})"
    if instance is None:
        return "null"
    return "a list" if isinstance(instance, list) else "a mapping"


def _format(instance: object) -> str:
    text = json.dumps(instance, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - a line's worth
