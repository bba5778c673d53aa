"""Output of the commands: tables on stdout, messages on stderr."""

import sys
from collections.abc import Sequence


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns without borders, like the tables of kubectl."""
    lines = [tuple(headings), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def print_message(command: str, text: str) -> None:
    """Print a message of a command to stderr; stdout is for its result."""
    print(f"genplug {command}: {text}", file=sys.stderr)
