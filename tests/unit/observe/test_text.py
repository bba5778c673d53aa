"""Times and lists of names in texts."""

import time
from datetime import UTC, datetime

import pytest

from genplug.observe.text import format_age, format_time, join_names, summarize_texts, to_epoch_seconds


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


def test_texts_that_differ_in_numbers_only_are_counted_together() -> None:
    texts = [
        "/dev/x0 is gone",
        "0000:3b:00.1 is down",
        "/dev/x1 is gone",
        "no link",
        "0000:3c:0a.0 is down",
        "/dev/x0 is gone",
    ]
    assert summarize_texts(texts) == [
        "3 × for example /dev/x0 is gone",
        "2 × for example 0000:3b:00.1 is down",
        "no link",
    ]
    assert summarize_texts(["no link"] * 562) == ["562 × no link"]
    assert summarize_texts([]) == []


def test_age_has_the_two_largest_units() -> None:
    now = datetime(2026, 11, 27, 17, 30, tzinfo=UTC).timestamp()
    assert format_age("2026-11-27T17:29:00Z", now) == "1m"
    assert format_age("2026-11-26T15:29:58Z", now) == "1d2h"
    assert format_age("2026-11-27T17:30:01Z", now) == "0s"
    assert format_age("", now) == "unknown"
