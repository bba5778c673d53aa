"""``kernelLog``: lines of the kernel's log. The last line that says something decides. Pure."""

from attrs import frozen

from genplug.health.thresholds import Outcome, Result
from genplug.spec.probes import KernelLogCheck
from genplug.spec.regex import Pattern, PatternError, compile_regex, render_regexes
from genplug.spec.template import Template, Values

_MAX_SHOWN = 160


@frozen(eq=False)
class LinePatterns:
    """What lines say of one device: that it is at fault, that it is not after all, that it is well again."""

    fail: tuple[Pattern, ...]
    ignore: tuple[Pattern, ...] = ()
    clear: tuple[Pattern, ...] = ()


def bind_patterns(check: KernelLogCheck, values: Values) -> LinePatterns:
    """Return the patterns for a device with these attributes.

    Raises:
        MissingAttributeError: one needs an attribute that it does not have.
        PatternError: with its attributes one cannot be read.
    """
    return LinePatterns(
        *(tuple(render_regexes(one, values)) if one else () for one in (check.fail, check.ignore, check.clear))
    )


def prefilter_patterns(check: KernelLogCheck) -> tuple[Pattern, ...]:
    """Return patterns that match whatever those of any device match: most lines are of no dependency to any."""
    return tuple(_of_any(one) for one in (check.fail, check.clear) if one is not None)


def evaluate(patterns: LinePatterns, line: str) -> Result | None:
    """Return what a line means for a device; None where it means nothing."""
    if _is_in(line, patterns.clear):
        return Result(Outcome.PASSED)
    if not _is_in(line, patterns.fail) or _is_in(line, patterns.ignore):
        return None
    shown = " ".join(line.split())
    cut = shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 3]}..."
    return Result(Outcome.FAILED, f"the kernel's log says: {cut}")


def _of_any(template: Template) -> Pattern:
    """Return a pattern that matches what the template's pattern matches with any values; at worst, every line."""
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
    """Say whether a part of an expression ends between the brackets of a class of characters."""
    is_escaped = False
    for character in text:
        if is_escaped or character == "\\":
            is_escaped = not is_escaped
        elif character in "[]":
            is_in_class = character == "["
    return is_in_class


def _is_in(line: str, patterns: tuple[Pattern, ...]) -> bool:
    return any(one.search(line) is not None for one in patterns)
