"""The records of audit logs."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any


def read_documents(directory: Path) -> list[dict[str, Any]]:
    """Return the records of a log as JSON documents, without lines that are not JSON."""
    lines: list[str] = []
    for file in sorted(directory.glob("audit-*.jsonl")):
        # The writer deletes old files meanwhile.
        with suppress(FileNotFoundError):
            lines += file.read_text().splitlines()
    documents = []
    for line in lines:
        with suppress(ValueError):
            documents.append(json.loads(line))
    return documents
