"""Output of the commands: tables and documents on stdout, messages on stderr.

Texts of devices, files and other programs are escaped: :func:`escape_output` covers every text that a command prints,
and the functions for tables and messages also keep a newline in a name from looking like another line.
"""

import argparse
import io
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from itertools import zip_longest
from typing import Any, Self, SupportsIndex, TextIO, TypeAlias, cast

from genplug.spec.printable import escape_json, escape_line, escape_lines


class _Pipe(io.RawIOBase):
    """Writes to a pipe or socket, and discards the output after the reader has closed it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._is_closed_by_reader = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, content: Any) -> int | None:  # noqa: ANN401 - a buffer; its type has a name since Python 3.12
        view = memoryview(content)
        if not self._is_closed_by_reader:
            try:
                return os.write(self._descriptor, view)
            except BlockingIOError:
                return None
            except BrokenPipeError:
                self._is_closed_by_reader = True
        return view.nbytes


def ignore_closed_readers() -> None:
    """Make commands continue after the reader of their output, for example ``head``, has exited.

    A command ends with its own exit code then, although its output is incomplete: the exit code of
    ``genplug validate FILE | head -1`` states whether FILE is valid.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is not io.TextIOWrapper:
            continue
        stream.flush()
        mode = os.fstat(stream.fileno()).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            pipe = io.TextIOWrapper(
                io.BufferedWriter(_Pipe(stream.fileno())),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, pipe)


class Style(Enum):
    """A color of a text: its parameter of SGR (ECMA-48), and the character that marks its begin until it is printed.

    The marks are noncharacters of Unicode (U+FDD0 and following). They are not printable, so the functions that escape
    texts of devices and files also escape these characters in them.
    """

    ERROR = ("31", "\ufdd1")
    WARNING = ("33", "\ufdd2")
    GOOD = ("32", "\ufdd3")
    FAINT = ("2", "\ufdd4")


_END_OF_STYLE = "\ufdd0"
_SEQUENCES = {style.value[1]: f"\033[{style.value[0]}m" for style in Style} | {_END_OF_STYLE: "\033[0m"}
"""What a terminal gets for the mark of a style."""
_STYLE = re.compile(f"([{''.join(_SEQUENCES)}])")


def paint(text: str, style: Style) -> str:
    """Return a text with the marks of a style, for ``print``; escape a text of devices and files first.

    Each line is marked, so that a line that is cut out of the text keeps its color. :func:`use_color` decides whether
    the color is printed.
    """
    return "\n".join(f"{style.value[1]}{line}{_END_OF_STYLE}" if line else "" for line in text.split("\n"))


def use_color(choice: str) -> None:
    """Print the colors of :func:`paint` on stdout from now on, or leave them out.

    ``choice`` is the value of ``--color``: ``always``, ``never``, or ``auto`` for a terminal, unless the environment
    has NO_COLOR (https://no-color.org) or the terminal is ``dumb``.
    """
    stream = sys.stdout
    if isinstance(stream, _EscapingStream):
        is_wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()
        stream.is_colored = choice == "always" or (choice == "auto" and is_wanted)


MAX_TABLE_WIDTH = 120
"""Columns of a table on a wider terminal, and in a file or a pipe."""
_MIN_COLUMN_WIDTH = 12
"""Columns that wrapping leaves to a cell."""
_SEPARATOR = "   "
_HELP_WIDTH = 80
"""Columns of a help text without a terminal, as in argparse."""


class Painted(str):
    """A line of a cell of a table with a style, which counts neither for the widths nor for the escaping."""

    __slots__ = ("style",)
    style: Style

    def __new__(cls, text: str, style: Style) -> Self:
        """Return a line with a style."""
        painted = super().__new__(cls, text)
        painted.style = style
        return painted

    def ljust(self, width: SupportsIndex, fill: str = " ", /) -> str:
        """Return the line with the marks of its style, and spaces up to a width."""
        return paint(self, self.style) + super().ljust(width, fill)[len(self) :]


Cell: TypeAlias = str | tuple[str, ...]
"""The line or the lines of a cell of a table."""


def format_table(headings: Sequence[str], rows: Sequence[Sequence[Cell]], width: int | None = None) -> str:
    """Return rows in aligned columns without borders, like the tables of kubectl.

    A tuple as a cell is several lines. With a width (columns), long lines of cells are wrapped, so that no line of the
    table is wider.
    """
    table = [list(map(_escape_cell, row)) for row in (headings, *rows)]
    widths = [max(map(_measure_cell, column)) for column in zip(*table, strict=True)]
    is_wrapped = width is not None and sum(widths) + len(_SEPARATOR) * (len(widths) - 1) > width
    if width is not None and is_wrapped:
        words = [max(map(_measure_words, column)) for column in zip(*table, strict=True)]
        widths = _fit(widths, words, width - len(_SEPARATOR) * (len(widths) - 1))
    lines: Iterable[Sequence[str]]
    if is_wrapped or any(isinstance(cell, tuple) for row in table for cell in row):
        lines = (line for row in table for line in _split_row(row, widths))
    else:
        # Each row of most tables is one line.
        lines = cast("list[list[str]]", table)
    columns = zip(zip(*lines, strict=True), widths, strict=True)
    padded = [[text.ljust(width) for text in column] for column, width in columns]
    return "\n".join([_SEPARATOR.join(line).rstrip() for line in zip(*padded, strict=True)])


def table_width() -> int:
    """Return the columns that a table may use: those of the terminal, at most :data:`MAX_TABLE_WIDTH`."""
    return min(terminal_width(MAX_TABLE_WIDTH), MAX_TABLE_WIDTH) if sys.stdout.isatty() else MAX_TABLE_WIDTH


