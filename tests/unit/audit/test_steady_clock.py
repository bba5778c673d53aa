"""The trust in the time of the system: jumps, corrections, and the times of records of an earlier process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.audit.steady_clock import JUMP_SECONDS, MAX_GAP_SECONDS, STEADY_SECONDS, SteadyClock, seconds_since_boot

DAY = 86400.0
NOW = 1_800_000_000.0
BOOT = 50_000.0


def begin(*record_times: float, now: float = NOW, max_age: float = 90 * DAY) -> SteadyClock:
    clock = SteadyClock(max_age)
    for time in record_times:
        clock.add_record(time)
    clock.begin(now, BOOT)
    return clock


def test_time_is_trusted_if_the_records_are_steady_for_a_day() -> None:
    assert begin(*(NOW - hours * 3600 for hours in range(30, 0, -1))).is_trusted(NOW, BOOT)


@pytest.mark.parametrize(
    "records",
    [
        (),
        (NOW - 3600,),
        (NOW - 20 * DAY, NOW - 19.5 * DAY, NOW - 19 * DAY),
        (NOW - 20 * DAY, NOW - 19.5 * DAY, NOW - 3600),
        (NOW + 20 * DAY, NOW + 20.5 * DAY, NOW + 21 * DAY),
    ],
    ids=["no record", "one record", "gap before the start", "gap before the last record", "records of the future"],
)
def test_time_is_not_trusted_before_it_is_steady_for_a_day(records: tuple[float, ...]) -> None:
    clock = begin(*records)
    assert not clock.is_trusted(NOW, BOOT)
    assert not clock.is_trusted(NOW + DAY / 2, BOOT + DAY / 2)
    assert clock.is_trusted(NOW + DAY, BOOT + DAY)


def test_jump_and_its_correction_each_begin_a_day() -> None:
    clock = begin(NOW - DAY, NOW - DAY / 2, NOW)
    assert clock.is_trusted(NOW + 60, BOOT + 60)
    assert not clock.is_trusted(NOW + 400 * DAY, BOOT + 120)
    assert not clock.is_trusted(NOW + DAY, BOOT + DAY)
    assert clock.is_trusted(NOW + 2 * DAY, BOOT + 2 * DAY)


def test_short_age_needs_no_longer_time() -> None:
    clock = begin(max_age=7200)
    assert not clock.is_trusted(NOW + 7000, BOOT + 7000)
    assert clock.is_trusted(NOW + 7200, BOOT + 7200)


@given(st.lists(st.tuples(st.floats(60, 2 * DAY), st.floats(-500 * DAY, 500 * DAY) | st.just(0.0)), max_size=20))
def test_time_is_never_trusted_within_a_day_after_a_jump(steps: list[tuple[float, float]]) -> None:
    clock = begin(NOW - DAY, NOW - DAY / 2, NOW)
    now, boot, steady_since = NOW, BOOT, BOOT - DAY
    for passed, jump in steps:
        now, boot = now + passed + jump, boot + passed
        if abs(jump) > JUMP_SECONDS + 1:
            steady_since = boot
        is_trusted = clock.is_trusted(now, boot)
        if abs(jump) <= JUMP_SECONDS - 1 or abs(jump) > JUMP_SECONDS + 1:
            assert is_trusted <= (boot - steady_since >= STEADY_SECONDS - 1)


def test_gap_is_longer_than_the_time_between_heartbeats() -> None:
    assert MAX_GAP_SECONDS > 600
    assert seconds_since_boot() > 0
