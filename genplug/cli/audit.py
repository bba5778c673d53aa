"""``genplug audit``: answers questions about the audit logs of agents."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from genplug.cli.options import parse_period
from genplug.cli.output import print_message

if TYPE_CHECKING:
    from genplug.audit.query import Answer, Query
    from genplug.audit.reader import Problem
    from genplug.audit.records import Record

DESCRIPTION = """\
Show who had a device, which devices a pod had, or the records of audit logs. `genplug run --audit-dir` writes the log.

The kubelet does not report when a pod ends, so the end of an assignment is between two times. An assignment that may
have existed in the range of time, but need not have, is marked with `possibly`.
"""
EPILOG = """\
examples:
  genplug audit --device FT4Q1A2B --from 2026-11-26T22:00Z --to 2026-11-27T06:00Z    who had this device
  genplug audit --pod batch/training-7 -o json                                       which devices had this pod
  genplug audit --since 2h                                                           records of the last two hours
  genplug audit --type deviceUnhealthy --device gpu0 node-1/ node-2/                 health, in the logs of two nodes
  kubectl exec --namespace genplug daemonset/genplug -- genplug audit --pod batch/training-7

A path is a file, a directory of a log, a directory that contains the directories of several logs, or '-' for standard
input.

`genplug schema audit-report` describes the keys of `-o json` and `-o yaml`, `genplug schema audit` those of a record.

