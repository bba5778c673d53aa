"""Globs: the paths that they match, and the patterns that are rejected because they cannot match as intended."""

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.spec.globs import Glob, GlobError, count_wildcards, escape_glob, has_magic
from genplug.spec.limits import MAX_EXPANDED_CHARACTERS, MAX_GLOB_ALTERNATIVES, MAX_GLOB_CHARACTERS

MATCHES = {
    "/dev/nvidia[0-9]": (["/dev/nvidia0"], ["/dev/nvidia", "/dev/nvidia10", "/dev/nvidiactl"]),
    "/dev/nvidia[!c]*": (["/dev/nvidia0", "/dev/nvidia-uvm"], ["/dev/nvidiactl", "/dev/nvidia"]),
    "/dev/tty?": (["/dev/tty1"], ["/dev/tty", "/dev/tty10", "/dev/tty/1"]),
    "/dev/{uverbs,umad}*": (["/dev/uverbs0", "/dev/umad"], ["/dev/issm0"]),
    "/dev/video{0..2}": (["/dev/video0", "/dev/video2"], ["/dev/video3"]),
    "{/dev/a,/sys/b}": (["/dev/a", "/sys/b"], ["/dev/b"]),
    "/dev/*": (["/dev/a"], ["/dev/a/b", "/dev/.a", "/dev", "/dev/"]),
    "/dev/.*": (["/dev/.a"], ["/dev/a"]),
    "/dev/ab*ba": (["/dev/abba", "/dev/abxba"], ["/dev/aba", "/dev/abx", "/dev/xba"]),
    "/dev/**/x": (["/dev/x", "/dev/a/x", "/dev/a/b/x"], ["/dev/a/y", "/x"]),
    "/dev/**": (["/dev", "/dev/a", "/dev/a/b"], ["/sys/a"]),
    "/**/a/**/b": (["/a/b", "/x/a/y/z/b"], ["/b/a", "/a"]),
    "/dev//./x": (["/dev/x"], []),
    "/dev/[[]x]": (["/dev/[x]"], ["/dev/x"]),
    "/dev/[]-]x": (["/dev/]x", "/dev/-x"], ["/dev/ax"]),
    "/dev/[!]a]x": (["/dev/bx"], ["/dev/]x", "/dev/ax"]),
    "/dev/[a-a,]{c,d}[e]": (["/dev/ace", "/dev/,de"], ["/dev/aee", "/dev/ac"]),
    "/dev/[a]z-b": (["/dev/az-b"], ["/dev/az"]),
    "/dev/a.c": (["/dev/a.c"], ["/dev/abc"]),
    "/dev/Ä*": (["/dev/Ä1"], ["/dev/ä1"]),
}


@pytest.mark.parametrize(("pattern", "paths"), MATCHES.items(), ids=MATCHES)
def test_glob_matches_only_the_expected_paths(pattern: str, paths: tuple[list[str], list[str]]) -> None:
    glob = Glob.parse(pattern)
    assert glob.text == pattern
    for path in paths[0]:
        assert glob.matches(path), path
    for path in paths[1]:
        assert not glob.matches(path), path


ABSOLUTE = "a glob must be an absolute path"
ROOT = "the root directory is not a device"
PARENT = ("'..' is not allowed in a glob", "write the path without it")
SEGMENT, ANY_DEPTH = (
    "'**' must be a complete path segment",
    "write '**/' for any number of directories, '*' for any name",
)
OPEN_SET = ("'[' without a ']'", "write '[[]' for a literal '['")
LITERAL_BRACES = ("braces without alternatives", "write {a,b} or {0..3}, or remove the braces")
BRACES_IN_SET = ("braces and their commas are not allowed in '[...]'", "write each alternative separately")
NARROW = "write '*' or '[0-9]' in place of a range, and exclude paths with 'exclude' or 'where'"
TOO_MANY = (f"the braces expand to more than {MAX_GLOB_ALTERNATIVES} patterns", NARROW)


def suggest(path: str) -> tuple[int, str, str]:
    return 0, ABSOLUTE, f"write '{path}' if that is what you mean"


def describe_length(length: int) -> tuple[str, str]:
    return f"the braces expand to {length} characters, at most {MAX_EXPANDED_CHARACTERS} are allowed", NARROW


