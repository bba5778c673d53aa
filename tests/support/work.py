"""Counts the Python code that a call executes, to show that its work depends on what changes.

The time of a call depends on the machine, the number of executed lines does not. Work of the interpreter itself, such
as the comparison of two tuples by identity, is not counted.
"""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


def count_lines(call: Callable[[], ResultT]) -> tuple[int, ResultT]:
    """Return the number of lines that a call executes, each turn of a loop included, and its result."""
    executed = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal executed
        executed += event in {"call", "line"}
        return trace

    # Hypothesis measures collections in a callback, whose lines would be counted if a collection happened in the call.
    was_enabled = gc.isenabled()
    gc.disable()
    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        result = call()
    finally:
        sys.settrace(previous)
        if was_enabled:
            gc.enable()
    return executed, result
