"""Escaped texts: printable, on one line, and with the same values in JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.spec.printable import escape_document, escape_json, escape_line, escape_lines, replace_unprintable

HOSTILE = (
    "\x1b[2J\x07\x08\r\n\t\x00\x7f"
    "\x80\x85\x9b\x9d"
    "\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069"
    "\ufeff\ufff9\U000e0041\udc80\ud800"
)
TEXTS = st.text(st.characters(exclude_categories=()) | st.sampled_from(HOSTILE))


@given(TEXTS)
def test_line_is_printable_and_printable_text_is_unchanged(text: str) -> None:
    assert escape_line(text).isprintable()
    assert escape_line(text) == text or not text.isprintable()
    assert len(escape_line(text).splitlines()) <= 1
    escape_line(text).encode()


@given(TEXTS)
def test_lines_keep_newlines_and_tabs_only(text: str) -> None:
    escaped = escape_lines(text)
    assert escaped.replace("\n", "").replace("\t", "").isprintable()
    assert escaped.count("\n") == text.count("\n")
    assert escape_lines(escaped) == escaped


@given(st.recursive(TEXTS, lambda children: st.lists(children) | st.dictionaries(TEXTS, children)))
def test_escaped_json_has_the_same_values(document: object) -> None:
    text = escape_json(json.dumps(document, indent=1, ensure_ascii=False))
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == json.loads(json.dumps(document))


@given(st.recursive(TEXTS, lambda children: st.lists(children) | st.dictionaries(TEXTS, children)))
def test_texts_of_an_escaped_document_are_lines(document: object) -> None:
    def check(value: object) -> None:
        if isinstance(value, dict):
            check([*value, *value.values()])
        elif isinstance(value, list):
            for item in value:
                check(item)
        else:
            assert str(value).isprintable()

    check(escape_document(document))


@given(TEXTS)
def test_replaced_characters_keep_the_columns(text: str) -> None:
    replaced = replace_unprintable(text)
    assert len(replaced) == len(text)
    assert not {character for character in replaced if character in HOSTILE and not character.isprintable()} - {"\t"}


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("x\x1b[0m", r"x\x1b[0m"),
        ("a\nb", r"a\nb"),
        ("a\u202eb", r"a\u202eb"),
        ("\x9b", r"\x9b"),
        ("\udc80", r"\x80"),
        ("\U000e0041", r"\U000e0041"),
        ("Gerät → 設備", "Gerät → 設備"),
    ],
)
def test_escapes_name_the_character(text: str, escaped: str) -> None:
    assert escape_line(text) == escaped
