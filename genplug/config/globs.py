"""Globs over absolute paths: ``*``, ``?``, ``[...]``, ``{a,b}`` and ``**``. Pure; ``Host.glob`` walks with them.

A pattern is checked when it is read: a mistake in it is an error at load and never a resource that stays empty.
As in a shell, a wildcard does not match a leading dot, and nothing but ``**`` crosses a slash.
"""

import fnmatch
import re
from collections.abc import Iterator
from functools import lru_cache

import bracex
from attrs import field, frozen

MOST_ALTERNATIVES = 1000
"""How many patterns one pattern's braces may expand to."""

_MAGIC = re.compile(r"[*?[]")


class GlobError(ValueError):
    """A pattern that means nothing; ``offset`` is where in it (characters, from 0), ``hint`` what to write instead."""

    def __init__(self, message: str, offset: int, hint: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.hint = hint


@frozen
class Segment:
    """One part of a path between slashes: a literal name, a pattern for one name, or any number of folders (``**``)."""

    text: str
    regex: re.Pattern[str] | None = None
    is_any_depth: bool = False

    @property
    def is_literal(self) -> bool:
        """Whether only the very name ``text`` matches."""
        return self.regex is None and not self.is_any_depth

    def matches(self, name: str) -> bool:
        """Say whether a file of this name matches."""
        if self.regex is None:
            return not self.is_any_depth and name == self.text
        if name.startswith(".") and not self.text.startswith("."):
            return False
        return self.regex.match(name) is not None


@frozen
class Glob:
    """A parsed pattern: ``text`` as written, and its brace-free ``alternatives``, each a tuple of segments."""

    text: str
    alternatives: tuple[tuple[Segment, ...], ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "Glob":
        """Read a pattern.

        Raises:
            GlobError: it is relative, empty, unbalanced, climbs with ``..`` or expands without bound.
        """
        if not text.startswith("/"):
            raise GlobError("a glob must be an absolute path", 0, f"write '/dev/{text}' if that is what you mean")
        _check_balance(text)
        try:
            patterns = bracex.expand(text, limit=MOST_ALTERNATIVES)
        except bracex.ExpansionLimitException:
            raise GlobError(f"the braces expand to more than {MOST_ALTERNATIVES} patterns", text.index("{")) from None
        return cls(text, tuple(dict.fromkeys(_segments(pattern, text) for pattern in patterns)))

    def matches(self, path: str) -> bool:
        """Say whether an absolute path matches, by its text alone."""
        names = tuple(part for part in path.split("/") if part)
        return any(_matches(segments, names) for segments in self.alternatives)

    def __iter__(self) -> Iterator[tuple[Segment, ...]]:
        return iter(self.alternatives)


def has_magic(text: str) -> bool:
    """Say whether a text holds anything that a glob would expand."""
    return bool(_MAGIC.search(text)) or "{" in text


def _segments(pattern: str, text: str) -> tuple[Segment, ...]:
    if not pattern.startswith("/"):
        raise GlobError(f"one alternative, {pattern!r}, is not an absolute path", 0)
    names = [name for name in pattern.split("/") if name]
    if not names:
        raise GlobError("the root directory is no device", 0)
    if ".." in names:
        raise GlobError("'..' may not stand in a glob", max(text.find(".."), 0), "write the path without it")
    return tuple(_segment(name, text) for name in names)


@lru_cache(maxsize=4096)
def _segment(name: str, text: str) -> Segment:
    if name == "**":
        return Segment(name, is_any_depth=True)
    if "**" in name:
        hint = "write '**/' for any number of folders, '*' for any name"
        raise GlobError("'**' must stand alone between slashes", text.index("**"), hint)
    if not _MAGIC.search(name):
        return Segment(name)
    return Segment(name, re.compile(fnmatch.translate(name)))


def _matches(segments: tuple[Segment, ...], names: tuple[str, ...]) -> bool:
    if not segments:
        return not names
    head, rest = segments[0], segments[1:]
    if head.is_any_depth:
        return any(_matches(rest, names[skipped:]) for skipped in range(len(names) + 1))
    return bool(names) and head.matches(names[0]) and _matches(rest, names[1:])


def _check_balance(text: str) -> None:
    depth, opened, position = 0, 0, 0
    while position < len(text):
        character = text[position]
        if character == "[":
            # As fnmatch reads it: a ']' right after '[' or '[!' is a member, not the end.
            start = position + (2 if text[position + 1 : position + 2] == "!" else 1)
            end = text.find("]", start + 1)
            if end < 0 or "/" in text[position:end]:
                raise GlobError("'[' without a ']'", position, "write '[[]' for a literal '['")
            position = end
        elif character == "{":
            depth, opened = depth + 1, position
        elif character == "}":
            depth -= 1
            if depth < 0:
                raise GlobError("'}' without a '{'", position)
        position += 1
    if depth:
        raise GlobError("'{' without a '}'", opened)
