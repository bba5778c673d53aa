"""``genplug status --watch``: a live table on a terminal; elsewhere a table or a document for each change."""

import json
import select
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

from genplug.cli.documents import JSON
from genplug.cli.output import Style, format_yaml, paint, print_message, wrap_line, write_control
from genplug.cli.status_text import format_status
from genplug.observe.text import format_time
from genplug.spec.printable import escape_json, escape_line

_ENTER = "\033[?1049h\033[?25l\033[?7l"
"""Use the alternate screen, hide the cursor, and cut long lines instead of wrapping them (xterm control sequences)."""
_LEAVE = "\033[?7h\033[?25h\033[?1049l"
_HOME, _END_LINE, _END_SCREEN = "\033[H", "\033[K", "\033[J"
_VOLATILE = ("runs", "minRuns", "cpuSeconds")
"""Keys of ``health`` that change all the time."""


class StatusWatch:
    """Shows statuses in a format of ``-o`` until it is closed. ``interval`` is the seconds between two requests."""

    def __init__(self, output: str, interval: float, *, is_brief: bool) -> None:
        self._output = output
        self._interval = interval
        self._is_brief = is_brief
        self._is_live = output in {"table", "wide"} and sys.stdout.isatty()
        self._status: JSON | None = None
        self._responded_at = 0.0
        self._error = ""
        self._failed_at = 0.0
        if self._is_live:
            # A terminal with another size is drawn at once; the signal waits for sigtimedwait.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGWINCH,))
            signal.signal(signal.SIGTERM, _exit)
            write_control(_ENTER)

    @property
    def has_status(self) -> bool:
        """Whether the agent has responded."""
        return self._status is not None

    def show(self, status: JSON) -> None:
        """Show a status; if stdout is not a terminal, only if it differs from the previous status.

        A status of another form raises an exception before anything is shown, and the previous status is kept.
        """
        if self._output in {"table", "wide"}:
            self._format(status)
        previous = self._status
        is_changed = not self._is_live and (previous is None or self._key(previous) != self._key(status))
        if self._error and not self._is_live:
            print_message("status", "the agent responds again")
        self._status, self._responded_at, self._error = status, time.time(), ""
        if self._is_live:
            self._draw()
        elif is_changed:
            self._print(status)

    def show_error(self, error: str) -> None:
        """Show that the agent does not respond."""
        if not self._error:
            self._failed_at = time.time()
        is_new, self._error = error != self._error, error
        if self._is_live:
            self._draw()
        elif is_new:
            print_message("status", f"{error}; --watch continues to request the status")

    def wait(self) -> None:
        """Wait for the next request; draw again if the terminal gets another size."""
        deadline = time.monotonic() + self._interval
        while (left := deadline - time.monotonic()) > 0:
            if not self._is_live:
                time.sleep(left)
            elif signal.sigtimedwait((signal.SIGWINCH,), left) is not None:
                self._draw()

    def has_reader(self) -> bool:
        """Return whether the terminal or the reader of the pipe still exists."""
        poll = select.poll()
        try:
            poll.register(sys.stdout.fileno(), 0)
        except (OSError, ValueError):
            return True
        return not poll.poll(0)

    def close(self) -> None:
        """Restore the terminal, and print the last status on it. A second call has no effect."""
        if not self._is_live:
            return
        self._is_live = False
        write_control(_LEAVE)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGWINCH,))
        with suppress(OSError):
            if self._status is not None:
                print(self._format(self._status))
            sys.stdout.flush()

    def _format(self, status: JSON) -> str:
        return format_status(status, self._output, is_brief=self._is_brief)

    def _key(self, status: JSON) -> Mapping[str, Any]:
        """Return the part of a status whose changes are shown."""
        health = {key: value for key, value in status["health"].items() if key not in _VOLATILE}
        hides_resources = self._is_brief and self._output in {"table", "wide"}
        resources = () if hides_resources else status["resources"]
        if not (dra := status.get("dra")):
            return {**status, "health": health, "resources": resources}
        publisher = {key: value for key, value in dra["publisher"].items() if key != "retrySeconds"}
        hidden = {"resources": (), "claims": ()} if hides_resources else {}
        return {**status, "health": health, "resources": resources, "dra": {**dra, "publisher": publisher, **hidden}}

    def _print(self, status: JSON) -> None:
        match self._output:
            case "json":
                print(escape_json(json.dumps(status, ensure_ascii=False)), flush=True)
            case "yaml":
                print(f"---\n{format_yaml(status)}", end="", flush=True)
            case _:
                now = format_time(time.time())
                print(f"--- {now}\n{self._format(status)}\n", flush=True)

    def _draw(self) -> None:
        """Write the screen over the previous screen, without clearing it first, so that it does not flicker."""
        rows = shutil.get_terminal_size().lines
        lines = self._header().splitlines()
        if self._status is not None:
            lines += ["", *self._format(self._status).splitlines()]
        if len(lines) > rows:
            lines = [*lines[: rows - 1], f"and {len(lines) - rows + 1} more lines; the terminal is too small"]
        write_control(_HOME)
        for number, line in enumerate(lines):
            print(line, end="")
            write_control(_END_LINE + ("\n" if number < len(lines) - 1 else ""))
        write_control(_END_SCREEN)
        sys.stdout.flush()

    def _header(self) -> str:
        if not self._error:
            return f"every {self._interval:g}s, updated at {_format_clock(self._responded_at)}; Ctrl-C ends"
        shown = f" The status below is that of {_format_clock(self._responded_at)}." if self.has_status else ""
        text = f"no response since {_format_clock(self._failed_at)}.{shown} {escape_line(self._error)}"
        return paint(wrap_line(text), Style.ERROR)


def _format_clock(epoch_seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(epoch_seconds))


def _exit(number: int, _frame: FrameType | None) -> None:
    """End the command on a signal by an exception, so that the terminal is restored."""
    raise SystemExit(128 + number)
