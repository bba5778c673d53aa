"""``file``: the text of a file of the host, or of every file that a glob matches, meets conditions.

A request is ``("file", "glob" or "", path, ...)``.
Its answer has for each path the files that exist, each with its text or an errno.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import TypeAlias

from attrs import field, frozen

from genplug.hardware.inventory import Device
from genplug.health.counter import CounterHistory, CounterLimit, add_sample
from genplug.health.probe_kind import Effect, OptionsDecoder, Polling, ProbeKind
from genplug.health.thresholds import Outcome, Result, worst_result
from genplug.health.value_check import NotANumberError, ValueCheck, parse_number
from genplug.health.workers.file_reader import NOT_A_FILE, CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.globs import Glob, escape_glob
from genplug.spec.probes import Check
from genplug.spec.regex import compile_regex, matched_value
from genplug.spec.template import Template

Texts: TypeAlias = tuple[tuple[str, str | int], ...]
Answer: TypeAlias = tuple[tuple[str, Texts], ...]
Memory: TypeAlias = Mapping[str, CounterHistory]
"""The history of the counter in each file."""

_GLOB = "glob"
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors that mean that the file does not exist."""


class OnMissing(StrEnum):
    """The result for a file that does not exist (``file.missing``)."""

    ERROR = "error"
    FAIL = "fail"
    OK = "ok"


@frozen
class FileCheck(Check):
    """Paths or globs, the part of each text that is the value, and the conditions on all values or on any value."""

    path: Template
    find: str | None = None
    expected: ValueCheck = field(factory=ValueCheck)
    counter: CounterLimit | None = None
    require_all: bool = True
    missing: OnMissing = OnMissing.ERROR


def decode(options: OptionsDecoder) -> FileCheck | None:
    """Return the check that the options describe, or None if the path is invalid."""
    path = options.path("path", is_glob=True)
    find = options.regex("find")
    expected = ValueCheck(
        equals=options.text("equals"),
        not_equals=options.text("notEquals"),
        matches=options.regex("matches"),
        not_matches=options.regex("notMatches"),
        minimum=options.quantity("min"),
        maximum=options.quantity("max"),
        bits_clear=options.bit_mask("bitsClear"),
    )
    if expected.minimum and expected.maximum and expected.minimum[0] > expected.maximum[0]:
        options.reject("min", "'min' is greater than 'max', so that no number passes", "swap the two values")
    counter = _decode_counter(options)
    if path is None:
        return None
    missing = options.text("missing")
    return FileCheck(
        path,
        find,
        expected,
        counter,
        require_all=options.text("require") != "any",
        missing=OnMissing(missing) if missing in list(OnMissing) else OnMissing.ERROR,
    )


def make_request(check: FileCheck, device: Device) -> ProbeRequest:
    """Return the request for a device.

    Raises:
        MissingAttributeError: it lacks an attribute that the path needs.
    """
    is_glob = check.path.has_glob
    paths = check.path.render_each(device.attributes, escape_glob if is_glob else str)
    return ("file", _GLOB if is_glob else "", *paths)


def run(request: ProbeRequest, reader: CachedFileReader, _timeout: float) -> Answer:
    """Return the texts of the files; runs in a worker, and may hang."""
    is_glob = request[1] == _GLOB
    return tuple((path, tuple(_read_texts(path, reader, is_glob=is_glob))) for path in request[2:])


def evaluate(check: FileCheck, answer: Answer, memory: Memory | None, now: float) -> tuple[Result, Memory]:
    """Return the result of the texts, and the histories of the counters. Pure; ``now`` is monotonic seconds."""
    histories = dict(memory or {})
    results = [_evaluate_missing(check, pattern) for pattern, texts in answer if not texts]
    for _, texts in answer:
        for path, text in texts:
            if isinstance(text, str):
                results.append(_evaluate_text(check, path, text, histories, now))
            else:
                reason = "it is not a regular file" if text == NOT_A_FILE else os.strerror(text)
                results.append(Result(Outcome.ERROR, f"{path} cannot be read: {reason}"))
    return _combine(check, results), histories


def _decode_counter(options: OptionsDecoder) -> CounterLimit | None:
    hint = "a counter may increase by at most 'maxIncrease' within 'perSeconds'"
    keys = ("maxIncrease", "perSeconds")
    for key, other in (keys, keys[::-1]):
        if options.has(key) and not options.has(other):
            options.require(key, other, hint)
    if not all(map(options.has, keys)):
        return None
    return CounterLimit(*(options.number(key, 0) for key in keys))


def _read_texts(written: str, reader: CachedFileReader, *, is_glob: bool) -> Iterator[tuple[str, str | int]]:
    for path in reader.host.glob(Glob.parse(written)).paths if is_glob else (written,):
        text = reader.text(path)
        if text == errno.EINVAL and path.endswith("/carrier"):
            # The kernel refuses this read for an interface that is down (net/core/net-sysfs.c), which has no carrier.
            text = "0"
        if text not in _MISSING:
            yield path, text


def _evaluate_missing(check: FileCheck, pattern: str) -> Result:
    match check.missing:
        case OnMissing.OK:
            return Result(Outcome.PASSED)
        case OnMissing.FAIL:
            return Result(Outcome.FAILED, f"{pattern} does not exist")
        case OnMissing.ERROR:
            return Result(Outcome.ERROR, f"{pattern} does not exist")


def _evaluate_text(check: FileCheck, path: str, text: str, histories: dict[str, CounterHistory], now: float) -> Result:
    value = text
    if check.find is not None:
        pattern = compile_regex(check.find)
        match = pattern.search(text)
        found = matched_value(match, pattern) if match is not None else None
        if found is None:
            return Result(Outcome.ERROR, f"{path}: no match of '{check.find}' in the text")
        value = found
    try:
        error = check.expected.error(value)
        if not error and check.counter is not None:
            error = _counter_error(check.counter, path, parse_number(value), histories, now)
    except NotANumberError as not_a_number:
        return Result(Outcome.ERROR, f"{path} {not_a_number}")
    return Result(Outcome.FAILED, f"{path} {error}") if error else Result(Outcome.PASSED)


def _counter_error(
    limit: CounterLimit, path: str, value: float, histories: dict[str, CounterHistory], now: float
) -> str:
    history = histories[path] = add_sample(histories.get(path), value, now, limit.window_seconds)
    increase = history.increase(now, limit.window_seconds)
    if increase <= limit.max_increase:
        return ""
    return (
        f"is {value:g}, an increase of {increase:g} within {limit.window_seconds:g} s, "
        f"expected at most {limit.max_increase:g}"
    )


def _combine(check: FileCheck, results: list[Result]) -> Result:
    """Return the worst result if all files have to pass; else the best, where an error precedes a failure."""
    if not check.require_all:
        for outcome in (Outcome.PASSED, Outcome.ERROR):
            for result in results:
                if result.outcome is outcome:
                    return result
    return worst_result(results)


def _has_increased(memory: Memory | None) -> bool:
    return any(history.has_increased for history in (memory or {}).values())


def _default_name(check: FileCheck) -> str:
    """Return the name of the file, or an empty text if it depends on the device."""
    name = check.path.text.rstrip("/").rpartition("/")[2]
    return "" if set(name) & set("*?[]{}$") else name


KIND = ProbeKind(
    "file",
    FileCheck,
    decode,
    polling=Polling(make_request, run, evaluate, Effect.READ, changes_with_time=_has_increased),
    default_name=_default_name,
)
