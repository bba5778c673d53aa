"""The pages of the reference, as the tests read them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def read_page(name: str) -> str:
    """Return the text of a page of the reference."""
    return (REFERENCE / f"{name}.md").read_text()


def code_blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language, in the order of the text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def headings(text: str, level: int) -> list[str]:
    """Return the headings of a level."""
    return re.findall(rf"^{'#' * level} (.+)$", text, re.MULTILINE)


def table_rows(text: str, first_column: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this heading."""
    lines = text.partition(f"\n| {first_column} |")[2].split("\n")[2:]
    rows = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in rows]


def inline_code(text: str) -> list[str]:
    """Return the texts between backticks."""
    return re.findall(r"`([^`]+)`", text)
