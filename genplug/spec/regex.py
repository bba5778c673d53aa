"""Regular expressions from a configuration, compiled by RE2.

RE2 takes time linear in the length of the text, so an expression cannot hang the agent. It has no look-ahead and no
back-references. Its memory for an expression is limited. Attribute values are escaped in an expression.

RE2 accepts UTF-8 only. The names of files and the messages of the kernel can contain other bytes, which Python decodes
as surrogates (PEP 383): an expression matches them as U+FFFD, the replacement character.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Protocol, TypeAlias

from msgspec import Struct

from genplug.spec.limits import (
    MAX_REGEX_CHARACTERS,
    MAX_REGEX_MEMORY_BYTES,
    MAX_REGEXES,
    MAX_RENDERED_REGEXES,
)
from genplug.spec.template import Template, Values

_SURROGATE = re.compile("[\ud800-\udfff]")


class PatternError(ValueError):
    """A regular expression that is invalid, with the message of RE2, or that exceeds a limit."""


class Match(Protocol):
    """A match of a regular expression."""

    def group(self, which: int | str = 0, /) -> str | None:
        """Return the text of a capture group, or of the whole match for 0."""
        ...


class Pattern(Protocol):
    """A compiled regular expression."""

    groups: int
    programsize: int
    """The number of instructions to which the expression is compiled."""

    def search(self, text: str, /) -> Match | None:
        """Find the first match."""
        ...

    def finditer(self, text: str, /) -> Iterator[Match]:
        """Find every match."""
        ...


class _Utf8Pattern(Struct, eq=False):
    """A pattern of RE2 for texts with surrogates, for which RE2 itself raises a UnicodeEncodeError."""

    pattern: Pattern
    groups: int
    programsize: int

    def search(self, text: str, /) -> Match | None:
        """See :meth:`Pattern.search`."""
        return self.pattern.search(_replace_surrogates(text))

    def finditer(self, text: str, /) -> Iterator[Match]:
        """See :meth:`Pattern.finditer`."""
        return self.pattern.finditer(_replace_surrogates(text))


Conditions: TypeAlias = tuple[tuple[Pattern, ...], ...]
"""Conditions that all have to be met; each is met if one of its patterns matches."""


@lru_cache(maxsize=MAX_REGEXES)
def compile_regex(text: str) -> Pattern:
    """Compile a regular expression.

    Raises:
        PatternError: it is invalid or too large.
    """
    if len(text) > MAX_REGEX_CHARACTERS:
        raise PatternError(f"it has {len(text)} characters, at most {MAX_REGEX_CHARACTERS} are allowed")
    # Imported here: a configuration without regular expressions does not load the engine.
    import re2  # noqa: PLC0415

    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_REGEX_MEMORY_BYTES
    try:
        pattern: Pattern = re2.compile(_replace_surrogates(text), options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        if "too large" in reason:
            reason = f"it needs more than {MAX_REGEX_MEMORY_BYTES >> 10} KiB of memory, the maximum ({reason})"
        raise PatternError(reason) from None
    return _Utf8Pattern(pattern, pattern.groups, pattern.programsize)


def render_regexes(template: Template, values: Values) -> Iterator[Pattern]:
    """Yield the regular expressions that a template renders to, one for each value of the attributes it refers to.

    Raises:
        MissingAttributeError: an attribute has no value and no default.
        PatternError: a rendered expression is invalid, or there are too many of them.
    """
    import re2  # noqa: PLC0415 - see compile_regex

    def escape(value: str) -> str:
        return str(re2.escape(_replace_surrogates(value)))

    texts = tuple(template.render_each(values, escape if template.names else str))
    if len(texts) > MAX_RENDERED_REGEXES:
        reason = f"at most {MAX_RENDERED_REGEXES} are allowed; use attributes with fewer values"
        raise PatternError(f"the values of its attributes give {len(texts)} expressions, {reason}")
    for text in texts:
        yield compile_regex(text)


def render_conditions(templates: Iterable[Template], values: Values) -> Conditions:
    """Return the patterns of several templates, all of which have to match.

    Raises:
        MissingAttributeError: an attribute has no value and no default.
        PatternError: a rendered expression is invalid.
    """
    return tuple(tuple(render_regexes(template, values)) for template in templates)


def matched_value(match: Match, pattern: Pattern) -> str | None:
    """Return the capture group named ``value``, else the first group, else the whole match."""
    try:
        return match.group("value")
    except IndexError:
        return match.group(1 if pattern.groups else 0)


def _replace_surrogates(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
