"""Globs over absolute paths: ``*``, ``?``, ``[...]``, ``{a,b}`` and ``**``. Pure; ``Host.glob`` searches with them.

A glob is checked when it is parsed, so an invalid glob is a load error and not a resource without devices. As in a
shell, a wildcard does not match a leading dot, and only ``**`` matches a slash.
"""

import fnmatch
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from msgspec import Struct

from genplug.spec.limits import MAX_EXPANDED_CHARACTERS, MAX_GLOB_ALTERNATIVES, MAX_GLOB_CHARACTERS
from genplug.spec.location import TextSyntaxError
from genplug.struct_values import hide_in_repr

_MAGIC = re.compile(r"[*?[]")
_LITERAL_START = re.compile(r"[^*?[]*")
_RANGE = re.compile(r"([^-])-(.)")
_NARROW = "write '*' or '[0-9]' in place of a range, and exclude paths with 'exclude' or 'where'"


class GlobError(TextSyntaxError):
    """An invalid glob."""


class Segment(Struct, frozen=True):
    """A path segment: a literal name, a pattern for one name, or any number of directories (``**``).

    ``ends`` is the text before and after the only wildcard of a pattern, if that is ``*``: most patterns are of this
    kind, and need no regular expression. ``regex`` is that of any other pattern.
    """

    text: str
    ends: tuple[str, str] | None = None
    regex: re.Pattern[str] | None = None
    is_any_depth: bool = False

    @property
    def is_literal(self) -> bool:
        """Whether only the name ``text`` matches."""
        return self.ends is None and self.regex is None and not self.is_any_depth

    @property
    def literal_start(self) -> str:
        """The text with which every name begins that matches."""
        return _LITERAL_START.match(self.text)[0]  # type: ignore[index]

    def matches(self, name: str) -> bool:
        """Return whether a file name matches."""
        if self.is_literal:
            return name == self.text
        if self.is_any_depth or (name.startswith(".") and not self.text.startswith(".")):
            return False
        if self.ends is None:
            return self.regex is not None and self.regex.match(name) is not None
        start, end = self.ends
        return len(name) >= len(start) + len(end) and name.startswith(start) and name.endswith(end)


@hide_in_repr("alternatives")
class Glob(Struct, frozen=True):
    """A parsed glob: ``text`` as written, and its brace-free ``alternatives``, each a tuple of segments."""

    text: str
    alternatives: tuple[tuple[Segment, ...], ...]

    @classmethod
    def parse(cls, text: str) -> "Glob":
        """Parse a glob.

        Raises:
            GlobError: it is relative, empty or unbalanced, contains ``..``, is too long, or expands to too many
                alternatives.
        """
        if text.startswith("^"):
            hint = "a glob is not a regular expression: write '/dev/ttyUSB*'"
            raise GlobError("a glob must be an absolute path", 0, hint)
        if not text.startswith(("/", "{")):
            path = text.strip()
            if path.startswith("~"):
                hint = "write the home directory as an absolute path: '~' matches only itself"
            else:
                path = path if path.startswith("/") else f"/dev/{path.removeprefix('./').removeprefix('dev/')}"
                hint = f"write '{path}' if that is what you mean"
            raise GlobError("a glob must be an absolute path", 0, hint)
        return cls(text, tuple(dict.fromkeys(_segments(pattern, text) for pattern in expand_braces(text))))

    def matches(self, path: str) -> bool:
        """Return whether an absolute path matches; does not access the file system."""
        names = tuple(filter(None, path.split("/")))
        return any(_matches(segments, names) for segments in self.alternatives)

    def may_match_below(self, directory: str) -> bool:
        """Return whether a path below a directory may match; does not access the file system."""
        names = tuple(name for name in directory.split("/") if name)
        return any(
            min(_reach(segments, names), default=len(segments)) < len(segments) for segments in self.alternatives
        )

    def __iter__(self) -> Iterator[tuple[Segment, ...]]:
        return iter(self.alternatives)


def expand_braces(text: str) -> list[str]:
    """Return the brace-free alternatives of a glob.

    Raises:
        GlobError: it is unbalanced, is read differently by other programs, or expands to too many alternatives.
    """
    if len(text) > MAX_GLOB_CHARACTERS:
        raise GlobError(f"the glob has {len(text)} characters, at most {MAX_GLOB_CHARACTERS} are allowed", 0)
    _check_characters(text)
    return _expanded(text) if "{" in text else [text]


def count_wildcards(patterns: Iterable[str]) -> int:
    """Return the number of wildcards in brace-free globs, at least; a set counts once."""
    return sum(pattern.count("*") + pattern.count("?") + pattern.count("[") for pattern in patterns)


_LITERAL = str.maketrans({"[": "[[]", "*": "[*]", "?": "[?]", "{": "?", "}": "?", ",": "?"})


def escape_glob(text: str) -> str:
    """Return a glob that matches a string; braces and commas cannot be escaped, so ``?`` replaces them."""
    return text.translate(_LITERAL)


def has_magic(text: str) -> bool:
    """Return whether a string contains a wildcard or a brace."""
    return bool(_MAGIC.search(text)) or "{" in text


