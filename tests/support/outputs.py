"""The JSON Schemas of what commands print."""

import json
from typing import Any

from jsonschema import Draft7Validator

from tests.support.pages import ROOT

KINDS = {"Status": "status", "Plan": "plan", "Allocation": "allocation", "Validation": "validation"}
"""Kind of a document to the name of its schema."""

SCHEMAS: dict[str, dict[str, Any]] = {
    kind: json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text()) for kind, name in KINDS.items()
}


def check_output(document: dict[str, Any]) -> None:
    """Assert that a document fits the schema of its kind."""
    validator = Draft7Validator(SCHEMAS[document["kind"]], format_checker=Draft7Validator.FORMAT_CHECKER)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)] == []
