"""Globs: the paths that they match, and the patterns that are rejected because they cannot match as intended."""

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.spec.globs import Glob, GlobError
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
    "/dev/**/x": (["/dev/x", "/dev/a/x", "/dev/a/b/x"], ["/dev/a/y", "/x"]),
    "/dev/**": (["/dev", "/dev/a", "/dev/a/b"], ["/sys/a"]),
    "/**/a/**/b": (["/a/b", "/x/a/y/z/b"], ["/b/a", "/a"]),
    "/dev//./x": (["/dev/x"], []),
    "/dev/[[]x]": (["/dev/[x]"], ["/dev/x"]),
    "/dev/[]-]x": (["/dev/]x", "/dev/-x"], ["/dev/ax"]),
    "/dev/a.c": (["/dev/a.c"], ["/dev/abc"]),
    "/dev/Ä*": (["/dev/Ä1"], ["/dev/ä1"]),
}


@pytest.mark.parametrize(("pattern", "paths"), MATCHES.items(), ids=MATCHES)
def test_glob_matches_only_the_expected_paths(pattern: str, paths: tuple[list[str], list[str]]) -> None:
    glob = Glob.parse(pattern)
    for path in paths[0]:
        assert glob.matches(path), path
    for path in paths[1]:
        assert not glob.matches(path), path


INVALID = {
    "dev/x": 0,
    "": 0,
    "{/dev/a,b}": 0,
    "/": 0,
    "//": 0,
    "/dev/../x": 5,
    "/dev/{a,..}/x": 8,
    "/dev/a**": 6,
    "/dev/[ab": 5,
    "/dev/[a/b]": 5,
    "/dev/[]": 5,
    "/dev/[^a]": 5,
    "/dev/[b-a]": 6,
    "/dev/[a-c5-1]": 9,
    "/dev/{a,b": 5,
    "/dev/a}": 6,
    "/dev/{a}": 5,
    "/dev/{}": 5,
    "/dev/[{a,b}]": 5,
    "/dev/{a[,]b,c}": 7,
    "/dev/${name}": 5,
    "/dev/a\\*": 6,
    "/dev/" + "{a,b}" * 20: 5,
    "/dev/{1..1000000000}": 5,
    "/dev/" + "{" * 2000 + "a,b" + "}" * 2000: 5,
    "/dev/*{,*}x": 6,
    "/dev/{*,a*}{*,b}": 5,
    "/dev/" + "x" * 5000: 0,
    "/dev/{0..999}" + "x" * 100: 5,
}


@pytest.mark.parametrize(("pattern", "offset"), INVALID.items(), ids=[pattern[:20] or "empty" for pattern in INVALID])
def test_invalid_glob_is_rejected_at_its_error(pattern: str, offset: int) -> None:
    with pytest.raises(GlobError) as caught:
        Glob.parse(pattern)
    assert str(caught.value)
    assert caught.value.offset == offset


def test_repeated_double_stars_are_parsed_as_one() -> None:
    assert Glob.parse("/sys/**/**/**/x").alternatives == Glob.parse("/sys/**/x").alternatives
    assert Glob.parse("/sys/a/**/b/**/**").alternatives == Glob.parse("/sys/a/**/b/**").alternatives


@pytest.mark.parametrize("text", ["/dev/" + "x" * 5000, "/dev/{0..999}" + "x" * 100, "/dev/{0..1000}"])
def test_glob_over_a_limit_is_rejected_with_the_limit(text: str) -> None:
    limits = (MAX_GLOB_CHARACTERS, MAX_EXPANDED_CHARACTERS, MAX_GLOB_ALTERNATIVES)
    with pytest.raises(GlobError) as caught:
        Glob.parse(text)
    assert any(str(limit) in str(caught.value) for limit in limits)


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
        Glob.parse(text).matches("/dev/a/b")
    except GlobError as error:
        offset = error.offset
    assert 0 <= offset <= len(text)


def test_glob_with_many_double_stars_matches_within_a_second() -> None:
    glob = Glob.parse("/**/a" * 20 + "/b")
    started = time.process_time()
    assert not glob.matches("/a" * 200)
    assert time.process_time() - started < 1
