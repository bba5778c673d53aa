"""The formats of log lines."""

import io
import json
import logging
import subprocess
import sys
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


HOSTILE = "\x1b[31m\x07\n\u202e\u2066\x9b\u200b\x85\u2028"


def test_text_of_a_device_is_one_escaped_line(stream: io.StringIO) -> None:
    use(TextFormatter())
    EventLog().emit(Event.DEVICE_UNHEALTHY, f"x{HOSTILE} is unhealthy", device=HOSTILE, paths=(HOSTILE,))
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.removesuffix("\n").isprintable()


def test_lines_of_a_configuration_error_are_escaped_and_indented(stream: io.StringIO) -> None:
    use(TextFormatter())
    EventLog().emit(Event.CONFIG_INVALID, "invalid:\nERROR \x1b\u202e\x85")
    first, second = stream.getvalue().removesuffix("\n").split("\n")
    assert first.endswith("invalid:")
    assert second == r"    ERROR \x1b\u202e\x85"


def test_traceback_is_escaped(stream: io.StringIO) -> None:
    use(TextFormatter())
    EventLog().emit_failure(HOSTILE, ValueError(HOSTILE))
    assert stream.getvalue().replace("\n", "").isprintable()


def test_json_line_has_the_values_and_printable_characters_only(stream: io.StringIO) -> None:
    use(JsonFormatter())
    EventLog().emit(Event.DEVICE_UNHEALTHY, HOSTILE, device=HOSTILE)
    line = stream.getvalue().removesuffix("\n")
    assert line.isprintable()
    assert (json.loads(line)["msg"], json.loads(line)["device"]) == (HOSTILE, HOSTILE)


LOG_FAILED_CALL = """
import logging
from grpc._cython import cygrpc
from genplug.observe.log_format import set_up_logging
set_up_logging("STYLE", "info")
for logger in ("grpc._cython.cygrpc", "asyncio"):
    try:
        raise cygrpc.ExecuteBatchError("Failed execute_batch")
    except cygrpc.ExecuteBatchError:
        logging.getLogger(logger).exception("The call of %s failed\\nfuture: x", "/Allocate")
logging.shutdown()
"""


@pytest.mark.parametrize("style", ["json", "text"])
def test_call_that_grpc_cannot_complete_is_a_line_without_a_traceback(style: str) -> None:
    script = LOG_FAILED_CALL.replace("STYLE", style)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "The call of /Allocate failed: gRPC cannot complete the call, usually because its client has" in line
        assert "warning" in line.lower()
        assert "Traceback" not in line
