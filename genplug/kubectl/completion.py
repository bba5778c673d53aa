"""The program ``kubectl_complete-genplug``, with which kubectl completes the arguments of ``kubectl genplug``.

kubectl runs it with the words after ``genplug``. The last word is incomplete and can be empty. The program prints the
choices, one on each line, and then a directive for the shell (staging/src/k8s.io/kubectl/pkg/cmd/plugin/
plugin_completion.go of Kubernetes, and completions.go of spf13/cobra).
"""

import argparse
import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence

from genplug.cli.output import escape_output, ignore_closed_readers
from genplug.kubectl.main import COMMANDS, configure_command

DEFAULT, NO_FILES, DIRECTORIES = 0, 4, 16
"""The directives of cobra: complete files if there is no choice, complete nothing else, complete directories."""
_FILE_METAVARS = ("FILE", "PATH")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the choices and the directive for a command line, and return the exit code."""
    ignore_closed_readers()
    with escape_output():
        *words, incomplete = list(sys.argv[1:] if arguments is None else arguments) or [""]
        choices, directive = complete(words, incomplete)
        for choice in choices:
            print(choice)
        print(f":{directive}")
    return 0


def complete(words: Sequence[str], incomplete: str) -> tuple[list[str], int]:
    """Return the choices for the incomplete word after complete words, and the directive."""
    command = next((word for word in words if not word.startswith("-")), None)
    if command is None:
        names = [f"{name}\t{summary}" for name, summary in COMMANDS.items()]
        options = ["--help\tshow the help", "--version\tshow the version"]
        return _filter(options if incomplete.startswith("-") else names, incomplete), NO_FILES
    if command not in COMMANDS:
        return [], NO_FILES
    actions = _list_actions(command)
    option, equals, value = incomplete.partition("=")
    if equals and option.startswith("--"):
        choices, directive = _complete_value(_find_option(actions, option), value)
        return [f"{option}={choice}" for choice in choices], directive
    if words and (action := _find_option(actions, words[-1])) is not None and action.nargs != 0:
        return _complete_value(action, incomplete)
    if incomplete.startswith("-"):
        return _filter(_describe_options(actions), incomplete), NO_FILES
    return _complete_value(next((action for action in actions if not action.option_strings), None), incomplete)


def _list_actions(command: str) -> list[argparse.Action]:
    parser = argparse.ArgumentParser()
    configure_command(parser, importlib.import_module(f"genplug.kubectl.commands.{command}"))
    return list(parser._actions)  # noqa: SLF001 - argparse has no other way to list them


def _find_option(actions: Iterable[argparse.Action], option: str) -> argparse.Action | None:
    return next((action for action in actions if option in action.option_strings), None)


def _complete_value(action: argparse.Action | None, incomplete: str) -> tuple[list[str], int]:
    if action is None:
        return [], NO_FILES
    if action.choices is not None:
        return _filter(map(str, action.choices), incomplete), NO_FILES
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    return [], DEFAULT if metavar in _FILE_METAVARS else DIRECTORIES if metavar == "DIR" else NO_FILES


def _describe_options(actions: Iterable[argparse.Action]) -> Iterator[str]:
    for action in actions:
        if action.option_strings:
            description = " ".join((action.help or "").split())
            yield f"{action.option_strings[-1]}\t{description}"


def _filter(choices: Iterable[str], incomplete: str) -> list[str]:
    return [choice for choice in choices if choice.startswith(incomplete)]


if __name__ == "__main__":
    sys.exit(main())
