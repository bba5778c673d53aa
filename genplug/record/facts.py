"""The values that a record consists of: known facts with their source, unknown facts with the reason, and documents.

A record never guesses: a builder that cannot observe a fact returns :class:`Unknown` with the reason.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from msgspec import Struct

JSON: TypeAlias = Mapping[str, Any]
"""An object of a JSON document."""


class Known(Struct, frozen=True):
    """A fact that was observed: its value, and the file, object or field that it was read from."""

    value: Any
    source: str


class Unknown(Struct, frozen=True):
    """A fact that cannot be observed from here, with the reason as a clause or sentence."""

    reason: str


Fact: TypeAlias = Known | Unknown


def build_document(value: object) -> Any:  # noqa: ANN401 - a document of JSON
    """Return frozen values as a document of JSON: keys in camel case, in the order of the fields."""
    if isinstance(value, Known):
        return {"known": True, "value": build_document(value.value), "source": value.source}
    if isinstance(value, Unknown):
        return {"known": False, "reason": value.reason}
    if isinstance(value, Struct):
        return {_to_camel_case(name): build_document(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {key: build_document(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [build_document(item) for item in value]
    return value


def find_facts(document: object, path: str = "") -> Mapping[str, JSON]:
    """Return every fact of a document by its path, including the facts inside the values of facts."""
    found: dict[str, JSON] = {}
    if isinstance(document, list | tuple):
        for number, item in enumerate(document):
            found |= find_facts(item, f"{path}[{number}]")
    elif isinstance(document, Mapping):
        if "known" in document:
            found[path] = document
        for key, item in document.items():
            found |= find_facts(item, f"{path}.{key}" if path else str(key))
    return found


def _to_camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
