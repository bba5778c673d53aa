"""Translates the errors of the YAML parser into messages for operators, at the most likely location of the error."""

from collections.abc import Sequence
from typing import NamedTuple

from genplug.config.yaml_library import yaml


class ParserDiagnostic(NamedTuple):
    """Location, message and hint; line and column count from 1."""

    line: int
    column: int
    message: str
    hint: str


_QUOTE = "quote a string that starts with one of * & ! % @ ` { [ or that contains ': ' or ' #'"
_TABS = "indent with spaces"
_INDENT = "check the indentation here and on the line before, and the quotes"
_COLON = "quote a string that contains ': '; if this is a key, check the indentation here and on the line before"
_BRACKETS = "close the bracket, or quote the string: in {...} and [...], strings with braces and commas need quotes"

# (part of libyaml's message, whether the start of the construct is the better location, our message, hint)
_KNOWN: tuple[tuple[str, bool, str, str], ...] = (
    ("tab character", False, "tabs are not allowed for indentation", _TABS),
    ("cannot start any token", False, "a value cannot start with this character", _QUOTE),
    ("expected alphabetic or numeric", True, "expected the name of an anchor or alias", _QUOTE),
    ("mapping values are not allowed", False, "unexpected ':'", _COLON),
    ("block sequence entries are not", False, "a list cannot start here", "start it on a new line"),
    ("expected key", False, "unexpected content in a mapping: inconsistent indentation or missing quotes", _INDENT),
    (
        "expected '-' indicator",
        False,
        "unexpected content in a list: inconsistent indentation or missing quotes",
        _INDENT,
    ),
    ("could not find expected ':'", True, "expected ':' after the key", _INDENT),
    ("unexpected end of stream", True, "the quote that opens here is not closed", "close it"),
    ("unexpected document indicator", True, "the quote that opens here is not closed", "close it"),
    ("unknown escape character", False, "unknown escape in double quotes", "use single quotes, which have no escapes"),
    ("invalid Unicode character escape", False, "the escape is not a character", "write the character itself"),
    ("expected ',' or ']'", False, "expected ',' or the ']' of a list", _BRACKETS),
    ("expected ',' or '}'", False, "expected ',' or the '}' of a mapping", _BRACKETS),
    ("expected node content", False, "expected a value", _QUOTE),
    ("undefined tag handle", True, "'!' starts a tag, and tags are not supported", _QUOTE),
    ("expected <document start>", False, "unexpected content after the end of the document", _INDENT),
    ("did not find expected comment or line break", False, "unexpected content at the end of the line", _INDENT),
)


def explain_yaml_error(error: yaml.MarkedYAMLError, lines: Sequence[str]) -> ParserDiagnostic:
    """Return the diagnostic for a parser error; ``lines`` are the lines of the file."""
    parser_message = str(error.problem or error.context or "it cannot be parsed")
    known = next((row for row in _KNOWN if row[0] in parser_message), None)
    prefers_start, message, hint = known[1:] if known else (False, parser_message, _INDENT)
    mark, opened = error.problem_mark or error.context_mark, error.context_mark
    if prefers_start and opened is not None:
        mark = opened
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    if not any(text.strip() for text in lines[line:]) and "flow" in str(error.context):
        message, hint = "the file ends inside a bracket", "close it"
        if opened is not None and opened.line < line:
            line, column, message = opened.line, opened.column, "the bracket that opens here is not closed"
    if line < len(lines) and lines[line][column : column + 1] == "\t":
        message, hint = _KNOWN[0][2:]
    # Point at the last line with content.
    shown = next((at for at in range(min(line, len(lines) - 1), -1, -1) if lines[at].strip()), 0)
    if shown < line:
        line, column = shown, max(len(lines[shown]) - 1, 0)
    return ParserDiagnostic(line + 1, column + 1, f"invalid YAML: {message}", hint)
