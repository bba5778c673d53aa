"""``file``: the text of a file of the host, or of every file that a glob matches, meets conditions.

A request is ``("file", "glob" or "", path, ...)``, with the paths of other files whose values are limits at the end.
:func:`restrict` adds the policy to its second part: the name of the policy and its globs, after NUL characters.
Its answer has for each path the files that exist, each with its text or an errno.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

from msgspec import Struct, field

from genplug.hardware.inventory import Device
from genplug.health.counter import CounterHistory, CounterLimit, add_sample
from genplug.health.probe_kind import Denial, Effect, OptionsDecoder, Polling, ProbeKind
from genplug.health.thresholds import Outcome, Result, worst_result
from genplug.health.value_check import Comparison, NotANumberError, ValueCheck, parse_number
from genplug.health.workers.file_reader import NOT_A_FILE, CachedFileReader, ReadRefusedError
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.globs import Glob, escape_glob
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.privileges import ProbeNeed, find_read_needs
from genplug.spec.probes import Check
from genplug.spec.read_checks import literal_read_error
from genplug.spec.read_rules import ReadRules, parse_read_rules
from genplug.spec.regex import compile_regex, matched_value
from genplug.spec.template import Template, Values, combine_values, list_members

Texts: TypeAlias = tuple[tuple[str, str | int], ...]
Answer: TypeAlias = tuple[tuple[str, Texts], ...]
Memory: TypeAlias = Mapping[str, CounterHistory]
"""The history of the counter in each file."""

_GLOB = "glob"
_NUL = "\0"
_SEPARATOR = ""
"""Precedes the paths of each limit in a request, and their texts in an answer."""
_LENGTH_OF_ONE_PATH = 3
"""The length of a request for one file without limits."""
_LIMITS: Mapping[str, Comparison] = {"equalsFile": "equals", "minFile": "min", "maxFile": "max"}
"""The options that name another file, with the options that have the value itself."""
_NOT_WITH_EXISTS = (
    *("find", "equals", "notEquals", "matches", "notMatches", "min", "max", "bitsClear", "maxIncrease", "perSeconds"),
    *("equalsFile", "minFile", "maxFile", "missing", "nonNumeric"),
)
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors that mean that the file does not exist."""


class Otherwise(StrEnum):
    """The result for a file that does not exist (``missing``), or for a value that is not a number (``nonNumeric``)."""

    ERROR = "error"
    FAIL = "fail"
    OK = "ok"


class FileCheck(Check, frozen=True):
    """Paths or globs, the part of each text that is the value, and the conditions on all values or on any value.

    ``limits`` are pairs of an option of :data:`_LIMITS` and the path of another file, whose value is compared.
    With ``must_not_exist``, a file that exists is a failure.
    """

    path: Template
    find: str | None = None
    expected: ValueCheck = field(default_factory=ValueCheck)
    counter: CounterLimit | None = None
    require_all: bool = True
    missing: Otherwise = Otherwise.ERROR
    non_numeric: Otherwise = Otherwise.ERROR
    must_not_exist: bool = False
    limits: tuple[tuple[str, Template], ...] = ()


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
    limits = tuple(_decode_limits(options))
    if options.has("exists"):
        _reject_with_exists(options)
    if path is None:
        return None
    exists = options.text("exists")
    return FileCheck(
        path,
        find,
        expected,
        counter,
        require_all=options.text("require") != "any",
        missing=Otherwise.FAIL if exists == "true" else _decode_otherwise(options, "missing"),
        non_numeric=_decode_otherwise(options, "nonNumeric"),
        must_not_exist=exists == "false",
        limits=limits,
    )


def make_request(check: FileCheck, device: Device) -> ProbeRequest:
    """Return the request for a device.

    Raises:
        MissingAttributeError: it lacks an attribute that the path needs.
    """
    is_glob, values = check.path.has_glob, device.attributes
    escape = escape_glob if is_glob else str
    if not check.limits:
        return ("file", _GLOB if is_glob else "", *check.path.render_each(values, escape))
    templates = [template for _, template in check.limits]
    names = frozenset[str]().union(check.path.names, *(template.names for template in templates)) & values.keys()
    # A file and its limits have the values of the same candidate.
    members = [member for member in list_members(values) if names <= member.keys()] or [values]
    columns: list[list[str]] = [[] for _ in range(1 + len(templates))]
    for member in members:
        found = [_render_all(check.path, member, escape), *(_render_all(limit, member) for limit in templates)]
        for column, paths in zip(columns, found, strict=True):
            column.extend(paths * len(found[0]) if len(paths) == 1 else paths)
    limits = (path for column in columns[1:] for path in (_SEPARATOR, *column))
    return ("file", _GLOB if is_glob else "", *columns[0], *limits)