INVALID = {
    "dev/x": suggest("/dev/x"),
    "x": suggest("/dev/x"),
    "./x": suggest("/dev/x"),
    "./dev/x": suggest("/dev/x"),
    " /sys/x ": suggest("/sys/x"),
    "": suggest("/dev/"),
    "~/x": (0, ABSOLUTE, "write the home directory as an absolute path: '~' matches only itself"),
    "^/dev/x": (0, ABSOLUTE, "a glob is not a regular expression: write '/dev/ttyUSB*'"),
    "{/dev/a,b}": (0, "one alternative, 'b', is not an absolute path", ""),
    "/": (0, ROOT, ""),
    "//": (0, ROOT, ""),
    "/./": (0, ROOT, ""),
    "/dev/../../x": (5, *PARENT),
    "/dev/{a,..}/x": (8, *PARENT),
    "/dev/{.,x}./..": (12, *PARENT),
    "/dev/{.,x}.": (0, *PARENT),
    "/dev/a**": (6, SEGMENT, ANY_DEPTH),
    "/a**/b**": (2, SEGMENT, ANY_DEPTH),
    "/dev/*{,*}x{a,b}": (6, f"{SEGMENT}, and the braces expand to '**xa'", ANY_DEPTH),
    "/dev/{*,a*}{*,b}": (5, f"{SEGMENT}, and the braces expand to 'a**'", ANY_DEPTH),
    "/dev/[ab": (5, *OPEN_SET),
    "/dev/[a/b]": (5, *OPEN_SET),
    "/dev/[]": (5, *OPEN_SET),
    "/dev/[!]": (5, *OPEN_SET),
    "/dev/[^a]": (5, "'[^' is ambiguous", "write '[!...]' for any other character"),
    "/dev/[b-a]": (6, "the range b-a is empty", "write a-b"),
    "/dev/[a-c5-1]": (9, "the range 5-1 is empty", "write 1-5"),
    "/dev/{a,b": (5, "'{' without a '}'", ""),
    "/{a,b}/{c,{d": (10, "'{' without a '}'", ""),
    "/dev/a}": (6, "'}' without a '{'", ""),
    "/dev/{a,b}}": (10, "'}' without a '{'", ""),
    "/dev/{a}": (5, *LITERAL_BRACES),
    "/dev/{}": (5, *LITERAL_BRACES),
    "/{a,b}/{c}": (1, *LITERAL_BRACES),
    "/dev/[{a,b}]": (5, *BRACES_IN_SET),
    "/dev/[]{a,b}]": (5, *BRACES_IN_SET),
    "/dev/[!]{a,b}]": (5, *BRACES_IN_SET),
    "/dev/[{]": (5, *BRACES_IN_SET),
    "/dev/[}]": (5, *BRACES_IN_SET),
    "/dev/{a[,]b,c}": (7, *BRACES_IN_SET),
    "/dev/*${name}": (6, "a glob is not a template", "write '*' and select with 'where'"),
    "/dev/${a}${b}": (5, "a glob is not a template", "write '*' and select with 'where'"),
    "/dev/a\\*\\": (6, "a glob has no escapes", "write [*] for a literal '*', [0-9] for a digit"),
    "/dev/" + "{a,b}" * 20: (5, *TOO_MANY),
    "/dev/{0..1000}": (5, *TOO_MANY),
    "/dev/{1..1000000000}": (5, *TOO_MANY),
    "/dev/" + "{" * 2000 + "a,b" + "}" * 2000: (5, *TOO_MANY),
    "/" + "x" * 4096: (0, f"the glob has 4097 characters, at most {MAX_GLOB_CHARACTERS} are allowed", ""),
    "/{00..99}{0..9}" + "x" * 100: (1, *describe_length(104_000)),
    "/{000..255}" + "x" * 253: (1, *describe_length(65_792)),
}


@pytest.mark.parametrize(
    ("pattern", "error"), INVALID.items(), ids=[pattern[:20].replace("\\", "") or "empty" for pattern in INVALID]
)
def test_invalid_glob_is_rejected_at_its_error(pattern: str, error: tuple[int, str, str]) -> None:
    with pytest.raises(GlobError) as caught:
        Glob.parse(pattern)
    assert (caught.value.offset, str(caught.value), caught.value.hint) == error


def test_glob_may_be_as_long_as_the_limits() -> None:
    assert Glob.parse("/" + "x" * 4095).matches("/" + "x" * 4095)
    assert len(Glob.parse("/{000..255}" + "x" * 252).alternatives) == 256
    assert len(Glob.parse("/{0..999}").alternatives) == MAX_GLOB_ALTERNATIVES


def test_repeated_double_stars_are_parsed_as_one() -> None:
    assert Glob.parse("/sys/**/**/**/x").alternatives == Glob.parse("/sys/**/x").alternatives
    assert Glob.parse("/sys/a/**/b/**/**").alternatives == Glob.parse("/sys/a/**/b/**").alternatives


