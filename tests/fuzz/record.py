"""The figures of the runs as a table: the form of docs/explanation/proof."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genplug import __version__
from tests.fuzz.inputs import read_findings
from tests.fuzz.state import State, Statistics
from tests.fuzz.target import MAX_SECONDS, Target


def build_record(targets: Iterable[Target], state: State, previous: Path | None = None) -> dict[str, Any]:
    """Return the conditions and a row for each target, with the sums in the last row.

    Targets without a run in the directory of ``state`` have the figures of the record ``previous``, if it exists.
    """
    rows: list[tuple[str, ...]] = []
    total, fixed, unfixed = Statistics(), 0, 0
    recorded = json.loads(previous.read_text())["rows"] if previous is not None and previous.exists() else []
    cells_by_title = {title: tuple(cells[:4]) for title, *cells in recorded}
    for target in targets:
        run = state.statistics.get(target.name, Statistics())
        cells = (*_format_run(run), format_number(run.edges))
        if target.name not in state.statistics and target.title in cells_by_title:
            cells = cells_by_title[target.title]
            run = _parse_run(cells)
        kept, found = len(read_findings(target)), len(state.list_findings(target))
        rows.append((target.title, *cells, str(kept), str(found)))
        total.inputs, total.seconds = total.inputs + run.inputs, total.seconds + run.seconds
        fixed, unfixed = fixed + kept, unfixed + found
    rows.append(("all", *_format_run(total), "", str(fixed), str(unfixed)))
    return {
        "conditions": {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "genplug": __version__,
            "atheris": importlib.metadata.version("atheris"),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cores": os.cpu_count(),
            "hang after": f"{MAX_SECONDS:g} s of processor time",
        },
        "columns": ["Target", "Inputs", "Minutes", "Inputs/s", "Edges", "Findings fixed", "Findings open"],
        "rows": rows,
    }


def format_record(record: dict[str, Any]) -> str:
    """Return a record as a table."""
    rows = [record["columns"], *record["rows"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(record["columns"]))]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("  ".join(line) for line in lines)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _parse_run(cells: Sequence[str]) -> Statistics:
    """Return the run of a row; its speed gives the seconds, because the minutes are rounded more."""
    inputs, _, speed, edges = (int(cell.replace(" ", "")) for cell in cells)
    return Statistics(inputs, inputs / speed if speed else 0.0, edges)


def _format_run(run: Statistics) -> tuple[str, str, str]:
    speed = run.inputs / run.seconds if run.seconds else 0.0
    return format_number(run.inputs), format_number(round(run.seconds / 60)), format_number(round(speed))


def format_number(number: int) -> str:
    """Return a number with a space between groups of three digits."""
    return f"{number:,}".replace(",", " ")
