"""The page about the command line documents every command and every option."""

import argparse
import importlib
import re

import pytest

from genplug.cli.main import COMMANDS
from tests.support.pages import headings, inline_code, read_page, table_rows

PAGE = read_page("cli")


def section(command: str) -> str:
    return PAGE.partition(f"\n## `genplug {command}`\n")[2].partition("\n## ")[0]


def test_page_has_a_section_for_each_command() -> None:
    assert [h for h in headings(PAGE, 2) if h.startswith("`")] == [f"`genplug {name}`" for name in COMMANDS]


@pytest.mark.parametrize("command", COMMANDS)
def test_section_lists_every_option_that_help_prints(command: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"genplug.cli.{command}").configure(parser)
    options = parser.format_help().partition("\noptions:\n")[2]
    printed = set(re.findall(r"^  (?=-).*?(--[a-z-]+)", options, re.MULTILINE)) - {"--help"}
    listed = re.findall(r"^\| (?:`-\w`, )?`(--[a-z-]+)", section(command), re.MULTILINE)
    assert set(listed) == printed


def test_section_of_the_agent_names_the_environment_variable_of_each_option() -> None:
    for argument, variables, _ in table_rows(section("run"), "Argument"):
        option = argument.strip("`").split()[0]
        assert f"GENPLUG_{option.removeprefix('--').replace('-', '_').upper()}" in inline_code(variables)
