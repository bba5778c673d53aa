"""The shape of a configuration: the JSON Schema, and its complaints as problems that a person can act on.

The schema (``schemas/genplug.schema.json``) is the public description of the language's form; ``decode.py`` checks what
a schema cannot say.
"""

import difflib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genplug.config.document import ListNode, MapNode, Node, ScalarNode, plain
from genplug.config.place import Place
from genplug.config.problem import Code, Problems

if TYPE_CHECKING:
    from jsonschema import Draft7Validator

SCHEMA = "genplug.schema.json"
_Error = Any
"""``jsonschema.ValidationError``, whose fields are unions that a reader of one kind of error need not unpack."""
_WORDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a map",
    "null": "null",
}


def schema_text() -> str:
    """Return the JSON Schema as it is shipped: in the wheel beside this package, in a checkout at its top."""
    shipped = resources.files("genplug") / "schemas" / SCHEMA
    if shipped.is_file():
        return shipped.read_text("utf-8")
    return (Path(__file__).parents[2] / "schemas" / SCHEMA).read_text("utf-8")


def check_shape(tree: MapNode, problems: Problems) -> None:
    """Note everything in which a tree differs from the schema."""
    for error in _validator().iter_errors(plain(tree)):
        _note(error, tree, problems)


def closest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word which this one may be a slip of; empty without one."""
    known = sorted(known)
    lowered = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f"did you mean {lowered[found[0]]!r}?" if found else ""


@cache
def _validator() -> "Draft7Validator":
    # Imported here: it costs 30 ms, and a program that only asks for its schema need not pay.
    from jsonschema import Draft7Validator  # noqa: PLC0415

    return Draft7Validator(json.loads(schema_text()))


def _note(error: _Error, tree: MapNode, problems: Problems) -> None:
    path = list(error.absolute_path)
    if error.validator == "allOf" and error.context:
        for inner in error.context:
            _note(inner, tree, problems)
        return
    node, place, width = _found(tree, path)
    where = dotted(path)
    match error.validator:
        case "additionalProperties":
            _note_unknown(error, node, where, problems)
        case "required":
            _note_missing(error, place, where, problems)
        case "oneOf":
            _note_probe(error, place, where, problems)
        case "type":
            expected = _expected(error.schema)
            hint = _type_hint(error.instance, error.schema)
            message = f"this is {_kind(error.instance)}"
            problems.add(Code.WRONG_TYPE, place, message, tree=where, expected=expected, hint=hint, width=width)
        case "enum":
            _note_choice(error, place, where, width, problems)
        case _:
            message = f"{_shown(error.instance)} is not allowed here"
            expected = _bound(error)
            problems.add(Code.WRONG_VALUE, place, message, tree=where, expected=expected, width=width)


def _note_unknown(error: _Error, node: Node | None, where: str, problems: Problems) -> None:
    known = error.schema.get("properties", {})
    for key in error.instance:
        if key not in known and isinstance(node, MapNode):
            hint = closest(key, known) or f"there are {', '.join(known)}"
            place = node.entries[key].key
            problems.add(Code.UNKNOWN_KEY, place, f"unknown key {key!r}", tree=where, hint=hint, width=len(key))


def _note_missing(error: _Error, place: Place, where: str, problems: Problems) -> None:
    missing = str(error.message).split("'")[1]
    # A key that is nearly the missing one has been reported already; this would be its echo.
    unknown = set(error.instance) - set(error.schema.get("properties", {}))
    if closest(missing, unknown):
        return
    description = error.schema["properties"].get(missing, {}).get("description", "")
    problems.add(Code.MISSING_KEY, place, f"{missing!r} is missing here", tree=where, expected=description)


def _note_probe(error: _Error, place: Place, where: str, problems: Problems) -> None:
    kinds = [branch["required"][0] for branch in error.validator_value]
    present = [kind for kind in kinds if kind in error.instance]
    if not present and set(error.instance) - set(error.schema["properties"]):
        return
    message = f"a probe has one kind, this has {' and '.join(present) if present else 'none'}"
    problems.add(Code.WRONG_VALUE, place, message, tree=where, expected=f"exactly one of {', '.join(kinds)}")


def _note_choice(error: _Error, place: Place, where: str, width: int, problems: Problems) -> None:
    choices = [str(one) for one in error.validator_value]
    is_version = where in ("apiVersion", "kind")
    problems.add(
        Code.WRONG_VERSION if is_version else Code.WRONG_VALUE,
        place,
        f"{_shown(error.instance)} is not one of the choices",
        tree=where,
        expected=" or ".join(choices),
        hint=closest(str(error.instance), choices),
        width=width,
    )


def _found(tree: MapNode, path: Sequence[str | int]) -> tuple[Node | None, Place, int]:
    """Return the node at a path, where to point, and how wide."""
    node: Node = tree
    place, width = tree.place, 1
    for step in path:
        if isinstance(node, MapNode) and isinstance(step, str):
            node = node.entries[step].value
            # A key's whole block is best shown at the key.
            place, width = (
                (node.place, max(len(node.text), 1))
                if isinstance(node, ScalarNode)
                else (tree_key(tree, path, step), len(step))
            )
        elif isinstance(node, ListNode) and isinstance(step, int):
            node = node.items[step]
            place, width = node.place, len(node.text) if isinstance(node, ScalarNode) else 1
    return node, place, max(width, 1)


def tree_key(tree: MapNode, path: Sequence[str | int], last: str) -> Place:
    """Return the place of the key ``last`` on a path."""
    node: Node = tree
    place = tree.place
    for step in path:
        if isinstance(node, MapNode) and isinstance(step, str):
            place, node = node.entries[step].key, node.entries[step].value
        elif isinstance(node, ListNode) and isinstance(step, int):
            node = node.items[step]
        if step == last:
            break
    return place


def dotted(path: Iterable[str | int]) -> str:
    """Return a path of keys as people write it: ``resources.a.io/x.devices[0].glob``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _expected(schema: dict[str, Any]) -> str:
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    words = " or ".join(_WORDS[one] for one in types if one != "null")
    example = next(iter(schema.get("examples", ())), None)
    return words + (f", for example {json.dumps(example)}" if example is not None else "")


