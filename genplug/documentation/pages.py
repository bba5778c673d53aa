"""Reads the pages of the reference that ship with genplug, and their sections."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from msgspec import Struct

SOURCES = {
    "errors.md": "docs/reference",
    "alerts.md": "docs/reference",
    "metrics.md": "docs/reference",
    "values.yaml": "deploy/helm/genplug",
}
"""The files that the wheel contains, and the directory of each in a checkout."""
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


class Section(Struct, frozen=True):
    """A section of a page: its heading and its Markdown."""

    heading: str
    text: str


@cache
def read_source(name: str) -> str:
    """Return the text of a file: from the installed package, or from a checkout."""
    shipped = Path(__file__).parent / name
    path = shipped if shipped.is_file() else Path(__file__).parents[2] / SOURCES[name] / name
    return path.read_text("utf-8")


def list_sections(name: str) -> Iterator[Section]:
    """Yield the sections of a page with a heading of the second level."""
    _, *parts = _HEADING.split(read_source(name))
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        yield Section(heading, text.strip())


def list_table_rows(name: str, heading: str) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each row of the tables in a section, as Markdown."""
    for section in list_sections(name):
        if section.heading == heading:
            for line in section.text.splitlines():
                if line.startswith("| `"):
                    yield split_row(line)


def split_row(line: str) -> tuple[str, ...]:
    """Return the cells of a row of a table."""
    cells = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
    return tuple(cell.strip().replace("\\|", "|") for cell in cells)