def _render_all(template: Template, values: Values, escape: Callable[[str], str] = str) -> list[str]:
    """Return the text for each combination of values, with repeats: the position of a text counts."""
    return [template.render(selected, escape) for selected in combine_values((template,), values)]


def run(request: ProbeRequest, reader: CachedFileReader, _timeout: float) -> Answer:
    """Return the texts of the files; runs in a worker, and may hang.

    Raises:
        PermissionError: the policy does not allow to read a file.
    """
    has_globs, rules = _parse_rules(request[1])
    if len(request) == _LENGTH_OF_ONE_PATH and not has_globs:
        # Fast path: most probes read one file.
        path = request[2]
        if not reader.is_allowed(path, rules.rules):
            raise rules.refuse(path)
        text = _read_text(path, reader, rules)
        return ((path, () if text in _MISSING else ((path, text),)),)
    first_limit = request.index(_SEPARATOR, 2) if _SEPARATOR in request[2:] else len(request)
    return tuple(
        (path, tuple(_read_texts(path, reader, rules, is_glob=has_globs and index < first_limit)) if path else ())
        for index, path in enumerate(request[2:], 2)
    )


def restrict(request: ProbeRequest, policy: Policy) -> ProbeRequest:
    """Return a request with the files that a policy allows to read."""
    globs = (glob.text for glob in policy.read.globs)
    # All requests under a policy share the text: it is kept, sent and parsed once.
    return (request[0], sys.intern(_NUL.join((request[1], policy.name, *globs))), *request[2:])


@lru_cache(maxsize=64)
def _parse_rules(text: str) -> "tuple[bool, _Rules]":
    """Return whether the paths of a request are globs, and the files that it may read, from its second part."""
    mode, *policy = text.split(_NUL)
    return mode == _GLOB, _Rules(policy[0], parse_read_rules(tuple(policy[1:]))) if policy else _DEFAULT_RULES


def evaluate(check: FileCheck, answer: Answer, memory: Memory | None, now: float) -> tuple[Result, Memory]:
    """Return the result of the texts, and the histories of the counters. Pure; ``now`` is monotonic seconds."""
    histories = dict(memory or {})
    checked, *limits = _split_answer(answer)
    results = []
    for index, (pattern, texts) in enumerate(checked):
        expected = _compare_with_limits(check, limits, index, len(checked))
        if check.must_not_exist:
            results += [Result(Outcome.FAILED, f"{path} exists, expected no such file") for path, _ in texts]
        elif not texts:
            results.append(_evaluate_missing(check, pattern))
        elif isinstance(expected, Result):
            results.append(expected)
        else:
            results += [_evaluate_file(check, expected, path, text, histories, now) for path, text in texts]
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


def _decode_otherwise(options: OptionsDecoder, option: str) -> Otherwise:
    value = options.text(option)
    return Otherwise(value) if value in list(Otherwise) else Otherwise.ERROR


def _decode_limits(options: OptionsDecoder) -> Iterator[tuple[str, Template]]:
    for option, value in _LIMITS.items():
        if options.has(option) and options.has(value):
            options.reject(option, f"{option!r} and {value!r} are both set", f"remove {option!r} or {value!r}")
        if (path := options.path(option)) is not None:
            yield option, path


def _reject_with_exists(options: OptionsDecoder) -> None:
    for option in filter(options.has, _NOT_WITH_EXISTS):
        hint = "remove 'exists', or use another probe for the content of the file"
        options.reject(option, f"{option!r} has no effect with 'exists'", hint)


def _split_answer(answer: Answer) -> list[list[tuple[str, Texts]]]:
    """Return the texts of the checked files, then the texts of each limit."""
    parts: list[list[tuple[str, Texts]]] = [[]]
    for path, texts in answer:
        if path == _SEPARATOR:
            parts.append([])
        else:
            parts[-1].append((path, texts))
    return parts


def _compare_with_limits(
    check: FileCheck, limits: Sequence[Sequence[tuple[str, Texts]]], index: int, count: int
) -> ValueCheck | Result:
    """Return the conditions with the values of other files, or the result if such a file has no value.

    Of several files, the file at the same index is meant: both paths have the values of the same attributes, in order.
    """
    expected = check.expected
    for (option, template), files in zip(check.limits, limits, strict=True):
        if len(files) not in {1, count}:
            text = f"{template.text!r} has {len(files)} values for {count} files, expected 1 or {count}"
            return Result(Outcome.ERROR, text)
        path, texts = files[index if len(files) == count else 0]
        if not texts:
            return _evaluate_missing(check, path)
        text_or_errno = texts[0][1]
        if isinstance(text_or_errno, int):
            return _read_error(path, text_or_errno)
        try:
            expected = expected.with_limit(_LIMITS[option], text_or_errno, path)
        except NotANumberError as not_a_number:
            return _evaluate_otherwise(check.non_numeric, f"{path} {not_a_number}")
    return expected


