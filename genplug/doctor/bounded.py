"""Runs functions that read files or sockets in daemon threads, so that no operation can hang the command.

Nothing ends a system call that waits in the kernel: the thread is lost, and the process can exit nevertheless.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from genplug.doctor.facts import Known, Unknown, UnknownFactError
from genplug.hardware.hung_paths import HungPaths
from genplug.hardware.scan_errors import HangError

Result = TypeVar("Result")


class BoundedRead(Generic[Result]):
    """A function in a thread of its own. ``what`` names in messages what it reads."""

    def __init__(self, what: str, function: Callable[[], Result], paths: HungPaths | None = None) -> None:
        self._what = what
        self._function = function
        self._paths = paths or HungPaths()
        self._result: Known[Result] = Unknown(f"{what} has not been read")
        self._thread = threading.Thread(target=self._run, name=f"doctor: {what}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._result = Unknown(f"{what} cannot be read: {error} (limit of processes)")
            self._thread = threading.Thread()

    def wait(self, deadline: float) -> Known[Result]:
        """Return the result, or the reason why there is none at the deadline (monotonic seconds)."""
        if self._thread.ident is None:
            return self._result
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        if not self._thread.is_alive():
            return self._result
        operation = self._paths.current(self._thread.ident)
        detail = f": {operation.error}" if operation is not None else ""
        return Unknown(f"{self._what} cannot be read, because a file or a server does not respond{detail}")

    def _run(self) -> None:
        try:
            self._result = self._function()
        except (UnknownFactError, HangError) as error:
            self._result = Unknown(str(error))
        except OSError as error:
            reason = error.strerror or str(error)
            path = f"{os.fsdecode(error.filename)}: " if error.filename else ""
            self._result = Unknown(f"{self._what} cannot be read: {path}{reason}")
        except Exception as error:  # noqa: BLE001 - a defect in a reader must not hide the other findings
            self._result = Unknown(
                f"{self._what} cannot be read: {error!r}. This is a defect in genplug; please report it"
            )
