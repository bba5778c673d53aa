"""The page about errors has a section for each code, with an example that causes the error."""

import re

import pytest

from genplug.config.diagnostics import ConfigInvalidError, Diagnostics, format_diagnostics
from genplug.config.files import ConfigFile
from genplug.config.load import load_text
from genplug.config.policy import decode_policy, is_policy
from genplug.spec.diagnostic import ErrorCode, WarningCode
from tests.support.pages import code_blocks, read_page

PAGE = read_page("errors")
SECTIONS = dict(
    re.findall(r"^\(gp\d+\)=\n## (GP\d+): [^\n]+\n(.*?)(?=^\((?:gp|warnings)|\Z)", PAGE, re.DOTALL | re.MULTILINE)
)

CONSOLE_EXAMPLES = {ErrorCode.UNREADABLE, ErrorCode.CHART, WarningCode.IGNORED_FILE}
"""Codes whose examples need more than a configuration; tests/docs/test_console.py checks them."""


def test_page_has_a_section_for_each_code_in_order() -> None:
    assert list(SECTIONS) == [code.value for code in (*ErrorCode, *WarningCode)]


def test_anchor_of_a_section_is_its_code() -> None:
    anchors = re.findall(r"^\((gp\d+)\)=\n## (GP\d+)", PAGE, re.MULTILINE)
    assert [anchor.upper() for anchor, _ in anchors] == [code for _, code in anchors] == list(SECTIONS)


@pytest.mark.parametrize("code", SECTIONS)
def test_section_describes_cause_and_fix(code: str) -> None:
    assert re.search(r"^\*\*Cause:\*\* \S.*^\*\*Fix:\*\* \S", SECTIONS[code], re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "code", sorted(SECTIONS.keys() - {ErrorCode.UNREADABLE, ErrorCode.CHART, WarningCode.IGNORED_FILE})
)
def test_example_causes_the_diagnostic_of_its_section(code: str) -> None:
    (example,) = code_blocks(SECTIONS[code], "yaml")
    try:
        if is_policy(example):
            found = Diagnostics()
            decode_policy(ConfigFile("policy.yaml", example), found)
            diagnostics = tuple(found.warnings)
            assert format_diagnostics(diagnostics) in SECTIONS[code]
        else:
            diagnostics = load_text(example, "genplug.yaml").warnings
    except ConfigInvalidError as error:
        diagnostics = error.diagnostics
    assert {diagnostic.code for diagnostic in diagnostics} == {code}
