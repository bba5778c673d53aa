"""Output of the commands: tables on stdout, messages on stderr."""

import io
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any


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


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns without borders, like the tables of kubectl."""
    lines = [tuple(headings), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def print_message(command: str, text: str) -> None:
    """Print a message of a command to stderr; stdout is for its result."""
    print(f"genplug {command}: {text}", file=sys.stderr)
