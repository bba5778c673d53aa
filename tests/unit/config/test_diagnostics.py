"""Texts of diagnostics: locations, carets, long lines, control characters, and the order."""

from typing import Any

from genplug.config.diagnostics import ConfigInvalidError, format_diagnostics
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from genplug.spec.location import SourceLocation
from tests.support.configs import find_diagnostics, render_config


def make_diagnostic(line: str, column: int, **more: Any) -> Diagnostic:
    return Diagnostic(ErrorCode.GLOB, SourceLocation("f", 3, column), "wrong", line=line, **more)


def test_carets_mark_the_error() -> None:
    assert format_diagnostics(
        [make_diagnostic("key: value", 6, width=5, key_path="a.b", expected="more", hint="less")]
    ) == (
        "f:3:6: error[GP011]: wrong  [a.b]\n"
        "    3 | key: value\n"
        "      |      ^^^^^\n"
        "      = expected: more\n"
        "      = help: less"
    )


def test_related_location_is_printed() -> None:
    assert "      = first: f:1:2" in format_diagnostics(
        [make_diagnostic("x", 1, related_location=SourceLocation("f", 1, 2))]
    )


def test_tab_is_kept_in_the_line_of_the_caret() -> None:
    assert format_diagnostics([make_diagnostic("\tx:\ty", 5)]).split("\n")[2] == "      | \t  \t^"


def test_carets_end_with_the_line() -> None:
    assert format_diagnostics([make_diagnostic("abc", 2, width=50)]).endswith("|  ^^")
    assert format_diagnostics([make_diagnostic("abc", 10, width=50)]).endswith("|    ^")


def test_bars_are_aligned_for_a_line_number_of_many_digits() -> None:
    lines = format_diagnostics(
        [Diagnostic(ErrorCode.GLOB, SourceLocation("f", 1234567, 1), "wrong", line="x", hint="y")]
    ).split("\n")
    assert {line.index(mark) for line, mark in zip(lines[1:], "||=", strict=True)} == {8}


def test_long_line_is_truncated_around_the_caret() -> None:
    for column in (1, 100, 5000, 9995):
        line = "x" * (column - 1) + "HERE" + "x" * (10_000 - column - 3)
        _, source, caret = format_diagnostics([make_diagnostic(line, column, width=4)]).split("\n")
        assert len(source) < 200
        assert source[caret.index("^") : caret.rindex("^") + 1] == "HERE"


def test_control_characters_are_replaced() -> None:
    text = format_diagnostics([make_diagnostic("a\x1b[2Jb\x7f", 1, hint="\x07", key_path="\x1b")])
    assert text.replace("\n", "").isprintable()
    assert "␛" in text


def test_long_message_key_path_and_hint_are_truncated() -> None:
    long = Diagnostic(
        ErrorCode.NAME, SourceLocation("f", 1, 1), "n" * 100_000, key_path="t" * 100_000, hint="h" * 100_000
    )
    assert all(len(line) < 500 for line in format_diagnostics([long]).split("\n"))


def test_errors_are_sorted_by_location_without_duplicates() -> None:
    def at(file: str, line: int, column: int, tree: str) -> Diagnostic:
        return Diagnostic(ErrorCode.GLOB, SourceLocation(file, line, column), "wrong", key_path=tree)

    found = [at("b", 1, 1, ""), at("a", 10, 1, ""), at("a", 9, 7, ""), at("a", 9, 2, "first"), at("a", 9, 2, "echo")]
    error = ConfigInvalidError(found)
    assert [(str(diagnostic.location), diagnostic.key_path) for diagnostic in error.diagnostics] == [
        ("a:9:2", "first"),
        ("a:9:7", ""),
        ("a:10:1", ""),
        ("b:1:1", ""),
    ]
    assert str(error) == format_diagnostics(error.diagnostics)


def test_long_value_is_truncated_in_the_text() -> None:
    (diagnostic,) = find_diagnostics(render_config(f"devices: [{{glob: /dev/{'x' * 3000}**}}]"))
    assert len(diagnostic.message) > 3000
    text = format_diagnostics([diagnostic])
    assert max(map(len, text.splitlines())) <= 401
    assert "c.yaml:5:3027: error[GP011]" in text
    assert "'**' must be a complete path segment" in text
