"""The output of ``genplug audit``: tables, and a document whose records are printed while they are read."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from genplug.audit.history import Interval, Loss
from genplug.audit.query import Answer, Query
from genplug.audit.records import Assignment, Record, format_optional_time, format_time
from genplug.cli.output import format_json, format_table, format_yaml, print_message, table_width
from genplug.spec.printable import escape_json, escape_line

_MAX_HARDWARE = 3
"""Devices of an assignment whose hardware a table shows."""
_SHOWN_ATTRIBUTES = ("pci.address", "usb.serial", "attr.serial")


class Printer(Protocol):
    """Prints an answer in a format."""

    def begin(self) -> None:
        """Print what precedes the records."""

    def print_record(self, record: Record) -> None:
        """Print a record that the query selects."""

    def end(self, answer: Answer) -> None:
        """Print what follows the records."""


def build_printer(output: str, query: Query, *, lists_records: bool) -> Printer:
    """Return the printer for a format (``table``, ``json`` or ``yaml``)."""
    if output == "table":
        return _TablePrinter(query, lists_records=lists_records)
    return _DocumentPrinter(query, is_yaml=output == "yaml")


class _TablePrinter:
    def __init__(self, query: Query, *, lists_records: bool) -> None:
        self._query = query
        self._lists_records = lists_records

    def begin(self) -> None:
        pass

    def print_record(self, record: Record) -> None:
        node = f"{record.node} " if record.node else ""
        line = f"{format_time(record.time)} {node}{record.type.value}: {_summarize_record(record)}"
        print(escape_line(line.rstrip(": ")))

    def end(self, answer: Answer) -> None:
        if not self._lists_records:
            self._print_assignments(answer)
        for loss in answer.losses:
            print_message("audit", _describe_loss(loss))

    def _print_assignments(self, answer: Answer) -> None:
        if not answer.intervals:
            print("no assignment in this range of time")
            return
        rows = [self._row(interval) for interval in answer.intervals]
        print(format_table(("FROM", "TO", "CONTAINER", "DEVICES", "CONFIG"), rows, table_width()))

    def _row(self, interval: Interval) -> tuple[str | tuple[str, ...], ...]:
        assignment, query = interval.assignment, self._query
        is_possible = not interval.must_overlap(query.start, query.end)
        node = (interval.node,) if interval.node else ()
        return (
            _format_begin(assignment),
            _format_end(interval),
            (_format_container(assignment), *node, *(("(possibly)",) if is_possible else ())),
            (assignment.resource, *assignment.ids, *_format_hardware(assignment)),
            (assignment.config_sha256 or "unknown")[:12],
        )


class _DocumentPrinter:
    """Prints a document; its list of records is not kept in memory."""

    def __init__(self, query: Query, *, is_yaml: bool) -> None:
        self._query = query
        self._is_yaml = is_yaml
        self._has_records = False

    def begin(self) -> None:
        head = {"apiVersion": "genplug.io/v1alpha1", "kind": "AuditReport", "query": _build_query(self._query)}
        if self._is_yaml:
            print(format_yaml(head).rstrip())
        else:
            print(format_json(head).removesuffix("\n}") + ',\n  "records": [', end="")

    def print_record(self, record: Record) -> None:
        fields = dict(record.fields)
        if self._is_yaml:
            if not self._has_records:
                print("records:")
            print(format_yaml([fields]).rstrip())
        else:
            text = escape_json(json.dumps(fields, indent=2, ensure_ascii=False))
            print(("," if self._has_records else "") + "\n" + textwrap.indent(text, "    "), end="")
        self._has_records = True

    def end(self, answer: Answer) -> None:
        tail = {
            "assignments": [_build_assignment(interval, self._query) for interval in answer.intervals],
            "losses": list(map(_build_loss, answer.losses)),
            "problems": [
                {"file": problem.file, "line": problem.line, "message": problem.text} for problem in answer.problems
            ],
            "truncated": answer.is_truncated,
        }
        if self._is_yaml:
            print(("" if self._has_records else "records: []\n") + format_yaml(tail).rstrip())
        else:
            print(("\n  ]," if self._has_records else "],") + format_json(tail).removeprefix("{"))


def _build_query(query: Query) -> dict[str, Any]:
    return {
        "device": query.device,
        "pod": None if query.pod is None else "/".join(query.pod),
        "resource": query.resource,
        "types": sorted(query.types),
        "from": format_optional_time(query.start),
        "to": format_optional_time(query.end),
    }


def _build_assignment(interval: Interval, query: Query) -> dict[str, Any]:
    return {
        "node": interval.node,
        **interval.assignment.as_json(),
        "endedBy": format_optional_time(interval.ended_by),
        "endReason": interval.reason.value if interval.reason is not None else None,
        "state": _state(interval),
        "certain": interval.must_overlap(query.start, query.end),
    }


def _build_loss(loss: Loss) -> dict[str, Any]:
    return {
        "node": loss.node,
        "from": format_time(loss.start),
        "to": format_time(loss.end),
        "records": loss.count,
        "deleted": loss.is_deleted,
    }


def _state(interval: Interval) -> str:
    if interval.ended_by is not None:
        return "ended"
    return "unknown" if interval.is_doubtful else "open"


def _describe_loss(loss: Loss) -> str:
    node = f"{loss.node}: " if loss.node else ""
    cause = "are not in the files" if loss.is_deleted else "were lost, because the log could not be written"
    times = f"between {format_time(loss.start)} and {format_time(loss.end)}"
    return f"{node}{loss.count or 'some'} records {times} {cause}; assignments of this time can be missing"


def _format_begin(assignment: Assignment) -> str | tuple[str, ...]:
    if assignment.allocated_at is not None:
        return _shorten(assignment.allocated_at)
    return ("before", _shorten(assignment.first_seen)) if assignment.first_seen is not None else "unknown"


def _format_end(interval: Interval) -> str | tuple[str, ...]:
    last_seen = interval.assignment.last_seen
    seen = ("seen", _shorten(last_seen)) if last_seen is not None else ()
    if interval.ended_by is None:
        return ("unknown" if interval.is_doubtful else "not ended", *seen)
    return (*seen, "ended by", _shorten(interval.ended_by))


def _format_container(assignment: Assignment) -> str:
    container = assignment.container
    return "unknown" if container is None else f"{container.namespace}/{container.pod}/{container.name}"


def _format_hardware(assignment: Assignment) -> Iterator[str]:
    for hardware in assignment.hardware[:_MAX_HARDWARE]:
        identities = [value for name in _SHOWN_ATTRIBUTES for value in hardware.attributes.get(name, ())]
        others = [
            value
            for name, values in hardware.attributes.items()
            if any(word in name.lower() for word in ("uuid", "guid", "wwid", "unique"))
            for value in values
        ]
        yield from dict.fromkeys((*identities, *others) or hardware.paths[:1])
    more = len(assignment.hardware) - _MAX_HARDWARE + assignment.hardware_omitted
    if more > 0:
        yield f"and {more} more"


def _shorten(epoch_seconds: float | None) -> str:
    """Return a time for people, to the second: ``2026-11-27T17:22:17Z``."""
    return "" if epoch_seconds is None else f"{format_time(epoch_seconds)[:19]}Z"


def _summarize_record(record: Record) -> str:
    """Return the content of a record as a line."""
    fields, assignment = record.fields, record.assignment
    if assignment is not None:
        parts = [assignment.resource, ", ".join(assignment.ids), _format_container(assignment)]
        if fields.get("endedBy"):
            parts.append(f"ended by {fields['endedBy']} ({fields.get('reason')})")
        return "; ".join(parts)
    known = ("sequence", "apiVersion", "kind", "time", "node", "version", "configSha256", "type")
    return "; ".join(
        f"{name} {_summarize_value(value)}" for name, value in fields.items() if name not in known and value
    )


def _summarize_value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_summarize_value, value))
    if isinstance(value, Mapping):
        hardware = value.get("hardware")
        if isinstance(hardware, Mapping):
            return f"{value.get('resource')}/{hardware.get('device')}"
        return ", ".join(f"{key}: {_summarize_value(item)}" for key, item in value.items())
    return str(value)
