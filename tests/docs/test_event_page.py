"""The page about log events lists every event."""

import json
import logging

from genplug.observe.events import Event
from genplug.observe.log_format import JsonFormatter
from tests.support.pages import code_blocks, inline_code, read_page, table_rows

PAGE = read_page("events")


def test_page_lists_every_event_with_its_level_and_meaning() -> None:
    rows = table_rows(PAGE, "Event")
    assert rows == [[f"`{event.code}`", logging.getLevelName(event.level).lower(), event.meaning] for event in Event]


def test_example_has_the_keys_of_a_log_line_in_their_order() -> None:
    (example,) = code_blocks(PAGE, "json")
    record = logging.LogRecord("genplug", logging.WARNING, "", 0, "text", None, None)
    printed = json.loads(JsonFormatter().format(record))
    listed = [key for row in table_rows(PAGE, "Key") for key in inline_code(row[0])]
    assert list(json.loads(example)) == listed == [*printed, "resource", "device"]
    assert json.dumps(json.loads(example)) == example.strip()
