"""The schema of records: each key is described, and facts are either known or not."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.support.outputs import SCHEMAS

SCHEMA = SCHEMAS["NodeRecord"]


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema of an object with named keys, except conditions on a fact."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for key, inner in schema.items():
            if key not in {"oneOf", "if"}:
                yield from objects(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from objects(inner)


def test_every_object_is_closed_and_every_key_is_described() -> None:
    Draft7Validator.check_schema(SCHEMA)
    for schema in objects(SCHEMA):
        is_fact = "allOf" in schema or "propertyNames" in schema
        assert is_fact or schema["additionalProperties"] is False
        assert set(schema.get("required", ())) <= set(schema["properties"])
        assert [key for key, value in schema["properties"].items() if not value["description"].endswith(".")] == []


@pytest.mark.parametrize(
    ("fact", "is_valid"),
    [
        ({"known": True, "value": 1, "source": "a"}, True),
        ({"known": False, "reason": "a"}, True),
        ({"known": True, "value": 1}, False),
        ({"known": False}, False),
        ({"known": False, "reason": "a", "value": 1}, False),
        ({"known": True, "value": 1, "source": "a", "reason": "b"}, False),
        ({"known": True, "value": 1, "source": "a", "extra": "b"}, False),
    ],
)
def test_fact_has_a_value_and_source_or_a_reason(fact: dict[str, Any], *, is_valid: bool) -> None:
    assert Draft7Validator(SCHEMA["definitions"]["fact"]).is_valid(fact) is is_valid
