"""How log lines look: JSON for machines, aligned text for people. One event, one line."""

import json
import logging
import sys
import time
import traceback

from genplug.observe.events import LogEvent


class JsonFormatter(logging.Formatter):
    """``{"ts":…,"level":…,"event":…,"msg":…, facts…}``; ``ts`` is RFC 3339 in UTC with milliseconds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: LogEvent | None = getattr(record, "entry", None)
        line: dict[str, object] = {"ts": _stamp(record), "level": record.levelname.lower()}
        line["event"] = entry.event.code if entry else record.name
        line["msg"] = record.getMessage()
        if entry:
            line.update(entry.facts)
        if record.exc_info:
            line["error"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """``12:00:01.234 INFO    registered  text  resource=…``; a text of several lines keeps them, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: LogEvent | None = getattr(record, "entry", None)
        code = entry.event.code if entry else record.name
        facts = "".join(f"  {name}={_plain(fact)}" for name, fact in (entry.facts if entry else {}).items())
        text = record.getMessage().replace("\n", "\n    ")
        line = f"{_stamp(record)[11:23]} {record.levelname:<7} {code:<20} {text}{facts}"
        if record.exc_info:
            line += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return line


def set_up_logging(style: str, level: str) -> None:
    """Send the log to stderr as ``json`` or ``text``, from a level on (``debug`` … ``error``)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("genplug").setLevel(level.upper())


def _stamp(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _plain(fact: object) -> str:
    return ",".join(map(str, fact)) if isinstance(fact, tuple | list) else str(fact)
