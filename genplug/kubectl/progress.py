"""A progress bar on stderr, if that is a terminal."""

import shutil
import sys
from typing import Self, TextIO

_BAR_CHARACTERS = 30
_MAX_LINE_CHARACTERS = 100


class ProgressBar:
    """A line that shows how much is done; it is removed at the end."""

    def __init__(self, noun: str) -> None:
        # The control characters of the bar must not be escaped.
        self._stream: TextIO = getattr(sys.stderr, "stream", sys.stderr)
        self._noun = noun
        self._is_shown = self._stream.isatty()
        self._line = ""

    def __enter__(self) -> Self:
        """Return the bar."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self._print("")

    def report(self, done: int, total: int) -> None:
        """Show that a number of things is done, of all things."""
        filled = _BAR_CHARACTERS * done // total if total else _BAR_CHARACTERS
        self._print(f"[{'#' * filled}{'.' * (_BAR_CHARACTERS - filled)}] {done}/{total} {self._noun}")

    def _print(self, line: str) -> None:
        if not self._is_shown or line == self._line:
            return
        columns = min(shutil.get_terminal_size().columns - 1, _MAX_LINE_CHARACTERS)
        self._stream.write(f"\r\033[K{line[:columns]}")
        self._stream.flush()
        self._line = line
