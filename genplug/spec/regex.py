"""Regular expressions of an operator: RE2, whose time is linear in the text, so that none can hang the program.

RE2 has no look-ahead and no back-references. Values of attributes stand for themselves in an expression.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

from genplug.spec.template import Template, Values


class PatternError(ValueError):
    """An expression that RE2 does not read; the text says what is wrong with it."""


class Match(Protocol):
    """Where an expression matched."""

    def group(self, which: int | str = 0, /) -> str | None:
        """Return the text of a capture, or of all for 0."""
        ...


class Pattern(Protocol):
    """A compiled expression."""

    groups: int

    def search(self, text: str, /) -> Match | None:
        """Find the first match."""
        ...

    def finditer(self, text: str, /) -> Iterator[Match]:
        """Find every match."""
        ...


@lru_cache(maxsize=4096)
def compile_regex(text: str) -> Pattern:
    """Compile an expression.

    Raises:
        PatternError: it cannot be read.
    """
    # Imported here: only who writes a regular expression pays for the engine.
    import re2  # noqa: PLC0415

    options = re2.Options()
    options.log_errors = False
    try:
        pattern: Pattern = re2.compile(text, options)
    except re2.error as error:
        raise PatternError(
            error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        ) from None
    return pattern


def render_regexes(template: Template, values: Values) -> Iterator[Pattern]:
    """Yield an expression's template as expressions, one for each value of the names used.

    Raises:
        MissingAttributeError: a name has no value and no default.
        PatternError: with these values it cannot be read.
    """
    import re2  # noqa: PLC0415 - see compiled

    for text in template.render_each(values, re2.escape if template.names else str):
        yield compile_regex(text)


def matched_value(match: Match, pattern: Pattern) -> str | None:
    """Return what a match says: the capture named ``value``, else the first capture, else all of it."""
    try:
        return match.group("value")
    except IndexError:
        return match.group(1 if pattern.groups else 0)