def _type_hint(instance: object, schema: dict[str, Any]) -> str:
    wants_text = "string" in schema["type"]
    if wants_text and isinstance(instance, bool | int | float):
        return f'quote it: "{json.dumps(instance)}"'
    if "array" in schema["type"] and isinstance(instance, dict):
        return "put '- ' before it: this is a list, even of one"
    if schema["type"] in ("integer", "number") and isinstance(instance, str):
        return "write a decimal number without quotes and without leading zeros"
    if schema["type"] == "boolean" and isinstance(instance, str):
        return "only true and false are truth values here; on, off, yes and no are texts"
    return ""


def _bound(error: _Error) -> str:
    value = error.validator_value
    texts = {
        "minimum": f"at least {value}",
        "maximum": f"at most {value}",
        "exclusiveMinimum": f"more than {value}",
        "exclusiveMaximum": f"less than {value}",
        "minLength": "a text that is not empty",
        "minItems": "at least one entry",
        "pattern": f"a text that fits {value}",
    }
    text = texts.get(str(error.validator), str(error.message))
    example = next(iter(error.schema.get("examples", ())), None)
    return text + (f", for example {json.dumps(example)}" if example is not None else "")


def _kind(instance: object) -> str:
    if isinstance(instance, bool):
        return f"a truth value ({json.dumps(instance)})"
    if isinstance(instance, int | float):
        return f"a number ({instance})"
    if isinstance(instance, str):
        return f"a text ({_shown(instance)})"
    if instance is None:
        return "null"
    return "a list" if isinstance(instance, list) else "a map"


def _shown(instance: object) -> str:
    text = json.dumps(instance, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - a line's worth
