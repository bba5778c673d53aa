"""Collects the diagnostics of a configuration, and formats them as text.

The text has the form of compiler messages: a location that editors can open, a stable code
(docs/reference/errors.md), the source line with a caret, what was expected, and a hint.
"""

from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from msgspec import Struct, field

from genplug.spec.diagnostic import Diagnostic, ErrorCode, WarningCode
from genplug.spec.limits import (
    MAX_DIAGNOSTICS,
    MAX_PATTERNS,
    MAX_REGEX_INSTRUCTIONS,
    MAX_REGEXES,
    MAX_RESOURCES,
    MAX_TEMPLATE_STEPS,
    MAX_TOKENS,
    MAX_WILDCARDS,
)
from genplug.spec.location import SourceLocation
from genplug.spec.printable import escape_line, replace_unprintable
from genplug.struct_values import compare_without, hide_in_repr

_MAX_LINE_WIDTH = 110
"""The longest source line (characters) that is shown completely; a longer line is cut around the caret."""
_BEFORE_CARET = 50
_MAX_TEXT = 400
"""The longest output line (characters); a longer line is cut in its middle."""


class ConfigInvalidError(Exception):
    """An invalid configuration. ``diagnostics`` are all of its errors, in the order of the files.

    ``directories`` are the directories to watch for a corrected configuration.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic], directories: Iterable[Path] = ()) -> None:
        self.diagnostics = sort_unique(diagnostics)
        self.directories = frozenset(directories)
        super().__init__(format_diagnostics(self.diagnostics))


class TooManyErrorsError(Exception):
    """The maximum number of errors is recorded; the rest of the files is not checked."""


class Budget(Enum):
    """A number that is limited over all files of a configuration: its limit, and the noun in errors."""

    PATTERNS = (MAX_PATTERNS, "globs, where each alternative in braces counts")
    WILDCARDS = (MAX_WILDCARDS, "wildcards in its globs, where each alternative in braces counts")
    REGEXES = (MAX_REGEXES, "regular expressions")
    REGEX_INSTRUCTIONS = (MAX_REGEX_INSTRUCTIONS, "instructions to which RE2 compiles its regular expressions")
    TEMPLATE_STEPS = (MAX_TEMPLATE_STEPS, "references and filters of templates")
    RESOURCES = (MAX_RESOURCES, "names of resources and aliases")
    TOKENS = (MAX_TOKENS, "tokens")

    @property
    def limit(self) -> int:
        """The maximum number."""
        return self.value[0]

    @property
    def noun(self) -> str:
        """The counted things, in the plural."""
        return self.value[1]


@compare_without("_seen", "_spent")
@hide_in_repr("_seen", "_spent")
class Diagnostics(Struct, frozen=True):
    """Collects errors and warnings: decoders add to it and continue, so that a run finds all of them.

    It also counts things whose number is limited over all files of a configuration.
    """

    found: list[Diagnostic] = []
    """The errors."""
    warnings: list[Diagnostic] = []
    limit: int = MAX_DIAGNOSTICS
    """The maximum number of errors, and of warnings."""
    _seen: set[tuple[object, ...]] = field(default_factory=set)
    _spent: dict[Budget, int] = {}

    def add(  # noqa: PLR0913 - the fields of a diagnostic
        self,
        code: ErrorCode,
        location: SourceLocation,
        message: str,
        *,
        key_path: str = "",
        expected: str = "",
        hint: str = "",
        width: int = 1,
        related_location: SourceLocation | None = None,
        line: str = "",
    ) -> None:
        """Record an error, unless it is recorded; the arguments are the fields of :class:`Diagnostic`.

        Raises:
            TooManyErrorsError: the maximum number of errors is recorded.
        """
        if (key := (code, location, message)) in self._seen:
            return
        if len(self.found) >= self.limit:
            if len(self.found) == self.limit:
                message = f"more than {self.limit} errors: the rest is not checked"
                hint = "correct the errors above, and validate again"
                self.found.append(Diagnostic(ErrorCode.LIMIT, location, message, hint=hint))
            raise TooManyErrorsError
        self._seen.add(key)
        self.found.append(Diagnostic(code, location, message, key_path, expected, hint, width, related_location, line))

    def spend(  # noqa: PLR0913 - the fields of a diagnostic
        self,
        budget: Budget,
        amount: int,
        location: SourceLocation,
        *,
        key_path: str = "",
        width: int = 1,
        once: str | None = None,
    ) -> bool:
        """Count something; return whether it is within its limit, and record an error where it exceeds the limit.

        Two equal texts in ``once`` count once.
        """
        if once is not None:
            if (budget, once) in self._seen:
                return not self.is_spent(budget)
            self._seen.add((budget, once))
        spent = self._spent.get(budget, 0)
        self._spent[budget] = spent + amount
        if spent <= budget.limit < spent + amount:
            message = f"the configuration has more than {budget.limit} {budget.noun} up to here"
            hint = "remove some of them, or move parts to files for single nodes (node.NAME.yaml)"
            self.add(ErrorCode.LIMIT, location, message, key_path=key_path, hint=hint, width=width)
        return spent + amount <= budget.limit

    def is_spent(self, budget: Budget) -> bool:
        """Return whether a limit is exceeded."""
        return self._spent.get(budget, 0) > budget.limit

    def warn(  # noqa: PLR0913 - the fields of a diagnostic
        self,
        code: WarningCode,
        location: SourceLocation,
        message: str,
        *,
        key_path: str = "",
        hint: str = "",
        width: int = 1,
        related_location: SourceLocation | None = None,
    ) -> None:
        """Record a warning; the arguments are the fields of :class:`Diagnostic`."""
        if len(self.warnings) >= self.limit:
            return
        if (key := (code, location, message)) in self._seen:
            return
        self._seen.add(key)
        self.warnings.append(Diagnostic(code, location, message, key_path, "", hint, width, related_location))


def sort_unique(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Return diagnostics in the order of the files, each once: a key of ``defaults`` is decoded for each resource."""
    unique = {
        (diagnostic.code, diagnostic.location, diagnostic.message): diagnostic
        for diagnostic in reversed(tuple(diagnostics))
    }
    return tuple(sorted(unique.values(), key=_sort_key))


