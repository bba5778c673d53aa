"""Expressions: what RE2 reads, what values in them stand for, and which part of a match is the value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.spec.regex import PatternError, compile_regex, matched_value, render_regexes
from genplug.spec.template import MissingAttributeError, Template


def value(expression: str, text: str) -> str | None:
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
def test_the_value_is_the_capture_of_that_name_else_the_first_else_all(expression: str, expected: str | None) -> None:
    assert value(expression, "uuid: GPU-a1\nminor: 3\n") == expected


@pytest.mark.parametrize("expression", ["(", "(?=a)", r"(a)\1", "x**", "[z-a]"])
def test_what_re2_does_not_read_is_said_in_its_words(expression: str) -> None:
    with pytest.raises(PatternError) as caught:
        compile_regex(expression)
    assert str(caught.value)
    assert not str(caught.value).startswith("b'")


def test_there_is_an_expression_for_each_value() -> None:
    patterns = list(render_regexes(Template.parse("^${minor}:${name}$"), {"minor": ("1", "2"), "name": ("a",)}))
    assert [[text for text in ("1:a", "2:a", "12:a") if one.search(text)] for one in patterns] == [["1:a"], ["2:a"]]


def test_an_attribute_without_a_value_makes_no_expression() -> None:
    with pytest.raises(MissingAttributeError):
        list(render_regexes(Template.parse("${minor}"), {}))


def test_without_templates_an_expression_is_taken_as_it_is_written() -> None:
    (pattern,) = render_regexes(Template.parse("a.c"), {})
    assert pattern.search("abc")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
def test_whatever_a_value_is_it_stands_for_itself(text: str) -> None:
    (pattern,) = render_regexes(Template.parse(r"\A${a}\z"), {"a": (text,)})
    assert pattern.search(text)
    for other in ("", f"{text}{text}", text[:-1], f"{text}x"):
        assert not pattern.search(other)
