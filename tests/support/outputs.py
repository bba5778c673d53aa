"""The JSON Schemas of the documents that commands print."""

import json
import re
from typing import Any

from jsonschema import Draft7Validator, FormatChecker

from tests.support.pages import ROOT

KINDS = {
    "Status": "status",
    "Plan": "plan",
    "Allocation": "allocation",
    "Validation": "validation",
    "Privileges": "privileges",
    "ConfigDiff": "diff",
    "Explanation": "explanation",
    "FleetStatus": "fleet-status",
    "Conversion": "conversion",
    "DoctorReport": "doctor",
    "PendingReport": "pending",
    "RefusalReport": "refusal",
}
"""Kind of a document to the name of its schema."""

RECORD_KINDS = {"NodeRecord": "record", "ReleaseRecord": "record"}
"""The same for the documents that docs/reference/record.md describes."""

AUDIT_KINDS = {"AuditRecord": "audit", "AuditReport": "audit-report"}
"""The same for the documents that docs/reference/audit.md describes."""

SOAK_KINDS = {"SoakReport": "soak"}
"""The same for the document of the soak, which docs/contributing/soak.md describes."""

SCHEMAS: dict[str, dict[str, Any]] = {
    kind: json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text())
    for kind, name in (KINDS | RECORD_KINDS | AUDIT_KINDS | SOAK_KINDS).items()
}
FORMATS = FormatChecker(formats=())


@FORMATS.checks("date-time")
def is_time_in_utc(value: object) -> bool:
    """Return whether a string is a time in the only form that genplug prints: RFC 3339, in UTC, to the second."""
    return not isinstance(value, str) or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value) is not None


def check_output(document: dict[str, Any]) -> None:
    """Assert that a document fits the schema of its kind."""
    validator = Draft7Validator(SCHEMAS[document["kind"]], format_checker=FORMATS)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)] == []
