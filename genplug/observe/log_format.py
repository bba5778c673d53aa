"""Formats of the log: JSON for programs, aligned text for people. Each event is one line."""

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable

from genplug.observe.events import Event, LogEvent
from genplug.observe.log_writer import LogWriter
from genplug.spec.printable import escape_json, escape_line, escape_lines

_EVENTS_OF_SEVERAL_LINES = frozenset({Event.CONFIG_INVALID, Event.CONFIG_WARNING})
"""The events whose texts have several lines. In other texts, a newline comes from a device or another program."""

_FAILED_SEND = "ExecuteBatchError"
"""The error of gRPC, which this module does not import, for a message that it cannot send or receive."""


class JsonFormatter(logging.Formatter):
    """``{"ts": …, "level": …, "event": …, "msg": …, facts …}``; ``ts`` is RFC 3339 in UTC with milliseconds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        log_event = _log_event(record)
        line: dict[str, object] = {"ts": _timestamp(record), "level": record.levelname.lower()}
        line["event"] = log_event.event.code if log_event else record.name
        line["msg"] = record.getMessage()
        if log_event:
            line.update(log_event.facts)
        if record.exc_info:
            line["error"] = "".join(traceback.format_exception(*record.exc_info))
        return escape_json(json.dumps(line, ensure_ascii=False, default=str))


class TextFormatter(logging.Formatter):
    """``12:00:01.234 INFO    registered  text  resource=…``; further lines of a text are indented.

    Texts and facts are escaped: a name of a device can contain control sequences of a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        log_event = _log_event(record)
        code = log_event.event.code if log_event else record.name
        facts = log_event.facts if log_event else {}
        fields = "".join(f"  {name}={_format_fact(fact)}" for name, fact in facts.items())
        text = record.getMessage()
        has_several_lines = log_event is None or log_event.event in _EVENTS_OF_SEVERAL_LINES
        text = escape_lines(text).replace("\n", "\n    ") if has_several_lines else escape_line(text)
        line = f"{_timestamp(record)[11:23]} {record.levelname:<7} {code:<20} {text}{fields}"
        if record.exc_info:
            line += "\n" + escape_lines("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return line


def set_up_logging(style: str, level: str, report_dropped: Callable[[int], None] = lambda _: None) -> LogWriter:
    """Log to stderr as ``json`` or ``text``, from a minimum level on (``debug`` to ``error``); return the writer.

    ``report_dropped`` logs a number of lines that were dropped because nothing reads the log.
    """
    writer = LogWriter(sys.stderr.fileno(), report_dropped)
    writer.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    writer.addFilter(summarize_failed_call)
    logging.basicConfig(handlers=[writer], level=logging.WARNING, force=True)
    logging.getLogger("genplug").setLevel(level.upper())
    return writer


def summarize_failed_call(record: logging.LogRecord) -> bool:
    """Replace the traceback of a call that gRPC could not complete by a sentence; return True, to log the record.

    The server of gRPC logs a traceback if the client of a call has disconnected, and the server has not processed that
    before it sends the response (grpcio, ``_handle_exceptions`` in aio/server.pyx.pxi).
    """
    if record.exc_info and type(record.exc_info[1]).__name__ == _FAILED_SEND:
        text = record.getMessage().partition("\n")[0]
        record.msg = f"{text}: gRPC cannot complete the call, usually because its client has disconnected"
        record.args, record.exc_info = (), None
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
    return True


def _log_event(record: logging.LogRecord) -> LogEvent | None:
    """Return the event of a record; records of other libraries have none."""
    return getattr(record, "log_event", None)


def _timestamp(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _format_fact(fact: object) -> str:
    return escape_line(",".join(map(str, fact)) if isinstance(fact, tuple | list) else str(fact))
