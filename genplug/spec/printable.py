"""Escape texts from devices, files and other programs before a terminal or a log receives them.

A terminal executes control sequences (ESC, BEL, and the C1 controls U+0080 to U+009F), bidirectional controls reorder
what a reader sees, and a newline in a name looks like another line. All functions return printable text by the
definition of :meth:`str.isprintable`: no controls, format characters, separators other than the space, surrogates,
private or unassigned characters.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_SURROGATES_OF_BYTES = range(0xDC80, 0xDD00)
"""How Python decodes the bytes of a file name that are not UTF-8 (PEP 383)."""
_FIRST_PICTURE = 0x2400
_PICTURES = {number: chr(_FIRST_PICTURE + number) for number in range(0x20)} | {0x7F: "\N{SYMBOL FOR DELETE}"}
"""The pictures of the controls of ASCII."""
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|!~@&])")
"""The characters with a meaning in Markdown, and in comments on GitHub."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def escape_line(text: str) -> str:
    r"""Return a text as one line, with each character that is not printable as ``\n``, ``\x1b`` or ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def escape_lines(text: str) -> str:
    """Return a text of several lines with every line escaped; tabs are kept."""
    if text.isprintable():
        return text
    return "\n".join(
        "\t".join(escape_line(part) for part in line.split("\t")) if "\t" in line else escape_line(line)
        for line in text.split("\n")
    )


def escape_markdown(text: str) -> str:
    """Return a text as one line of Markdown without markup, also in a cell of a table."""
    return _MARKUP.sub(r"\\\1", escape_line(text))


def escape_json(text: str) -> str:
    r"""Return a JSON document with the same values and each character that is not printable as ``\u....``."""
    if text.isprintable():
        return text
    # Outside of strings, a document has no such characters but newlines.
    return "".join(
        character if character.isprintable() or character == "\n" else _escape_for_json(character) for character in text
    )


def escape_document(value: Any) -> Any:  # noqa: ANN401 - a document of JSON
    """Return a document of JSON with each text in it as one line."""
    if isinstance(value, str):
        return escape_line(value)
    if isinstance(value, Mapping):
        return {escape_document(key): escape_document(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escape_document(item) for item in value]
    return value


def replace_unprintable(line: str) -> str:
    """Return a line with the same number of characters: controls as their pictures, others as U+FFFD; tabs are kept."""
    if line.isprintable():
        return line
    return "".join(map(_picture, line))


def _escape(character: str) -> str:
    number = ord(character)
    if number in _SURROGATES_OF_BYTES:
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _escape_for_json(character: str) -> str:
    # JSON has a character beyond U+FFFF as two surrogates (RFC 8259, section 7). Other surrogates are kept.
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _picture(character: str) -> str:
    if character.isprintable() or character == "\t" or unicodedata.category(character) == "Zs":
        return character
    return _PICTURES.get(ord(character), _REPLACEMENT)