def terminal_width(default: int) -> int:
    """Return the columns in the variable COLUMNS, or of the terminal, or the default without a terminal.

    This is ``shutil.get_terminal_size``, without the import of shutil, which takes 4 ms.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or default  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        # stdout is closed or detached, or it is not a terminal.
        return default


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Formats the help of a command: the description and the examples verbatim, all else as wide as the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=terminal_width(_HELP_WIDTH) - 2)


def wrap_line(text: str) -> str:
    """Return a line as lines that are not wider than :func:`table_width`; further lines are indented more."""
    width = table_width()
    if len(text) <= width:
        return text
    indent = " " * (len(text) - len(text.lstrip()))
    import textwrap  # noqa: PLC0415 - only long lines need it

    lines = textwrap.wrap(
        text.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False
    )
    return "\n".join(lines)


def wrap_escaped_line(text: str) -> str:
    """Return a text of another program as wrapped lines: a newline in it does not look like another line."""
    return wrap_line(escape_line(text))


def format_json(document: object) -> str:
    """Return a document as JSON for people and programs; characters that are not printable are escaped."""
    import json  # noqa: PLC0415 - only this format needs it

    return escape_json(json.dumps(document, indent=2, ensure_ascii=False))


def format_yaml(document: object) -> str:
    """Return a document as YAML; characters that are not printable are escaped."""
    import yaml  # noqa: PLC0415 - only this format needs it

    text = str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    is_printable = all(line.isprintable() for line in text.split("\n"))
    return text if is_printable else str(yaml.safe_dump(document, sort_keys=False))


def print_lines(text: str) -> None:
    """Print lines to stderr, wrapped to :func:`table_width`."""
    print("\n".join(map(wrap_line, text.splitlines())), file=sys.stderr)


def print_message(command: str, text: str) -> None:
    """Print a message of one line to stderr; stdout is for the result of a command."""
    print(f"genplug {command}: {escape_line(text)}", file=sys.stderr, flush=True)


@contextmanager
def escape_output() -> Iterator[None]:
    """Escape all text that is printed to stdout and stderr inside the context, except newlines and tabs."""
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", _EscapingStream(stream)) for stream in (stdout, stderr))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr


def clear_terminal() -> None:
    """Clear the terminal, if stdout is one."""
    if sys.stdout.isatty():
        write_control("\033[2J\033[H")


def write_control(sequence: str) -> None:
    """Write a control sequence to stdout without escaping it; the caller has checked that stdout is a terminal."""
    getattr(sys.stdout, "stream", sys.stdout).write(sequence)


class _EscapingStream:
    """Writes escaped text to a stream, with or without the colors of :func:`paint`; all else is that of the stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_colored = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the types of a stream
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text; return the number of its characters."""
        if text.isprintable():
            self.stream.write(text)
            return len(text)
        # The marks of styles are escaped as well, unless they are taken out before.
        for part in _STYLE.split(text):
            if part in _SEQUENCES:
                self.stream.write(_SEQUENCES[part] if self.is_colored else "")
            elif part:
                self.stream.write(escape_lines(part))
        return len(text)


def _fit(widths: Sequence[int], words: Sequence[int], available: int) -> list[int]:
    """Return widths of columns with a sum of at most ``available``, if possible: the widest columns become narrower.

    Texts are wrapped between words first; only if that is not enough, columns are narrower than their longest words.
    """
    fitting = [min(width, available) for width in widths]
    for floors in (words, [_MIN_COLUMN_WIDTH] * len(fitting)):
        while sum(fitting) > available:
            shrinkable = [column for column, floor in enumerate(floors) if fitting[column] > max(floor, 1)]
            if not shrinkable:
                break
            fitting[max(shrinkable, key=lambda column: fitting[column])] -= 1
    return fitting


def _measure_cell(cell: Cell) -> int:
    """Return the length of the longest line of a cell."""
    return len(cell) if isinstance(cell, str) else max(map(len, cell), default=0)


def _measure_words(cell: Cell) -> int:
    """Return the length of the longest word of a cell."""
    return max((len(word) for line in _list_lines(cell) for word in line.split()), default=0)


def _list_lines(cell: Cell) -> tuple[str, ...]:
    return (cell,) if isinstance(cell, str) else cell


def _split_row(cells: Sequence[Cell], widths: Sequence[int]) -> Iterator[Sequence[str]]:
    """Return the lines of a row; a line of a cell that is wider than its column continues on the next line."""
    columns = [
        [part for line in _list_lines(cell) for part in _wrap_part(line, width)]
        for cell, width in zip(cells, widths, strict=True)
    ]
    # A row of empty cells has one line.
    return zip_longest(*(column or [""] for column in columns), fillvalue="")


def _wrap_part(part: str, width: int) -> list[str]:
    if len(part) <= width:
        return [part]
    import textwrap  # noqa: PLC0415 - only long lines need it

    return [_paint_as(part, text) for text in textwrap.wrap(part, width, break_on_hyphens=False)]


def _escape_cell(cell: Cell) -> Cell:
    """Return a cell with escaped lines, which keep their styles."""
    if isinstance(cell, tuple):
        return tuple([_paint_as(line, escape_line(line)) for line in cell])
    return _paint_as(cell, escape_line(cell))


def _paint_as(styled: str, text: str) -> str:
    """Return a text in the style of another text, if that has one."""
    return Painted(text, styled.style) if isinstance(styled, Painted) else text
