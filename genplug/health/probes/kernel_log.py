"""``kernelLog``: records of the kernel log; the last record with a result for the device decides. Pure."""

from functools import lru_cache

from msgspec import Struct

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import EventStream, Listening, OptionsDecoder, ProbeKind
from genplug.health.thresholds import Outcome, Result
from genplug.health.value_check import shorten
from genplug.spec.privileges import NeedKind, ProbeNeed
from genplug.spec.probes import Check
from genplug.spec.regex import Conditions, Pattern, PatternError, compile_regex, render_conditions
from genplug.spec.template import Template

_MAX_SHOWN_CHARACTERS = 160


class KernelLogCheck(Check, frozen=True):
    """Templates of patterns: of records that are a failure, of exceptions from them, and of records that end it.

    All patterns of an option have to match the same record.
    """

    fail: tuple[Template, ...]
    ignore: tuple[Template, ...] = ()
    clear: tuple[Template, ...] = ()

    @property
    def implied_attributes(self) -> frozenset[str]:
        """The attributes that it needs besides those in its templates: a driver bound there ends a failure."""
        return frozenset({"sysfs"})


class RecordPatterns(Struct, frozen=True, eq=False):
    """The patterns of records for one device: failures, exceptions from them, and the end of failures."""

    fail: Conditions
    ignore: Conditions = ()
    clear: Conditions = ()


def decode(options: OptionsDecoder) -> KernelLogCheck | None:
    """Return the check that the options describe, or None if ``fail`` is invalid."""
    fail, ignore, clear = (options.regex_templates(option) for option in ("fail", "ignore", "clear"))
    return KernelLogCheck(fail, ignore, clear) if fail else None


def bind(check: KernelLogCheck, device: Device) -> RecordPatterns:
    """Return the patterns for a device.

    Raises:
        MissingAttributeError: it lacks an attribute that a pattern needs.
        PatternError: with its attributes, a pattern is not a regular expression.
    """
    return RecordPatterns(
        *(render_conditions(templates, device.attributes) for templates in (check.fail, check.ignore, check.clear))
    )


def may_concern(check: KernelLogCheck, record: str) -> bool:
    """Return whether a record may match the patterns of a device; most records do not."""
    return any(_matches(record, conditions) for conditions in _prefilter(check))


def evaluate(patterns: RecordPatterns, record: str) -> Result | None:
    """Return the result of a record for a device, or None if the record does not concern it."""
    if _matches(record, patterns.clear):
        return Result(Outcome.PASSED)
    if not _matches(record, patterns.fail) or _matches(record, patterns.ignore):
        return None
    return Result(Outcome.FAILED, f"the kernel logged: {shorten(record, _MAX_SHOWN_CHARACTERS)}")


@lru_cache(maxsize=1024)
def _prefilter(check: KernelLogCheck) -> tuple[Conditions, ...]:
    """Return conditions of which every record that the patterns of a device match meets one."""
    return tuple(
        tuple((_match_any_values(template),) for template in templates) for templates in (check.fail, check.clear)
    )


def _match_any_values(template: Template) -> Pattern:
    """Return a pattern that matches all matches of a template with any values; in the worst case, every text."""
    text, is_in_class = "", False
    for part in template.parts:
        if isinstance(part, str):
            text += part
            is_in_class = _ends_in_class(part, is_in_class=is_in_class)
        elif is_in_class:
            return compile_regex("")
        else:
            text += "(?:.*)"
    try:
        return compile_regex(text)
    except PatternError:
        return compile_regex("")


def _ends_in_class(text: str, *, is_in_class: bool) -> bool:
    """Return whether a part of an expression ends inside a character class (``[...]``)."""
    is_escaped = False
    for character in text:
        if is_escaped or character == "\\":
            is_escaped = not is_escaped
        elif character in "[]":
            is_in_class = character == "["
    return is_in_class


def _matches(record: str, conditions: Conditions) -> bool:
    return bool(conditions) and all(
        any(pattern.search(record) is not None for pattern in patterns) for patterns in conditions
    )


def _needs(_check: KernelLogCheck) -> tuple[ProbeNeed, ...]:
    return (ProbeNeed(NeedKind.KERNEL_LOG, "reads the kernel log, which needs the capability SYSLOG"),)


KIND = ProbeKind(
    "kernelLog",
    KernelLogCheck,
    decode,
    listening=Listening(EventStream.KERNEL_LOG, bind, evaluate, may_concern),
    needs=_needs,
)