class _Rules(Struct, frozen=True):
    """The files that a policy allows to read, and the name of the policy for messages."""

    policy: str
    rules: ReadRules

    def refuse(self, path: str) -> PermissionError:
        """Return the error for a path that must not be read."""
        allowed = ", ".join(glob.text for glob in self.rules.globs) or "nothing"
        return PermissionError(f"reading {path} is refused by 'read.allow' of {self.policy}, which allows {allowed}")


_DEFAULT_RULES = _Rules(DEFAULT_POLICY.name, DEFAULT_POLICY.read)


def _read_texts(
    written: str, reader: CachedFileReader, rules: _Rules, *, is_glob: bool
) -> Iterator[tuple[str, str | int]]:
    glob = Glob.parse(written) if is_glob else None
    is_possible = rules.rules.may_allow_match(glob) if glob is not None else rules.rules.allows(written)
    if not is_possible:
        raise rules.refuse(written)
    for path in reader.host.glob(glob).paths if glob is not None else (written,):
        if glob is not None and not rules.rules.allows(path):
            if not rules.rules.names(path):
                # As if it did not exist: the result must not reveal which files exist.
                continue
            raise rules.refuse(path)
        text = _read_text(path, reader, rules)
        if text not in _MISSING:
            yield path, text


def _read_text(path: str, reader: CachedFileReader, rules: _Rules) -> str | int:
    """Return the text of a file or an errno."""
    try:
        text = reader.text(path, rules.rules)
    except ReadRefusedError as error:
        raise rules.refuse(f"{path}, which leads to {error.filename},") from None
    if text == errno.EINVAL and path.endswith("/carrier"):
        # The kernel refuses this read for an interface that is down (net/core/net-sysfs.c), which has no carrier.
        return "0"
    return text


def _evaluate_missing(check: FileCheck, pattern: str) -> Result:
    return _evaluate_otherwise(check.missing, f"{pattern} does not exist")


def _evaluate_otherwise(otherwise: Otherwise, reason: str) -> Result:
    match otherwise:
        case Otherwise.OK:
            return Result(Outcome.PASSED)
        case Otherwise.FAIL:
            return Result(Outcome.FAILED, reason)
        case Otherwise.ERROR:
            return Result(Outcome.ERROR, reason)


def _read_error(path: str, number: int) -> Result:
    reason = "it is not a regular file" if number == NOT_A_FILE else os.strerror(number)
    return Result(Outcome.ERROR, f"{path} cannot be read: {reason}")


def _evaluate_file(  # noqa: PLR0913, PLR0917 - a file with its conditions and its history
    check: FileCheck, expected: ValueCheck, path: str, text: str | int, histories: dict[str, CounterHistory], now: float
) -> Result:
    if isinstance(text, int):
        return _read_error(path, text)
    value = text
    if check.find is not None:
        pattern = compile_regex(check.find)
        match = pattern.search(text)
        found = matched_value(match, pattern) if match is not None else None
        if found is None:
            return Result(Outcome.ERROR, f"{path}: no match of '{check.find}' in the text")
        value = found
    try:
        error = expected.error(value)
        if not error and check.counter is not None:
            error = _counter_error(check.counter, path, parse_number(value), histories, now)
    except NotANumberError as not_a_number:
        return _evaluate_otherwise(check.non_numeric, f"{path} {not_a_number}")
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


def _denial(check: FileCheck, policy: Policy) -> Denial | None:
    for option, template in (("path", check.path), *check.limits):
        if error := literal_read_error(template, policy):
            return Denial(f"reading {template.text!r} is {error}", option)
    return None


def _needs(check: FileCheck) -> Iterator[ProbeNeed]:
    for path in (check.path.text, *(limit.text for _, limit in check.limits)):
        yield from find_read_needs(path)


KIND = ProbeKind(
    "file",
    FileCheck,
    decode,
    denial=_denial,
    restrict=restrict,
    polling=Polling(make_request, run, evaluate, Effect.READ, changes_with_time=_has_increased),
    default_name=_default_name,
    needs=_needs,
)