def test_glob_is_iterated_by_its_alternatives() -> None:
    first, second = Glob.parse("{/a/b*/**,/c}")
    assert [segment.text for segment in first] == ["a", "b*", "**"]
    assert [segment.is_literal for segment in first] == [True, False, False]
    assert [segment.literal_start for segment in first] == ["a", "b", ""]
    assert [segment.matches("b1") for segment in first] == [False, True, False]
    assert [segment.matches("**") for segment in first] == [False, False, False]
    assert [segment.matches("c") for segment in second] == [True]
    assert Glob.parse("/{a,a}").alternatives == Glob.parse("/a").alternatives


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("/a/b", ["/", "", "/a", "//a/"], ["/a/b", "/a/b/c", "/b"]),
        ("/a/*/c", ["/a", "/a/x"], ["/a/x/c", "/a/.x"]),
        ("/a/**", ["/", "/a", "/a/b", "/a/b/c"], ["/b"]),
        ("/a/**/b", ["/a", "/a/b", "/a/x/y"], ["/b"]),
        ("{/a/b,/c/d/e}", ["/a", "/c", "/c/d"], ["/a/b", "/c/d/e", "/d"]),
    ],
)
def test_glob_may_match_below_the_directories_that_lead_to_a_match(
    pattern: str, inside: list[str], outside: list[str]
) -> None:
    glob = Glob.parse(pattern)
    assert [directory for directory in inside if not glob.may_match_below(directory)] == []
    assert [directory for directory in outside if glob.may_match_below(directory)] == []


def test_wildcards_are_counted_in_all_patterns() -> None:
    assert count_wildcards([]) == 0
    assert count_wildcards(["/a/b", "/a*/?[xy]", "/**/x??"]) == 7


@pytest.mark.parametrize(
    ("text", "has_wildcard"),
    [("", False), ("/a/b", False), ("/a*", True), ("/a?", True), ("/[a]", True), ("/{a,b}", True), ("/a]}", False)],
)
def test_text_with_a_wildcard_or_a_brace_is_a_glob(text: str, *, has_wildcard: bool) -> None:
    assert has_magic(text) is has_wildcard


@given(st.text("ab.*?[]{},!-^", min_size=1, max_size=6).filter(lambda text: text not in (".", "..")))
def test_escaped_text_is_a_glob_that_matches_it(text: str) -> None:
    glob = Glob.parse(f"/{escape_glob(text)}")
    assert glob.matches(f"/{text}")
    if not {"{", "}", ","} & set(text):
        assert not glob.matches(f"/a{text}")


def matches_by_search(pattern: str, path: str) -> bool:
    """Return whether a path matches; try every number of names for each ``**``."""
    parts, names = pattern.strip("/").split("/"), path.strip("/").split("/")
    return any(
        len(chosen) == len(names) and all(map(part_matches, chosen, names))
        for counts in itertools.product(range(len(names) + 1), repeat=parts.count("**"))
        for chosen in [expand_double_stars(parts, list(counts))]
    )


def expand_double_stars(parts: list[str], counts: list[int]) -> list[str | None]:
    """Return the parts with each ``**`` as that many names of any kind (None)."""
    chosen: list[str | None] = []
    for part in parts:
        chosen += [None] * counts.pop(0) if part == "**" else [part]
    return chosen


def part_matches(part: str | None, name: str) -> bool:
    return part is None or ((part[0] == "." or name[0] != ".") and characters_match(part, name))


def characters_match(part: str, name: str) -> bool:
    if not part:
        return not name
    if part[0] == "*":
        return any(characters_match(part[1:], name[skipped:]) for skipped in range(len(name) + 1))
    return bool(name) and part[0] in ("?", name[0]) and characters_match(part[1:], name[1:])


part = st.text("ab.?*", min_size=1, max_size=4).filter(lambda text: text not in (".", "..") and "**" not in text)
patterns = st.lists(part | st.just("**"), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
names = st.text("ab.", min_size=1, max_size=4).filter(lambda text: text not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(patterns, paths)
@settings(deadline=None, max_examples=500)
def test_glob_matches_like_an_exhaustive_search(pattern: str, path: str) -> None:
    assert Glob.parse(pattern).matches(path) == matches_by_search(pattern, path)


@given(st.text("ab/*?[]{},.!^-\\$0", max_size=12))
@settings(deadline=None, max_examples=500)
def test_any_text_parses_or_raises_glob_error(text: str) -> None:
    offset = 0
    try:
        glob = Glob.parse(text)
        assert not any("{" in segment.text or "}" in segment.text for segments in glob for segment in segments)
        glob.matches("/dev/a/b")
    except GlobError as error:
        offset = error.offset
    assert 0 <= offset <= len(text)


def test_glob_with_many_double_stars_matches_within_a_second() -> None:
    glob = Glob.parse("/**/a" * 20 + "/b")
    started = time.process_time()
    assert not glob.matches("/a" * 200)
    assert time.process_time() - started < 1
