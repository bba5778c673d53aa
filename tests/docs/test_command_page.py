"""The page about the command line documents every command and every option."""

import argparse
import importlib
import re

import pytest

from genplug.cli.main import COMMANDS
from genplug.kubectl.main import COMMANDS as KUBECTL_COMMANDS
from genplug.kubectl.options import add_kubectl_arguments
from tests.support.pages import headings, inline_code, read_page, table_rows

PAGE = read_page("cli")
KUBECTL_PAGE = read_page("kubectl")


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


def printed_options(parser: argparse.ArgumentParser) -> set[str]:
    return set(re.findall(r"^  (?=-).*?(--[a-z-]+)", parser.format_help(), re.MULTILINE)) - {"--help"}


def listed_options(section: str) -> set[str]:
    return set(re.findall(r"^\| (?:`-\w`, )?`(--[a-z-]+)", section, re.MULTILINE))


def test_page_of_the_plugin_has_a_section_for_each_command_with_every_option() -> None:
    assert [h for h in headings(KUBECTL_PAGE, 2) if h.startswith("`")] == [
        f"`kubectl genplug {name}`" for name in KUBECTL_COMMANDS
    ]
    for name in KUBECTL_COMMANDS:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"genplug.kubectl.commands.{name}").configure(parser)
        part = KUBECTL_PAGE.partition(f"\n## `kubectl genplug {name}`\n")[2].partition("\n## ")[0]
        assert listed_options(part) == printed_options(parser)


def test_page_of_the_plugin_lists_every_option_of_all_commands() -> None:
    parser = argparse.ArgumentParser()
    add_kubectl_arguments(parser)
    part = KUBECTL_PAGE.partition("\n## Options of all commands\n")[2].partition("\n## ")[0]
    assert listed_options(part) == printed_options(parser)
