"""Regular expressions: the syntax of RE2, values in them, and the part of a match that is the value."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.hardware.file_tree import MAX_TEXT_BYTES
from genplug.spec.limits import MAX_REGEX_CHARACTERS, MAX_REGEX_MEMORY_BYTES, MAX_RENDERED_REGEXES
from genplug.spec.regex import PatternError, compile_regex, matched_value, render_regexes
from genplug.spec.template import MissingAttributeError, Template


def find_value(expression: str, text: str) -> str | None:
    """Return the value of the first match."""
    pattern = compile_regex(expression)
    match = pattern.search(text)
    return matched_value(match, pattern) if match is not None else None


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("uuid: GPU-a1", "uuid: GPU-a1"),
        (r"uuid: (\S+)", "GPU-a1"),
        (r"(u)uid: (?P<value>\S+)", "GPU-a1"),
        (r"(u)uid: (?P<other>\S+)", "u"),
        (r"(?:u)uid: \S+", "uuid: GPU-a1"),
        (r"uuid: (\S+)|minor: (\d)", "GPU-a1"),
        ("^minor", None),
        ("(?m)^minor: .", "minor: 3"),
        ("missing", None),
    ],
)
def test_matched_value_is_the_named_or_first_group_or_the_match(expression: str, expected: str | None) -> None:
    assert find_value(expression, "uuid: GPU-a1\nminor: 3\n") == expected


@pytest.mark.parametrize("expression", ["(", "(?=a)", r"(a)\1", "x**", "[z-a]"])
def test_invalid_regex_is_rejected_with_the_text_of_re2(expression: str) -> None:
    with pytest.raises(PatternError) as caught:
        compile_regex(expression)
    assert str(caught.value)
    assert not str(caught.value).startswith("b'")


def test_regex_that_needs_too_much_memory_is_rejected_with_the_limit() -> None:
    with pytest.raises(PatternError, match=f"{MAX_REGEX_MEMORY_BYTES >> 10} KiB"):
        compile_regex(r"(?:\pL|\pN){50}")


def test_regex_that_is_too_long_is_rejected_with_the_limit() -> None:
    compile_regex("x" * MAX_REGEX_CHARACTERS)
    with pytest.raises(PatternError, match=f"at most {MAX_REGEX_CHARACTERS} are allowed"):
        compile_regex("x" * (MAX_REGEX_CHARACTERS + 1))


@pytest.mark.parametrize("expression", ["(a+)+$", "(a|a)*b", "(.*)*x", "(a|b)*a(a|b){12}"])
def test_regex_takes_linear_time(expression: str) -> None:
    pattern = compile_regex(expression)
    started = time.process_time()
    pattern.search("a" * MAX_TEXT_BYTES + "c")
    assert time.process_time() - started < 0.5


def test_template_renders_a_regex_for_each_value() -> None:
    patterns = list(render_regexes(Template.parse("^${minor}:${name}$"), {"minor": ("1", "2"), "name": ("a",)}))
    assert [[text for text in ("1:a", "2:a", "12:a") if pattern.search(text)] for pattern in patterns] == [
        ["1:a"],
        ["2:a"],
    ]


def test_template_with_many_values_is_rejected_with_the_limit_before_they_are_compiled() -> None:
    values = {"a": tuple(map(str, range(MAX_RENDERED_REGEXES + 1)))}
    with pytest.raises(PatternError, match=f"at most {MAX_RENDERED_REGEXES} are allowed"):
        next(render_regexes(Template.parse("^${a}$"), values))
    assert len(list(render_regexes(Template.parse("^${a}$"), {"a": values["a"][1:]}))) == MAX_RENDERED_REGEXES


def test_template_with_missing_attribute_renders_no_regex() -> None:
    with pytest.raises(MissingAttributeError):
        list(render_regexes(Template.parse("${minor}"), {}))


def test_regex_without_templates_is_compiled_verbatim() -> None:
    (pattern,) = render_regexes(Template.parse("a.c"), {})
    assert pattern.search("abc")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
def test_rendered_value_matches_only_itself(text: str) -> None:
    (pattern,) = render_regexes(Template.parse(r"\A${a}\z"), {"a": (text,)})
    assert pattern.search(text)
    for other in ("", f"{text}{text}", text[:-1], f"{text}x"):
        assert not pattern.search(other)


@pytest.mark.parametrize("text", ["/dev/x\udcff0", "\ud800", "a\udfffb\udc80"])
def test_text_with_bytes_that_are_not_utf8_is_searched(text: str) -> None:
    pattern = compile_regex("\N{REPLACEMENT CHARACTER}")
    assert pattern.search(text) is not None
    assert len(list(pattern.finditer(text))) == len([character for character in text if character >= "\ud800"])
    assert compile_regex("x").search(text) is None or "x" in text


def test_value_with_bytes_that_are_not_utf8_renders_a_regex_that_matches_it() -> None:
    (pattern,) = render_regexes(Template.parse("^${a}$"), {"a": ("x\udcff",)})
    assert pattern.search("x\udcff") is not None
    assert pattern.search("x") is None