def _expanded(text: str) -> list[str]:
    # Imported here: most globs have no braces.
    import bracex  # noqa: PLC0415

    try:
        expanded: list[str] = bracex.expand(text, limit=MAX_GLOB_ALTERNATIVES)
    except (bracex.ExpansionLimitException, RecursionError):
        raise GlobError(
            f"the braces expand to more than {MAX_GLOB_ALTERNATIVES} patterns", text.index("{"), _NARROW
        ) from None
    if (length := sum(map(len, expanded))) > MAX_EXPANDED_CHARACTERS:
        message = f"the braces expand to {length} characters, at most {MAX_EXPANDED_CHARACTERS} are allowed"
        raise GlobError(message, text.index("{"), _NARROW)
    # The braces are balanced, so that a '}' does not remain alone.
    if any("{" in pattern for pattern in expanded):
        raise GlobError("braces without alternatives", text.index("{"), "write {a,b} or {0..3}, or remove the braces")
    return expanded


def _segments(pattern: str, text: str) -> tuple[Segment, ...]:
    if not pattern.startswith("/"):
        raise GlobError(f"one alternative, {pattern!r}, is not an absolute path", 0)
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    if not names:
        raise GlobError("the root directory is not a device", 0)
    if ".." in names:
        raise GlobError("'..' is not allowed in a glob", max(text.find(".."), 0), "write the path without it")
    partial = next((name for name in names if "**" in name and name != "**"), None)
    if partial is not None:
        hint = "write '**/' for any number of directories, '*' for any name"
        message = "'**' must be a complete path segment"
        if "**" in text:
            raise GlobError(message, text.index("**"), hint)
        # The braces of '*{,*}x' expand to '**x'.
        raise GlobError(f"{message}, and the braces expand to {partial!r}", text.index("{"), hint)
    # '**/**' matches what '**' matches.
    kept = (name for number, name in enumerate(names) if name != "**" or names[number - 1 : number] != ["**"])
    return tuple(_ANY_DEPTH if name == "**" else _segment(name) for name in kept)


_ANY_DEPTH = Segment("**", is_any_depth=True)


@lru_cache(maxsize=4096)
def _segment(name: str) -> Segment:
    wildcards = _MAGIC.findall(name)
    if not wildcards:
        return Segment(name)
    if wildcards == ["*"]:
        start, _, end = name.partition("*")
        return Segment(name, ends=(start, end))
    return Segment(name, regex=re.compile(fnmatch.translate(name)))


def _matches(segments: tuple[Segment, ...], names: tuple[str, ...]) -> bool:
    # Most globs have no '**', or only as their last segment: this runs for every device of a scan.
    for at, segment in enumerate(segments):
        if segment.is_any_depth:
            return at == len(segments) - 1 or len(segments) in _reach(segments, names)
        if at == len(names) or not segment.matches(names[at]):
            return False
    return len(names) == len(segments)


def _reach(segments: tuple[Segment, ...], names: tuple[str, ...]) -> set[int]:
    """Return every position in a pattern that names can reach: at most segments times names steps."""
    reached = _with_skips({0}, segments)
    for name in names:
        inside = (at for at in reached if at < len(segments))
        steps = {at if segments[at].is_any_depth else at + 1 for at in inside if _passes(segments[at], name)}
        reached = _with_skips(steps, segments)
    return reached


def _passes(segment: Segment, name: str) -> bool:
    return segment.is_any_depth or segment.matches(name)


def _with_skips(reached: set[int], segments: tuple[Segment, ...]) -> set[int]:
    """Add the positions reached when ``**`` matches no directory."""
    for at, segment in enumerate(segments):
        if at in reached and segment.is_any_depth:
            reached.add(at + 1)
    return reached


def _check_characters(text: str) -> None:
    """Reject characters that shells and other programs read differently, and sets that cannot match."""
    if "${" in text:
        raise GlobError("a glob is not a template", text.index("${"), "write '*' and select with 'where'")
    if "\\" in text:
        raise GlobError("a glob has no escapes", text.index("\\"), "write [*] for a literal '*', [0-9] for a digit")
    opened: list[int] = []
    position = 0
    while position < len(text):
        character = text[position]
        if character == "[":
            position = _end_of_set(text, position, in_braces=bool(opened))
        elif character == "{":
            opened.append(position)
        elif character == "}":
            if not opened:
                raise GlobError("'}' without a '{'", position)
            opened.pop()
        position += 1
    if opened:
        raise GlobError("'{' without a '}'", opened[-1])


def _end_of_set(text: str, position: int, *, in_braces: bool) -> int:
    """Return the offset of the ``]`` that closes the set at ``position``."""
    if text[position + 1 : position + 2] == "^":
        raise GlobError("'[^' is ambiguous", position, "write '[!...]' for any other character")
    # As in fnmatch, a ']' directly after '[' or '[!' is a member of the set.
    start = position + (2 if text[position + 1 : position + 2] == "!" else 1)
    end = text.find("]", start + 1)
    if end == -1 or "/" in text[position:end]:
        raise GlobError("'[' without a ']'", position, "write '[[]' for a literal '['")
    members = text[start:end]
    if "{" in members or "}" in members or (in_braces and "," in members):
        raise GlobError(
            "braces and their commas are not allowed in '[...]'", position, "write each alternative separately"
        )
    for found in _RANGE.finditer(text, start, end):
        if found[1] > found[2]:
            raise GlobError(f"the range {found[0]} is empty", found.start(), f"write {found[2]}-{found[1]}")
    return end
