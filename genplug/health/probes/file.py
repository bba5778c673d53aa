"""``file``: the text of a file of the host, or of all that a glob finds, compared with what is wanted.

A question is ``("file", "glob" or "", path, ...)``; its answer has for each path the files found, each with its text or
an errno.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from genplug.health.probes.compare import NotANumberError, mismatch_reason, parse_number
from genplug.health.probes.counter import CounterHistory, add_sample, increase_in_window
from genplug.health.thresholds import Outcome, Result, worst_result
from genplug.health.workers.file_reader import NOT_A_FILE, CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.globs import Glob, escape_glob, has_magic
from genplug.spec.probes import FileCheck, OnMissing
from genplug.spec.regex import compile_regex, matched_value
from genplug.spec.template import Values

Texts: TypeAlias = tuple[tuple[str, str | int], ...]
Answer: TypeAlias = tuple[tuple[str, Texts], ...]
Memory: TypeAlias = Mapping[str, CounterHistory]
"""The counters of each file."""

GLOB = "glob"
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors that mean that there is no such file."""


def make_request(check: FileCheck, values: Values) -> ProbeRequest:
    """Return the question for a device with these attributes.

    Raises:
        MissingAttributeError: the path needs one that it does not have.
    """
    is_glob = any(isinstance(part, str) and has_magic(part) for part in check.path.parts)
    return ("file", GLOB if is_glob else "", *check.path.render_each(values, escape_glob if is_glob else str))


def run(question: ProbeRequest, eyes: CachedFileReader, _timeout: float) -> Answer:
    """Read the files; runs in a worker, and may never return."""
    is_glob = question[1] == GLOB
    return tuple((path, tuple(_texts(path, eyes, is_glob=is_glob))) for path in question[2:])


def evaluate(check: FileCheck, answer: Answer, memory: Memory | None, now: float) -> tuple[Result, Memory]:
    """Return what the texts mean. Pure; ``now`` is monotonic seconds."""
    kept = dict(memory or {})
    results = [_missing(check, pattern) for pattern, texts in answer if not texts]
    for _, texts in answer:
        for path, text in texts:
            if isinstance(text, int):
                reason = "it is not a regular file" if text == NOT_A_FILE else os.strerror(text)
                results.append(Result(Outcome.ERROR, f"{path} cannot be read: {reason}"))
            else:
                results.append(_compared(check, path, text, kept, now))
    return _together(check, results), kept


def has_increased(memory: Memory | None) -> bool:
    """Say whether a counter has risen within its window, so that the rise will be over some time."""
    return any(history.samples[0][1] != history.total for history in (memory or {}).values())


def _texts(written: str, eyes: CachedFileReader, *, is_glob: bool) -> Iterator[tuple[str, str | int]]:
    for path in eyes.host.glob(Glob.parse(written)).paths if is_glob else (written,):
        text = eyes.text(path)
        if text == errno.EINVAL and path.endswith("/carrier"):
            # An interface that is down refuses to say (net/core/net-sysfs.c): it has no carrier.
            text = "0"
        if text not in _MISSING:
            yield path, text


def _missing(check: FileCheck, pattern: str) -> Result:
    match check.missing:
        case OnMissing.OK:
            return Result(Outcome.PASSED)
        case OnMissing.FAIL:
            return Result(Outcome.FAILED, f"{pattern} is not there")
        case OnMissing.ERROR:
            return Result(Outcome.ERROR, f"{pattern} is not there")


def _compared(check: FileCheck, path: str, text: str, kept: dict[str, CounterHistory], now: float) -> Result:
    value = text
    if check.find is not None:
        pattern = compile_regex(check.find)
        found = pattern.search(text)
        taken = matched_value(found, pattern) if found is not None else None
        if taken is None:
            return Result(Outcome.ERROR, f"{path}: nothing in it matches '{check.find}'")
        value = taken
    try:
        said = mismatch_reason(value, check.expected)
        if not said and check.counter is not None:
            said = _risen(check, path, parse_number(value), kept, now)
    except NotANumberError as error:
        return Result(Outcome.ERROR, f"{path} {error}")
    return Result(Outcome.FAILED, f"{path} {said}") if said else Result(Outcome.PASSED)


def _risen(check: FileCheck, path: str, value: float, kept: dict[str, CounterHistory], now: float) -> str:
    if check.counter is None:
        return ""
    history = kept[path] = add_sample(kept.get(path), value, now, check.counter.window_seconds)
    rise = increase_in_window(history, now, check.counter.window_seconds)
    if rise <= check.counter.max_increase:
        return ""
    most, seconds = check.counter.max_increase, check.counter.window_seconds
    return f"is {value:g}, {rise:g} more within {seconds:g} s, wanted at most {most:g} more"


def _together(check: FileCheck, results: list[Result]) -> Result:
    """Return one result of all files: the worst where all have to be well; of any, one that is well is enough."""
    if not check.require_all:
        for outcome in (Outcome.PASSED, Outcome.ERROR):
            if (found := next((one for one in results if one.outcome is outcome), None)) is not None:
                return found
    return worst_result(results)
