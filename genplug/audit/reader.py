"""Reads the files of an audit log line by line; a damaged line is reported, and the others count."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from msgspec import Struct

from genplug.audit.records import Record, RecordError, parse_record
from genplug.spec.limits import MAX_AUDIT_RECORD_BYTES

_TORN = "the last line is incomplete: the agent or the node stopped while it was written"
_FILE_NAME = re.compile(r"audit-(\d{16})\.jsonl\Z", re.ASCII)


class Problem(Struct, frozen=True):
    """A line of a file that is not a record."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def build_file_name(sequence: int) -> str:
    """Return the name of the file whose first record has a sequence number: names sort as their records do."""
    return f"audit-{sequence:016d}.jsonl"


def is_file_name(name: str) -> bool:
    """Return whether a name is that of a file of an audit log."""
    return _FILE_NAME.match(name) is not None


def list_files(path: Path) -> tuple[tuple[Path, ...], ...]:
    """Return the logs in a path, each as its files in their order.

    A file is a log of its own. A directory is a log, or contains the directories of several logs.

    Raises:
        OSError: the path cannot be read.
    """
    if not stat.S_ISDIR(path.stat().st_mode):
        return ((path,),)
    entries = sorted(path.iterdir())
    files = tuple(entry for entry in entries if is_file_name(entry.name))
    if files:
        return (files,)
    logs = (
        tuple(sorted(file for file in entry.iterdir() if is_file_name(file.name)))
        for entry in entries
        if entry.is_dir()
    )
    return tuple(log for log in logs if log)


def read_records(stream: IO[bytes], name: str) -> Iterator[Record | Problem]:
    """Yield the records of a stream and the problems of its lines, with one line in memory at a time.

    Raises:
        OSError: the stream cannot be read.
    """
    number = 0
    while line := stream.readline(MAX_AUDIT_RECORD_BYTES + 1):
        number += 1
        if len(line) > MAX_AUDIT_RECORD_BYTES:
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_AUDIT_RECORD_BYTES + 1)
            yield Problem(name, number, f"expected at most {MAX_AUDIT_RECORD_BYTES} bytes in a line, found more")
            continue
        if line.isspace():
            continue
        try:
            yield parse_record(line)
        except RecordError as error:
            is_torn = not line.endswith(b"\n")
            yield Problem(name, number, _TORN if is_torn else str(error))
