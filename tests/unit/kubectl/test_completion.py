"""``kubectl_complete-genplug``, alone and called by kubectl."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genplug.kubectl.completion import DEFAULT, NO_FILES, complete, main
from genplug.kubectl.main import COMMANDS

TOOLS = Path(os.environ.get("GENPLUG_TOOLS", Path.home() / ".cache/genplug/tools"))


def list_words(*words: str) -> list[str]:
    """Return the choices without their descriptions."""
    *previous, incomplete = words
    return [choice.partition("\t")[0] for choice in complete(previous, incomplete)[0]]


def test_first_word_is_a_command() -> None:
    assert list_words("") == list(COMMANDS)
    assert list_words("pen") == ["pending"]
    assert list_words("--v") == ["--version"]


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_each_command_are_completed(command: str) -> None:
    assert "--namespace" in list_words(command, "--")
    assert list_words(command, "--output=j") == ["--output=json"]
    assert list_words(command, "-o", "js") == ["json"]


def test_word_that_is_not_a_command_has_no_choices() -> None:
    assert complete(["frobnicate"], "--") == ([], NO_FILES)


def test_value_without_choices_is_not_completed() -> None:
    assert complete(["status", "--namespace"], "") == ([], NO_FILES)
    assert complete(["status", "--kubectl"], "") == ([], DEFAULT)


def test_program_prints_choices_and_directive(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-o", "ya"]) == 0
    assert capsys.readouterr().out == "yaml\n:4\n"


@pytest.mark.helm
def test_kubectl_calls_the_program(tmp_path: Path) -> None:
    for name, module in {"kubectl-genplug": "main", "kubectl_complete-genplug": "completion"}.items():
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m genplug.kubectl.{module} "$@"\n')
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command: list[str | Path] = [TOOLS / "kubectl", "__complete", "genplug", "pen"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=20)
    assert done.stdout == f"pending\t{COMMANDS['pending']}\n:4\n"
