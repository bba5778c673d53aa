"""The memory allocator of glibc, which gRPC and other libraries in C use."""

import ctypes
import os
from typing import Final

_M_ARENA_MAX: Final = -8
"""The parameter of ``mallopt`` for the maximum number of arenas (``malloc.h`` of glibc)."""
_VARIABLE: Final = "MALLOC_ARENA_MAX"


def limit_malloc_arenas() -> None:
    """Make all threads of this process allocate memory from one arena; call this before the first thread starts.

    By default, glibc gives each thread an arena, up to eight for each core. Each arena keeps the memory that its
    thread once needed, so the memory of a process with many short tasks in threads grows for hours. The environment
    variable ``MALLOC_ARENA_MAX`` has precedence. Other C libraries have no arenas, and are left unchanged.
    """
    if _VARIABLE not in os.environ and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_ARENA_MAX, 1)


def return_free_memory() -> None:
    """Return free memory of the heap to the system, as far as whole pages are free (``malloc_trim`` of glibc).

    The first scan of thousands of devices needs large tables for a moment, and glibc keeps their memory.
    """
    if (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        malloc_trim(0)