exit codes: 0 success, 1 a log cannot be read, 2 usage error or unknown device, pod or resource
"""
DIR_VARIABLE = "GENPLUG_AUDIT_DIR"
TYPES = (
    "started",
    "stopped",
    "heartbeat",
    "gap",
    "configLoaded",
    "configRefused",
    "devicesAdded",
    "deviceRemoved",
    "deviceHealthy",
    "deviceUnhealthy",
    "deviceWithheld",
    "allocated",
    "refused",
    "assigned",
    "released",
    "kubeletRestarted",
    "registered",
    "disconnected",
)
"""The values of :class:`genplug.audit.records.RecordType`, which --help does not import."""
_UNREADABLE, _UNKNOWN = 1, 2
_MAX_PROBLEMS = 10
"""Problems that are printed as messages; the documents contain more."""


class LogError(Exception):
    """A log cannot be read; the text names the path and suggests what to do."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help=f"files or directories of audit logs, or '-' (default: {DIR_VARIABLE} from the environment)",
    )
    subject = parser.add_mutually_exclusive_group()
    subject.add_argument(
        "--device", metavar="NAME", help="device ID, path, serial number, PCI address, or another identifying value"
    )
    subject.add_argument("--pod", metavar="NAMESPACE/POD", type=_parse_pod, help="namespace and name of a pod")
    parser.add_argument("--resource", metavar="NAME", help="name of a resource")
    parser.add_argument(
        "--type", action="append", choices=TYPES, default=[], help="show the records of this type; can be repeated"
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="TIME",
        type=_parse_time,
        help="start of the range, for example 2026-11-27T17:00Z; without an offset, the time is in UTC",
    )
    parser.add_argument("--to", dest="end", metavar="TIME", type=_parse_time, help="end of the range")
    parser.add_argument(
        "--since", metavar="PERIOD", type=parse_period, help="start of the range before now, for example 2h or 7d"
    )
    parser.add_argument(
        "-o", "--output", choices=("table", "json", "yaml"), default="table", help="format (default: table)"
    )
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Print the answer and return the exit code."""
    from genplug.audit.query import Answer, Query, answer_query  # noqa: PLC0415 - --help does not need it
    from genplug.audit.records import RecordType  # noqa: PLC0415
    from genplug.cli.audit_output import build_printer  # noqa: PLC0415

    if arguments.since is not None and arguments.start is not None:
        arguments.usage_error("--since and --from cannot be combined")
    paths = arguments.paths or list(filter(None, [os.environ.get(DIR_VARIABLE)]))
    if not paths:
        arguments.usage_error(f"PATH is required, because {DIR_VARIABLE} is not set")
    start = arguments.start if arguments.since is None else max(time.time() - arguments.since, 0.0)
    query = Query(
        arguments.device,
        arguments.pod,
        arguments.resource,
        frozenset(map(RecordType, arguments.type)),
        start,
        arguments.end,
    )
    lists_records = bool(arguments.type) or (query.device is None and query.pod is None)
    printer = build_printer(arguments.output, query, lists_records=lists_records)
    answer = Answer()
    has_records = False
    if lists_records:
        printer.begin()
    try:
        for log, is_directory in _open_logs(paths):
            for record in answer_query(query, log, answer, is_directory=is_directory):
                has_records = True
                if lists_records:
                    printer.print_record(record)
    except LogError as error:
        print_message("audit", str(error))
        return _UNREADABLE
    _print_notes(answer)
    unknown = None if has_records or answer.by_key else _find_unknown(query, answer)
    if unknown is not None:
        _print_unknown(*unknown, answer)
    if not lists_records and unknown is None:
        printer.begin()
    if lists_records or unknown is None:
        # The document of records has begun.
        printer.end(answer)
    return _UNKNOWN if unknown is not None else 0


def _open_logs(paths: list[str]) -> Iterator[tuple[Iterator["Record | Problem"], bool]]:
    """Yield the records of each log, and whether it is a directory.

    Raises:
        LogError: a path cannot be read, or contains no log.
    """
    from genplug.audit.reader import list_files, read_records  # noqa: PLC0415 - see run

    for path in paths:
        if path == "-":
            yield read_records(sys.stdin.buffer, "<stdin>"), False
            continue
        try:
            logs = list_files(Path(path))
        except OSError as error:
            raise LogError(f"cannot read {path}: {error.strerror}") from None
        if not logs:
            raise LogError(f"expected files audit-*.jsonl in {path}, found none; is it the directory of --audit-dir?")
        for files in logs:
            yield _read_files(files), files != (Path(path),)


def _read_files(files: tuple[Path, ...]) -> Iterator["Record | Problem"]:
    """Yield the records of the files of a log.

    Raises:
        LogError: a file cannot be read.
    """
    from genplug.audit.reader import read_records  # noqa: PLC0415 - see run

    for file in files:
        try:
            with file.open("rb") as stream:
                yield from read_records(stream, str(file))
        except FileNotFoundError:
            # The agent deletes old files meanwhile.
            continue
        except OSError as error:
            raise LogError(f"cannot read {file}: {error.strerror}; run the command as the owner or as root") from None


def _find_unknown(query: "Query", answer: "Answer") -> tuple[str, str] | None:
    """Return the kind and the name of what a query names and the logs do not contain at any time, or None."""
    names = {name.lower() for name in answer.names}
    if query.device is not None and query.device.lower() not in names:
        return "device", query.device
    if query.pod is not None and "/".join(query.pod).lower() not in names:
        return "pod", "/".join(query.pod)
    if query.resource is not None and query.resource not in answer.resources:
        return "resource", query.resource
    return None


def _print_unknown(kind: str, name: str, answer: "Answer") -> None:
    from genplug.config.schema import did_you_mean  # noqa: PLC0415 - only this message needs it

    hint = did_you_mean(name, answer.resources if kind == "resource" else answer.names)
    text = f"the logs do not contain the {kind} {name}"
    print_message("audit", f"{text}: {hint}" if hint else f"{text}; `genplug audit --type allocated` lists assignments")


def _print_notes(answer: "Answer") -> None:
    for problem in answer.problems[:_MAX_PROBLEMS]:
        print_message("audit", f"skipped: {problem}")
    if len(answer.problems) > _MAX_PROBLEMS:
        print_message("audit", f"skipped {len(answer.problems) - _MAX_PROBLEMS} more lines")
    if answer.is_truncated:
        print_message("audit", f"the answer has only the first {len(answer.intervals)} assignments; limit its time")


def _parse_pod(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise argparse.ArgumentTypeError(f"expected NAMESPACE/POD, for example default/web-0, found {text!r}")
    return namespace, name


def _parse_time(text: str) -> float:
    from genplug.audit.records import RecordError, parse_time  # noqa: PLC0415 - only these options need it

    try:
        return parse_time(text)
    except RecordError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
