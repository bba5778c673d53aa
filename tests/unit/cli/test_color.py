"""Colors of the output: ``--color``, NO_COLOR, and tables whose cells have a style."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import pytest

from genplug.cli.output import Cell, Painted, Style, escape_output, format_table, paint, use_color

RED, RESET = "\x1b[31m", "\x1b[0m"


@contextmanager
def terminal() -> Iterator[TextIO]:
    """Make stdout a terminal, and yield what it receives."""
    receiver, sender = os.openpty()
    with pytest.MonkeyPatch.context() as monkeypatch, os.fdopen(sender, "w") as stdout, os.fdopen(receiver) as received:
        monkeypatch.setattr(sys, "stdout", stdout)
        yield received


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def print_red(choice: str) -> None:
    with escape_output():
        use_color(choice)
        print(paint("red", Style.ERROR), flush=True)


def test_terminal_gets_colors() -> None:
    with terminal() as received:
        print_red("auto")
        assert received.readline() == f"{RED}red{RESET}\n"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_variable_disables_colors_unless_they_are_requested(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with terminal() as received:
        print_red("auto")
        assert received.readline() == "red\n"
        print_red("always")
        assert received.readline() == f"{RED}red{RESET}\n"


def test_empty_no_color_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    with terminal() as received:
        print_red("auto")
        assert received.readline() == f"{RED}red{RESET}\n"


def test_pipe_gets_colors_only_if_they_are_requested(capsys: pytest.CaptureFixture[str]) -> None:
    for choice, expected in {"auto": "red\n", "never": "red\n", "always": f"{RED}red{RESET}\n"}.items():
        print_red(choice)
        assert capsys.readouterr().out == expected


def test_style_of_a_cell_does_not_change_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    def rows(line: str) -> Sequence[Sequence[Cell]]:
        return [("a", (line, "five"), "x"), ("b", "four", "y")]

    painted = rows(Painted("one two three", Style.ERROR))
    with escape_output():
        print(format_table(("A", "B", "C"), rows("one two three"), 16))
        plain = capsys.readouterr().out
        print(format_table(("A", "B", "C"), painted, 16))
        assert capsys.readouterr().out == plain
        use_color("always")
        print(format_table(("A", "B", "C"), painted, 16))
    colored = capsys.readouterr().out
    assert colored.replace(RED, "").replace(RESET, "") == plain
    assert colored.splitlines()[1].startswith(f"a   {RED}one")
    assert "five" in colored
    assert f"{RED}five" not in colored


def test_mark_of_a_style_in_the_name_of_a_device_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with escape_output():
        use_color("always")
        print(format_table(("A",), [(f"x{Style.ERROR.value[1]}y\x1b[31m",)]))
    assert capsys.readouterr().out == "A\nx\\ufdd1y\\x1b[31m\n"
