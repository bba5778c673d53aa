"""Formats diagnostics for editors, forges and programs: SARIF, the workflow commands of GitHub, and JSON."""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from genplug import __version__
from genplug.spec.diagnostic import Diagnostic, DiagnosticCode, Severity, WarningCode
from genplug.spec.location import SourceLocation

DOCUMENTATION_URL = "https://github.com/genplug/genplug/blob/main/docs/reference/errors.md"
SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_STDIN = "<stdin>"


TITLES = {
    "GP001": "file cannot be read",
    "GP002": "invalid YAML",
    "GP003": "duplicate key",
    "GP004": "no resources",
    "GP005": "unsupported version or kind",
    "GP006": "unknown key",
    "GP007": "missing key",
    "GP008": "wrong type",
    "GP009": "invalid value",
    "GP010": "invalid resource name",
    "GP011": "invalid or ambiguous glob",
    "GP012": "invalid template",
    "GP013": "unknown attribute",
    "GP014": "invalid condition or regular expression",
    "GP015": "invalid path",
    "GP016": "invalid name",
    "GP017": "conflicting keys",
    "GP019": "not allowed by the policy",
    "GP020": "limit exceeded",
    "GP021": "missing setting of the chart",
    "GP022": "invalid for Dynamic Resource Allocation",
    "GP101": "timeout longer than the period",
    "GP102": "regular expression in a glob",
    "GP103": "reference in another syntax",
    "GP104": "invisible character",
    "GP105": "same devices in two resources",
    "GP106": "ignored file",
    "GP107": "impossible condition",
    "GP108": "key without effect",
    "GP109": "ID that can change",
    "GP120": "policy allows a device node that exposes the host",
}
"""The titles of the codes in docs/reference/errors.md."""


def documentation_url(code: DiagnosticCode) -> str:
    """Return the address of the section about a code, with the anchor that GitHub makes of its heading."""
    heading = f"{code.value}: {TITLES.get(code.value, '')}".lower()
    return f"{DOCUMENTATION_URL}#{re.sub(r'[^a-z0-9 -]', '', heading).strip().replace(' ', '-')}"


def build_problem(diagnostic: Diagnostic) -> dict[str, object]:
    """Return a diagnostic as an object of the validation document."""
    related = diagnostic.related_location
    return {
        "code": diagnostic.code.value,
        "severity": diagnostic.severity.value,
        **build_location(diagnostic.location),
        "width": diagnostic.width,
        "path": diagnostic.key_path,
        "message": diagnostic.message,
        "first": build_location(related) if related else None,
        "expected": diagnostic.expected,
        "hint": diagnostic.hint,
        "url": documentation_url(diagnostic.code),
    }


def build_location(location: SourceLocation) -> dict[str, object]:
    """Return a location as an object of the validation document."""
    return {"file": location.file, "line": location.line, "column": location.column}


def build_sarif(diagnostics: Sequence[Diagnostic]) -> dict[str, Any]:
    """Return a SARIF 2.1.0 log of one run, with a rule for each code that occurs."""
    codes = sorted({diagnostic.code for diagnostic in diagnostics})
    rules = [
        {
            "id": code.value,
            "name": _build_rule_name(code),
            "shortDescription": {"text": TITLES.get(code.value, code.value)},
            "helpUri": documentation_url(code),
            "defaultConfiguration": {"level": "warning" if isinstance(code, WarningCode) else "error"},
        }
        for code in codes
    ]
    driver = {
        "name": "genplug",
        "version": __version__,
        "informationUri": "https://github.com/genplug/genplug",
        "rules": rules,
    }
    results = [_build_result(diagnostic, codes.index(diagnostic.code)) for diagnostic in diagnostics]
    # A column counts code points, as in editors of files in UTF-8.
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def format_github(diagnostics: Iterable[Diagnostic]) -> str:
    """Return diagnostics as workflow commands, which GitHub shows at the lines of a pull request."""
    return "\n".join(map(_format_command, diagnostics))


def _build_rule_name(code: DiagnosticCode) -> str:
    return "".join(word.capitalize() for word in code.name.split("_"))


def _build_result(diagnostic: Diagnostic, rule_index: int) -> dict[str, Any]:
    text = _join_text(diagnostic)
    result: dict[str, Any] = {
        "ruleId": diagnostic.code.value,
        "ruleIndex": rule_index,
        "level": diagnostic.severity.value,
        "message": {"text": text},
        "locations": [_build_sarif_location(diagnostic.location, diagnostic.width, diagnostic.key_path)],
    }
    if diagnostic.related_location is not None:
        related = _build_sarif_location(diagnostic.related_location, 1, "")
        result["relatedLocations"] = [{"id": 1, **related, "message": {"text": "first"}}]
    return result


def _build_sarif_location(location: SourceLocation, width: int, key_path: str) -> dict[str, Any]:
    region = {
        "startLine": location.line,
        "startColumn": location.column,
        "endLine": location.line,
        "endColumn": location.column + max(width, 1),
    }
    physical = {"artifactLocation": {"uri": _build_uri(location.file)}, "region": region}
    found: dict[str, Any] = {"physicalLocation": physical}
    if key_path:
        found["logicalLocations"] = [{"fullyQualifiedName": key_path, "kind": "member"}]
    return found


def _build_uri(file: str) -> str:
    """Return a file name as a URI reference: relative to the working directory, or absolute."""
    if file == _STDIN:
        return "stdin"
    from urllib.parse import quote  # noqa: PLC0415 - only this format needs it

    quoted = quote(str(PurePosixPath(file)))
    # In a relative reference, a colon in the first segment would end a scheme.
    return f"file://{quoted}" if file.startswith("/") else quoted


def _format_command(diagnostic: Diagnostic) -> str:
    location = diagnostic.location
    properties = {
        "file": location.file,
        "line": str(location.line),
        "endLine": str(location.line),
        "col": str(location.column),
        "endColumn": str(location.column + max(diagnostic.width, 1)),
        "title": f"{diagnostic.code.value} ({documentation_url(diagnostic.code)})",
    }
    written = ",".join(f"{name}={_escape_property(value)}" for name, value in properties.items())
    command = "warning" if diagnostic.severity is Severity.WARNING else "error"
    return f"::{command} {written}::{_escape_data(_join_text(diagnostic))}"


def _join_text(diagnostic: Diagnostic) -> str:
    parts = [diagnostic.message]
    parts += [f"expected: {diagnostic.expected}"] if diagnostic.expected else []
    parts += [f"help: {diagnostic.hint}"] if diagnostic.hint else []
    return "\n".join(parts)


_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
"""Escapes of the toolkit of GitHub Actions (packages/core/src/command.ts)."""


_DATA_TABLE = {ord(character): escape for character, escape in _DATA.items()}
_PROPERTY_TABLE = _DATA_TABLE | {ord(":"): "%3A", ord(","): "%2C"}


def _escape_data(text: str) -> str:
    return text.translate(_DATA_TABLE)


def _escape_property(text: str) -> str:
    return text.translate(_PROPERTY_TABLE)
