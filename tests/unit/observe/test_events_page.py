"""docs/reference/events.md lists exactly the events there are."""

import logging
from pathlib import Path

from genplug.observe.events import Event

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "events.md"


def test_the_page_lists_every_event_with_its_level_and_meaning() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    expected = [f"| `{e.code}` | {logging.getLevelName(e.level).lower()} | {e.meaning} |" for e in Event]
    assert rows == expected
