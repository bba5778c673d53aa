"""Fenced blocks of the documentation's Markdown pages, with the markers that precede them.

A marker is an HTML comment on its own line directly above a block:

- ``<!-- file: NAME -->``: the tests write the block into the working directory of the page's console examples.
- ``<!-- no-run: REASON -->``: the tests do not execute this console block.
- ``<!-- invalid: CODES -->``: the configuration in this block has exactly the errors with these codes.
- ``<!-- not-checked: REASON -->``: the tests do not check the content of this block.
"""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "deploy/README.md",
    ROOT / "deploy/helm/genplug/README.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
)

_FENCE = re.compile(r"^ *(?P<fence>`{3,}|:{3,}) *(?P<info>[^`\s]*)")
_MARKER = re.compile(r"^ *<!-- (?P<name>file|invalid|no-run|not-checked): (?P<value>.+) -->$")


class Block(Struct, frozen=True):
    """A fenced block: its page, the line of its fence (from 1), its language, its text and its markers."""

    page: Path
    line: int
    language: str
    text: str
    file: str = ""
    invalid: str = ""
    no_run: str = ""
    not_checked: str = ""

    @property
    def location(self) -> str:
        """Where the block is, as editors read it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in order."""
    lines = iter(enumerate(page.read_text().splitlines(), 1))
    markers: dict[str, str] = {}
    for number, line in lines:
        if marker := _MARKER.match(line):
            markers[marker["name"].replace("-", "_")] = marker["value"]
        elif opening := _FENCE.match(line):
            content = []
            for _, inner in lines:
                if inner.strip() == opening["fence"]:
                    break
                content.append(inner)
            text = textwrap.dedent("\n".join(content)) + "\n"
            yield Block(page, number, opening["info"], text, **markers)
            markers = {}
        elif line.strip():
            markers = {}


def all_blocks(*languages: str) -> list[Block]:
    """Return the blocks of all pages in these languages; of every language without arguments."""
    return [block for page in PAGES for block in blocks(page) if not languages or block.language in languages]
