"""The formats of log lines."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from genplug.observe.events import Event, EventLog
from genplug.observe.log_format import JsonFormatter, TextFormatter


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Collect what the logger of genplug writes; the test sets the formatter."""
    handler = logging.StreamHandler(io.StringIO())
    logger = logging.getLogger("genplug")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def use(formatter: logging.Formatter) -> None:
    logging.getLogger("genplug").handlers[-1].setFormatter(formatter)


def test_json_line_has_the_event_its_text_and_its_facts(stream: io.StringIO) -> None:
    use(JsonFormatter())
    EventLog().emit(Event.ALLOCATED, "x0 allocated", resource="a.io/x", devices=("x0",))
    line = json.loads(stream.getvalue())
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "event": "allocated",
        "msg": "x0 allocated",
        "resource": "a.io/x",
        "devices": ["x0"],
    }


def test_json_lines_of_an_internal_error_are_the_event_and_the_traceback(stream: io.StringIO) -> None:
    use(JsonFormatter())
    EventLog().emit_failure("failed", ValueError("bad"), method="Allocate")
    event, traceback = map(json.loads, stream.getvalue().splitlines())
    assert (event["event"], event["method"]) == ("internal_error", "Allocate")
    assert (traceback["event"], traceback["error"]) == ("genplug", "ValueError: bad\n")


def test_text_line_has_the_event_its_text_and_its_facts(stream: io.StringIO) -> None:
    use(TextFormatter())
    EventLog().emit(Event.CONFIG_INVALID, "invalid:\nc.yaml:1:1: error", files=("c.yaml", "d.yaml"))
    first, second = stream.getvalue().splitlines()
    assert first[8] == "."
    assert first[13:] == "ERROR   config_invalid       invalid:"
    assert second == "    c.yaml:1:1: error  files=c.yaml,d.yaml"


def test_events_below_the_level_are_not_logged_and_still_reach_listeners(stream: io.StringIO) -> None:
    use(JsonFormatter())
    event_log = EventLog()
    received: list[Event] = []
    event_log.listen(lambda log_event: received.append(log_event.event))
    event_log.emit(Event.LIST_SENT, "sent")
    assert stream.getvalue() == ""
    assert received == [Event.LIST_SENT]
