"""Errors and warnings for editors, forges and programs: SARIF, workflow commands and exit codes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from genplug.cli.diagnostic_formats import TITLES, build_sarif, documentation_url, format_github
from genplug.cli.main import main
from genplug.spec.diagnostic import Diagnostic, ErrorCode, WarningCode
from genplug.spec.location import SourceLocation
from tests.support.configs import CONFIG_HEADER
from tests.support.pages import read_page

WARNING = (
    f"{CONFIG_HEADER}resources:\n  a.example/x:\n    devices: [{{glob: /dev/x}}]\n"
    "    health: {probes: [{file: {path: /sys/x, equals: 1}, timeoutSeconds: 20}]}\n"
)
ERROR = f"{CONFIG_HEADER}resources: {{a.example/x: {{devces: []}}}}\n"
VALID = f"{CONFIG_HEADER}resources: {{}}\n"
FORMATS = ("text", "json", "sarif", "github")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"warning": WARNING, "error": ERROR, "valid": VALID}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def print_sarif(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    main(["validate", "-o", "sarif", *arguments])
    printed = capsys.readouterr()
    assert printed.err == ""
    document: dict[str, Any] = json.loads(printed.out)
    return document


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["valid.yaml"], 0),
        (["--strict", "valid.yaml"], 0),
        (["warning.yaml"], 0),
        (["--strict", "warning.yaml"], 3),
        (["error.yaml"], 78),
        (["--strict", "error.yaml"], 78),
    ],
    ids=str,
)
def test_exit_code_depends_on_errors_and_on_warnings_with_strict(arguments: list[str], code: int, output: str) -> None:
    assert main(["validate", "-o", output, *arguments]) == code


def test_warning_is_printed_to_stderr_and_the_configuration_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "warning.yaml"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "warning.yaml: valid, 1 file, 1 resource\n"
    assert printed.err.startswith("warning.yaml:6:57: warning[GP101]: the timeout of 20 s")
    assert printed.err.endswith("\n\n1 warning\n")


def test_plan_shows_warnings_and_exits_3_with_strict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", "warning.yaml", "-o", "json"]) == 0
    printed = capsys.readouterr()
    assert "warning[GP101]" in printed.err
    (warning,) = json.loads(printed.out)["warnings"]
    assert (warning["code"], warning["severity"], warning["line"]) == ("GP101", "warning", 6)
    assert main(["plan", "--config", "warning.yaml", "--strict"]) == 3
    assert main(["plan", "--config", "valid.yaml", "--strict"]) == 0


def test_json_has_severity_and_address_of_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    main(["validate", "-o", "json", "warning.yaml"])
    document = json.loads(capsys.readouterr().out)
    (problem,) = document["problems"]
    assert document["valid"] is True
    assert (problem["code"], problem["severity"]) == ("GP101", "warning")
    assert problem["url"].endswith("/docs/reference/errors.md#gp101-timeout-longer-than-the-period")


def test_sarif_has_a_result_with_rule_level_and_region(capsys: pytest.CaptureFixture[str]) -> None:
    document = print_sarif(capsys, "error.yaml", "warning.yaml")
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == ("GP006", "error")
    (location,) = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "error.yaml"},
        "region": {"startLine": 3, "startColumn": 27, "endLine": 3, "endColumn": 33},
    }
    rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
    assert (rule["id"], rule["defaultConfiguration"]["level"]) == ("GP006", "error")
    assert rule["helpUri"].endswith("/docs/reference/errors.md#gp006-unknown-key")


def test_sarif_without_problems_has_an_empty_list_of_results(capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = print_sarif(capsys, "valid.yaml")["runs"]
    assert run["results"] == []


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("a b.yaml", "a%20b.yaml"),
        ("/etc/genplug/ä.yaml", "file:///etc/genplug/%C3%A4.yaml"),
        ("a:b.yaml", "a%3Ab.yaml"),
        ("<stdin>", "stdin"),
        ("rendered.yaml[c/genplug.yaml]", "rendered.yaml%5Bc/genplug.yaml%5D"),
    ],
)
def test_file_in_sarif_is_a_valid_uri_reference(file: str, uri: str) -> None:
    diagnostic = Diagnostic(ErrorCode.SYNTAX, SourceLocation(file, 1, 1), "m")
    (result,) = build_sarif([diagnostic])["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": uri}


def test_other_half_of_an_error_is_a_related_location() -> None:
    first = SourceLocation("a.yaml", 2, 3)
    diagnostic = Diagnostic(ErrorCode.DUPLICATE_KEY, SourceLocation("a.yaml", 4, 3), "m", related_location=first)
    (result,) = build_sarif([diagnostic])["runs"][0]["results"]
    (related,) = result["relatedLocations"]
    assert related["physicalLocation"]["region"]["startLine"] == 2
    assert related["message"] == {"text": "first"}


def test_workflow_command_has_the_location_and_escapes_separators() -> None:
    location = SourceLocation("a,b:c%.yaml", 3, 5)
    diagnostic = Diagnostic(WarningCode.TIMEOUT, location, "100%\r\nof it: a,b", hint="do", width=4)
    assert format_github([diagnostic]) == (
        "::warning file=a%2Cb%3Ac%25.yaml,line=3,endLine=3,col=5,endColumn=9,"
        "title=GP101 (https%3A//github.com/genplug/genplug/blob/main/docs/reference/"
        "errors.md#gp101-timeout-longer-than-the-period)"
        "::100%25%0D%0Aof it: a,b%0Ahelp: do"
    )


def test_workflow_command_of_an_error_is_printed_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "-o", "github", "error.yaml"]) == 78
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("::error file=error.yaml,line=3,endLine=3,col=27,endColumn=33,title=GP006 ")
    assert printed.out.count("\n") == 1


@pytest.mark.parametrize("code", [*ErrorCode, *WarningCode])
def test_address_of_a_code_is_an_anchor_of_the_page(code: ErrorCode | WarningCode) -> None:
    headings = re.findall(r"^## (GP.*)$", read_page("errors"), re.MULTILINE)
    # GitHub removes punctuation and replaces spaces.
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert f"{code.value}: {TITLES[code.value]}" in headings
    assert documentation_url(code).partition("#")[2] in anchors
