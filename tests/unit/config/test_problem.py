"""How problems look: locations, carets, long and hostile lines, order, and each told once."""

from genplug.config.diagnostics import ConfigInvalidError, Diagnostic, ErrorCode, format_diagnostics
from genplug.spec.location import SourceLocation


def problem(line: str, column: int, **more: object) -> Diagnostic:
    return Diagnostic(ErrorCode.GLOB, SourceLocation("f", 3, column), "wrong", line=line, **more)  # type: ignore[arg-type]


def test_the_caret_stands_under_what_is_meant() -> None:
    assert format_diagnostics([problem("key: value", 6, width=5, key_path="a.b", expected="more", hint="less")]) == (
        "f:3:6: error[GP011]: wrong  [a.b]\n"
        "    3 | key: value\n"
        "      |      ^^^^^\n"
        "      = expected: more\n"
        "      = help: less"
    )


def test_the_other_half_of_a_mistake_is_pointed_at() -> None:
    assert "      = first: f:1:2" in format_diagnostics([problem("x", 1, related_location=SourceLocation("f", 1, 2))])


def test_a_tab_stays_a_tab_under_the_line() -> None:
    assert format_diagnostics([problem("\tx:\ty", 5)]).split("\n")[2] == "      | \t  \t^"


def test_a_caret_never_runs_past_the_line() -> None:
    assert format_diagnostics([problem("abc", 2, width=50)]).endswith("|  ^^")
    assert format_diagnostics([problem("abc", 10, width=50)]).endswith("|    ^")


def test_a_number_of_many_digits_moves_the_bars_together() -> None:
    lines = format_diagnostics(
        [Diagnostic(ErrorCode.GLOB, SourceLocation("f", 1234567, 1), "wrong", line="x", hint="y")]
    ).split("\n")
    assert {line.index(mark) for line, mark in zip(lines[1:], "||=", strict=True)} == {8}


def test_of_a_long_line_only_what_is_around_the_caret_is_shown() -> None:
    for column in (1, 100, 5000, 9995):
        line = "x" * (column - 1) + "HERE" + "x" * (10_000 - column - 3)
        _, source, caret = format_diagnostics([problem(line, column, width=4)]).split("\n")
        assert len(source) < 200
        assert source[caret.index("^") : caret.rindex("^") + 1] == "HERE"


def test_a_terminal_is_sent_no_control_characters() -> None:
    said = format_diagnostics([problem("a\x1b[2Jb\x7f", 1, hint="\x07", key_path="\x1b")])
    assert said.replace("\n", "").isprintable()
    assert "␛" in said


def test_an_endless_text_in_a_message_is_cut() -> None:
    endless = Diagnostic(
        ErrorCode.NAME, SourceLocation("f", 1, 1), "n" * 100_000, key_path="t" * 100_000, hint="h" * 100_000
    )
    assert all(len(line) < 500 for line in format_diagnostics([endless]).split("\n"))


def test_problems_are_told_once_and_in_the_order_of_the_files() -> None:
    def at(file: str, line: int, column: int, tree: str) -> Diagnostic:
        return Diagnostic(ErrorCode.GLOB, SourceLocation(file, line, column), "wrong", key_path=tree)

    found = [at("b", 1, 1, ""), at("a", 10, 1, ""), at("a", 9, 7, ""), at("a", 9, 2, "first"), at("a", 9, 2, "echo")]
    error = ConfigInvalidError(found)
    assert [(str(one.location), one.key_path) for one in error.problems] == [
        ("a:9:2", "first"),
        ("a:9:7", ""),
        ("a:10:1", ""),
        ("b:1:1", ""),
    ]
    assert str(error) == format_diagnostics(error.problems)
