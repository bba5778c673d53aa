"""The description of a fuzzing target."""

import random
import time
import traceback
from collections.abc import Callable, Iterable
from typing import TypeAlias

from msgspec import Struct

from genplug.struct_values import hide_in_repr

Mutator: TypeAlias = Callable[[bytes, random.Random], bytes | None]
"""Returns a changed input, or None if it cannot change it."""
MAX_SECONDS = 2.0
"""Seconds of processor time after which an input counts as a hang."""


@hide_in_repr("mutate")
class Target(Struct, frozen=True):
    """A reader of genplug that gets arbitrary bytes.

    - ``run`` reads the bytes, and asserts what has to be true for the result.
    - ``allowed`` are the errors that the documentation of the reader lists; each other exception is a finding.
    - ``seeds`` returns valid inputs, with which the fuzzer begins.
    - ``words`` are parts of the format that the fuzzer inserts.
    - ``mutate`` returns an input of a similar structure, or None to let the fuzzer change single bytes.
    - ``share`` is the part of the time of a long run that the target gets, in relation to the other targets.
    - ``short_runs`` is the number of inputs of a short run.
    """

    name: str
    title: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    allowed: tuple[type[BaseException], ...] = ()
    words: tuple[str, ...] = ()
    max_bytes: int = 4096
    mutate: Mutator | None = None
    share: int = 1
    short_runs: int = 2000


class Failure(Struct, frozen=True):
    """A finding: what happened, and a text that is equal for inputs that fail at the same place."""

    summary: str
    signature: str
    trace: str


def try_input(target: Target, content: bytes) -> Failure | None:
    """Run a target with an input, and return what is wrong, or None."""
    started = time.process_time()
    try:
        target.run(content)
    except target.allowed:
        pass
    except Exception as error:  # noqa: BLE001 - each other exception is a finding
        return describe_error(error)
    seconds = time.process_time() - started
    if seconds > MAX_SECONDS:
        return Failure(f"used {seconds:.1f} s of processor time, at most {MAX_SECONDS} s are allowed", "hang", "")
    return None


def describe_error(error: Exception) -> Failure:
    """Return the finding of an exception; its signature has the type and the innermost frame of genplug."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/genplug/" in frame.filename] or list(frames)
    where = f"{own[-1].filename.rpartition('/genplug/')[2]}:{own[-1].lineno}" if own else ""
    signature = f"{type(error).__name__} {where}"
    if isinstance(error, AssertionError):
        signature = f"{signature} {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
    return Failure(f"{type(error).__name__}: {error}"[:300], signature, "".join(traceback.format_exception(error)))
