"""Problems: mistakes in a configuration, as values, and the one place where they become text for a person.

The form is that of good compilers: a place that editors jump to, a stable code (docs/errors.md explains each), the line
with a caret, what was expected, one hint.
"""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from attrs import field, frozen

from genplug.config.place import Place


class Code(StrEnum):
    """What kind of mistake; the codes are public and stay."""

    UNREADABLE = "GP001"
    SYNTAX = "GP002"
    DUPLICATE_KEY = "GP003"
    NO_RESOURCES = "GP004"
    WRONG_VERSION = "GP005"
    UNKNOWN_KEY = "GP006"
    MISSING_KEY = "GP007"
    WRONG_TYPE = "GP008"
    WRONG_VALUE = "GP009"
    RESOURCE_NAME = "GP010"
    GLOB = "GP011"
    TEMPLATE = "GP012"
    UNKNOWN_ATTRIBUTE = "GP013"
    SELECTOR = "GP014"
    PATH = "GP015"
    NAME = "GP016"
    CONFLICT = "GP017"
    NOT_SUPPORTED = "GP018"


@frozen
class Problem:
    """One mistake. ``width`` is how many characters the caret marks; ``tree`` is the path of keys to it."""

    code: Code
    place: Place
    message: str
    tree: str = ""
    expected: str = ""
    hint: str = ""
    width: int = 1
    line: str = ""


class ConfigInvalidError(Exception):
    """A configuration that cannot be used. ``problems`` are all of its mistakes, in the order of the files.

    ``folders`` are those to watch for a better one.
    """

    def __init__(self, problems: Iterable[Problem], folders: Iterable[Path] = ()) -> None:
        self.problems = tuple(sorted(set(problems), key=_order))
        self.folders = frozenset(folders)
        super().__init__(rendered(self.problems))


@frozen
class Problems:
    """A collector of mistakes: readers add to it and go on, so that one run finds them all."""

    found: list[Problem] = field(factory=list)

    def add(self, code: Code, place: Place, message: str, **more: object) -> None:
        """Note a mistake; ``more`` are fields of :class:`Problem`."""
        self.found.append(Problem(code, place, message, **more))  # type: ignore[arg-type]


def rendered(problems: Iterable[Problem]) -> str:
    """Return the problems as text for a terminal or a log."""
    return "\n".join(map(_rendered, problems))


def _rendered(problem: Problem) -> str:
    tree = f"  [{problem.tree}]" if problem.tree else ""
    lines = [f"{problem.place}: error[{problem.code}]: {problem.message}{tree}"]
    if problem.line:
        number = str(problem.place.line)
        # A tab is one column to the reader of the file and must stay one here.
        lead = "".join("\t" if one == "\t" else " " for one in problem.line[: problem.place.column - 1])
        room = max(len(problem.line) - problem.place.column + 1, 1)
        lines.append(f"{number:>5} | {problem.line}")
        lines.append(f"{'':>5} | {lead}{'^' * max(min(problem.width, room), 1)}")
    if problem.expected:
        lines.append(f"{'':>5} = expected: {problem.expected}")
    if problem.hint:
        lines.append(f"{'':>5} = help: {problem.hint}")
    return "\n".join(lines)


def _order(problem: Problem) -> tuple[str, int, int, str, str]:
    place = problem.place
    return (place.file, place.line, place.column, problem.code, problem.message)
