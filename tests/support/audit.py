"""Audit logs of agents: their records, and the assignments that they contain."""

import json
from pathlib import Path
from typing import Any

from genplug.audit.history import History, Interval
from genplug.audit.reader import list_files, read_records
from genplug.audit.records import Record


def read_documents(directory: Path) -> list[dict[str, Any]]:
    """Return the records of a log as JSON documents, without lines that are not JSON."""
    documents = []
    for file in sorted(directory.glob("audit-*.jsonl")):
        for line in file.read_text().splitlines():
            try:
                documents.append(json.loads(line))
            except ValueError:
                continue
    return documents


def read_log(directory: Path) -> list[Record]:
    """Return the records of a log."""
    records = []
    for file in (file for log in list_files(directory) for file in log):
        with file.open("rb") as stream:
            records += [item for item in read_records(stream, file.name) if isinstance(item, Record)]
    return records


def read_intervals(directory: Path) -> list[Interval]:
    """Return the assignments of a log, those that have ended first."""
    history = History()
    ended = [item for record in read_log(directory) for item in history.apply(record) if isinstance(item, Interval)]
    return [*ended, *history.list_open()]