def format_diagnostics(diagnostics: Iterable[Diagnostic]) -> str:
    """Return diagnostics as text for a terminal or a log."""
    return "\n".join(map(_format_diagnostic, diagnostics))


def summarize_diagnostic(diagnostic: Diagnostic) -> str:
    """Return a diagnostic as one line: location, code and message."""
    return escape_line(f"{diagnostic.location}: {diagnostic.code}: {diagnostic.message}")


def _format_diagnostic(diagnostic: Diagnostic) -> str:
    tree = f"  [{diagnostic.key_path}]" if diagnostic.key_path else ""
    lines = [f"{diagnostic.location}: {diagnostic.severity}[{diagnostic.code}]: {diagnostic.message}{tree}"]
    margin = " " * max(5, len(str(diagnostic.location.line)))
    if diagnostic.line:
        source, column = _window(diagnostic.line, diagnostic.location.column)
        # Keep tabs, so that the caret has the column that it has in the file.
        lead = "".join("\t" if character == "\t" else " " for character in source[: column - 1])
        room = max(len(source) - column + 1, 1)
        lines.append(f"{diagnostic.location.line:>5} | {source}")
        lines.append(f"{margin} | {lead}{'^' * max(min(diagnostic.width, room), 1)}")
    if diagnostic.related_location:
        lines.append(f"{margin} = first: {diagnostic.related_location}")
    if diagnostic.expected:
        lines.append(f"{margin} = expected: {diagnostic.expected}")
    if diagnostic.hint:
        lines.append(f"{margin} = help: {diagnostic.hint}")
    return "\n".join(replace_unprintable(_shorten(line)) for line in lines)


def _shorten(line: str) -> str:
    half = _MAX_TEXT // 2
    return line if len(line) <= _MAX_TEXT else f"{line[:half]}…{line[-half:]}"


def _window(line: str, column: int) -> tuple[str, int]:
    """Return the part of a line to show, and the column of the caret in it."""
    if len(line) <= _MAX_LINE_WIDTH:
        return line, column
    start = max(min(column - 1 - _BEFORE_CARET, len(line) - _MAX_LINE_WIDTH), 0)
    shown = line[start : start + _MAX_LINE_WIDTH]
    head = "…" if start else ""
    tail = "…" if start + _MAX_LINE_WIDTH < len(line) else ""
    return f"{head}{shown}{tail}", column - start + len(head)


def _sort_key(diagnostic: Diagnostic) -> tuple[str, int, int, str, str]:
    location = diagnostic.location
    return (location.file, location.line, location.column, diagnostic.code, diagnostic.message)
