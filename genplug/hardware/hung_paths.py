"""Tracks which file operation each thread is in, and refuses operations that are known to hang.

A read of a file whose driver or server does not answer does not return, and nothing can end it: the thread that waits
for it is lost until then. :class:`HungPaths` keeps a second thread from being lost to the same path.
"""

import threading
import time

from msgspec import Struct

from genplug.hardware.file_tree import Access
from genplug.hardware.scan_errors import HangError

__all__ = ["HangError", "HungPaths", "Operation"]

_NAMES = {Access.STAT: "stat", Access.LIST: "list", Access.READ: "read"}


class Operation(Struct, frozen=True):
    """A file operation that a thread has begun. ``started`` is monotonic seconds."""

    access: Access
    path: str
    started: float

    @property
    def error(self) -> HangError:
        """The error of everything that needs this operation, if it hangs."""
        return HangError(f"{_NAMES[self.access]} of {self.path} does not return", self.started)


class HungPaths(Struct, frozen=True):
    """The current file operation of every thread, and the operations that hang. Safe to use from any thread."""

    # Plain tuples: a scan records tens of thousands of operations.
    _current: dict[int, tuple[Access, str, float]] = {}
    _limits: dict[int, tuple[float, float]] = {}
    _hung: dict[tuple[Access, str], Operation] = {}

    def record(self, access: Access, path: str) -> None:
        """Record that this thread begins an operation, or has ended the previous one (``Access.NONE``).

        Raises:
            HangError: another thread hangs in the same operation, or the time limit of this thread is over.
        """
        if self._hung and (hung := self._hung.get((access, path))) is not None:
            raise hung.error
        now, thread = time.monotonic(), threading.get_ident()
        if (limit := self._limits.get(thread)) is not None and now > limit[0]:
            raise HangError(f"it has not finished within {limit[1]:g} s")
        if access is Access.NONE:
            self._current.pop(thread, None)
        else:
            self._current[thread] = (access, path, now)

    def begin(self, seconds: float) -> None:
        """Give this thread a time limit, and forget its last operation."""
        thread = threading.get_ident()
        self._current.pop(thread, None)
        self._limits[thread] = (time.monotonic() + seconds, seconds)

    def stop(self, thread: int) -> None:
        """End the function of a thread at its next file operation: its result is not wanted."""
        if (limit := self._limits.get(thread)) is not None:
            self._limits[thread] = (0.0, limit[1])

    def end(self) -> None:
        """Forget the time limit and the last operation of this thread."""
        thread = threading.get_ident()
        self._current.pop(thread, None)
        self._limits.pop(thread, None)

    def current(self, thread: int) -> Operation | None:
        """Return the operation that a thread began last, None if it has not begun any."""
        found = self._current.get(thread)
        return None if found is None else Operation(*found)

    def add(self, operation: Operation) -> None:
        """Refuse an operation from now on: it hangs."""
        self._hung[operation.access, operation.path] = operation

    def discard(self, operation: Operation) -> None:
        """Allow an operation again: it has returned."""
        self._hung.pop((operation.access, operation.path), None)
