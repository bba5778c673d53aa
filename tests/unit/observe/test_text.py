"""Times and lists of names in texts."""

import time
from datetime import UTC, datetime

import pytest

from genplug.observe.text import format_time, join_names, to_epoch_seconds


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b", "c"], "a, b, c"), (["a", "b", "c", "d", "e"], "a, b, c and 2 more")],
)
def test_three_names_are_listed_and_the_others_are_counted(names: list[str], text: str) -> None:
    assert join_names(names) == text


def test_time_is_rfc_3339_in_utc_to_the_second() -> None:
    assert format_time(1_795_799_537.9) == "2026-11-27T17:12:17Z"


def test_time_of_the_monotonic_clock_is_converted_to_the_epoch() -> None:
    hour_ago = to_epoch_seconds(time.monotonic() - 3600)
    assert 3600 <= datetime.now(UTC).timestamp() - hour_ago < 3660
