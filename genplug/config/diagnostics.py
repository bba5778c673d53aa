"""Collects the diagnostics of a configuration, and formats them as text.

The text has the form of compiler messages: a location that editors can open, a stable code
(docs/reference/errors.md), the source line with a caret, what was expected, and a hint.
"""

from collections.abc import Iterable
from pathlib import Path

from attrs import field, frozen

from genplug.spec.diagnostic import Diagnostic, ErrorCode, WarningCode
from genplug.spec.location import SourceLocation
from genplug.spec.printable import escape_line, replace_unprintable

_MAX_LINE_WIDTH = 160
"""The longest source line (characters) that is shown completely; a longer line is cut around the caret."""
_BEFORE_CARET = 60
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


@frozen
class Diagnostics:
    """Collects errors and warnings: decoders add to it and continue, so that a run finds all of them."""

    found: list[Diagnostic] = field(factory=list)
    """The errors."""
    warnings: list[Diagnostic] = field(factory=list)

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
        """Record an error; the arguments are the fields of :class:`Diagnostic`."""
        self.found.append(Diagnostic(code, location, message, key_path, expected, hint, width, related_location, line))

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
