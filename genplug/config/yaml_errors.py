"""What a YAML parser complains of, in an operator's words, with the place where the mistake most likely is."""

from collections.abc import Sequence
from typing import NamedTuple

import yaml


class ParserDiagnostic(NamedTuple):
    """Where, what, and what to do; line and column are counted from 1."""

    line: int
    column: int
    message: str
    hint: str


_QUOTE = "quote a text that begins with one of * & ! % @ ` { [ or that holds ': ' or ' #'"
_TABS = "indent with spaces; YAML allows no tabs there"
_INDENT = "check the indentation here and on the line before, and the quotes"
_COLON = "quote a text that holds ': '; if this is a key, check the indentation here and on the line before"
_BRACKETS = "close the bracket, or quote the text: in {...} and [...] texts with braces and commas need quotes"

# (what libyaml says, whether the beginning of the construct is the better location, words, hint)
_KNOWN: tuple[tuple[str, bool, str, str], ...] = (
    ("tab character", False, "a tab stands where the indentation is", _TABS),
    ("cannot start any token", False, "no value can begin with this character", _QUOTE),
    ("expected alphabetic or numeric", True, "this is read as an anchor or alias, and it has no name", _QUOTE),
    ("mapping values are not allowed", False, "a ':' where no key can end", _COLON),
    ("block sequence entries are not", False, "a list cannot begin here", "begin it on a line of its own"),
    ("expected key", False, "this fits neither the map around it nor the value before it", _INDENT),
    ("expected '-' indicator", False, "this fits neither the list around it nor the entry before it", _INDENT),
    ("could not find expected ':'", True, "a key without a ':' behind it", _INDENT),
    ("unexpected end of stream", True, "the quote that opens here is never closed", "close it"),
    ("unexpected document indicator", True, "the quote that opens here is never closed", "close it"),
    ("unknown escape character", False, "no such escape exists in double quotes", "use single quotes: they have none"),
    ("invalid Unicode character escape", False, "no such character exists", "write the character itself"),
    ("expected ',' or ']'", False, "here should be a ',' or the ']' of a list", _BRACKETS),
    ("expected ',' or '}'", False, "here should be a ',' or the '}' of a map", _BRACKETS),
    ("expected node content", False, "a value is missing here", _QUOTE),
    ("undefined tag handle", True, "'!' begins a tag, and tags are not part of this language", _QUOTE),
    ("expected <document start>", False, "the document has ended, and this is no new one", _INDENT),
    ("did not find expected comment or line break", False, "nothing may follow here on this line", _INDENT),
)


def explain_yaml_error(error: yaml.MarkedYAMLError, lines: Sequence[str]) -> ParserDiagnostic:
    """Return a parser's complaint for a person; ``lines`` are those of the file."""
    said = str(error.problem or error.context or "it cannot be read")
    known = next((one for one in _KNOWN if one[0] in said), None)
    prefers_start, message, hint = known[1:] if known else (False, said, _INDENT)
    mark, opened = error.problem_mark or error.context_mark, error.context_mark
    if prefers_start and opened is not None:
        mark = opened
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    if not any(one.strip() for one in lines[line:]) and "flow" in str(error.context):
        message, hint = "the file ends inside a bracket", "close it"
        if opened is not None and opened.line < line:
            line, column, message = opened.line, opened.column, "the bracket that opens here is never closed"
    if line < len(lines) and lines[line][column : column + 1] == "\t":
        message, hint = _KNOWN[0][2:]
    # Past the last line there is nothing to show.
    shown = next((at for at in range(min(line, len(lines) - 1), -1, -1) if lines[at].strip()), 0)
    if shown < line:
        line, column = shown, max(len(lines[shown]) - 1, 0)
    return ParserDiagnostic(line + 1, column + 1, f"this is not YAML: {message}", hint)
