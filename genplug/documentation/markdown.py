"""Formats the Markdown of the reference as plain text: the part of Markdown that its pages use."""

import re
import textwrap
from collections.abc import Iterator, Sequence

from genplug.documentation.pages import split_row

_IGNORED = re.compile(r"^(?:<!--.*-->|\([\w-]+\)=)$")
_FENCE = re.compile(r"^( *)```")
_ITEM = re.compile(r"^( *)(- |\d+\. )")
_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(?=\S)(.+?)(?<=\S)\1(?![\w*])")
_SEPARATOR_ROW = re.compile(r"^\|[\s:|-]+\|$")


def format_markdown(text: str, width: int) -> str:
    """Return Markdown as plain text with lines of at most ``width`` columns, except those of code."""
    parts: list[str] = []
    is_item = False
    for block in _split_blocks(text.splitlines()):
        # The items of a list follow each other without an empty line.
        separator = "\n" if is_item and _ITEM.match(block[0]) else "\n\n"
        is_item = _ITEM.match(block[0]) is not None
        parts += [separator if parts else "", "\n".join(_format_block(block, width))]
    return "".join(parts)


def strip_inline(text: str) -> str:
    """Return a line without the marks of code, links and emphasis."""
    parts = _CODE.split(_LINK.sub(r"\1", text))
    # The content of code is verbatim.
    return "".join(part if number % 2 else _EMPHASIS.sub(r"\2", part) for number, part in enumerate(parts))


def _split_blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield paragraphs, items of lists, tables and blocks of code, each as its lines."""
    block: list[str] = []
    fence = ""
    for line in lines:
        if fence:
            block.append(line)
            if line.strip() == "```":
                yield block
                block, fence = [], ""
            continue
        is_start = bool(_FENCE.match(line) or _ITEM.match(line) or line.startswith("#"))
        is_end = not line.strip() or _IGNORED.match(line.strip()) is not None
        if (is_start or is_end) and block:
            yield block
            block = []
        if not is_end:
            block.append(line)
        fence = "```" if _FENCE.match(line) else ""
    if block:
        yield block


def _format_block(block: Sequence[str], width: int) -> Iterator[str]:
    first = block[0]
    if (fence := _FENCE.match(first)) is not None:
        yield from (f"    {line.removeprefix(fence[1])}".rstrip() for line in block[1:-1])
    elif first.startswith("#"):
        yield strip_inline(first.lstrip("# ")).upper()
    elif first.startswith("|"):
        yield from _format_rows([split_row(line) for line in block if not _SEPARATOR_ROW.match(line)], width)
    else:
        item = _ITEM.match(first)
        indent = first[: len(first) - len(first.lstrip())]
        mark = item[2] if item is not None else ""
        text = strip_inline(" ".join(line.strip() for line in block).removeprefix(mark))
        yield from _wrap(text, width, indent + mark, indent + " " * len(mark))


def _format_rows(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield the rows of a table, each as a paragraph: the first cell, and the others with their headings."""
    headings, *others = rows
    for row in others:
        yield strip_inline(row[0])
        for heading, cell in zip(headings[1:], row[1:], strict=False):
            # Of two columns, the second is the meaning of the first.
            label = f"{strip_inline(heading)}: " if headings[2:] else ""
            if cell:
                yield from _wrap(label + strip_inline(cell), width, "  ", "    ")


def _wrap(text: str, width: int, indent: str, next_indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=next_indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
