"""Timers of reloads and scans: bursts are joined, and the first event is not delayed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.agent.debounce import (
    DEBOUNCE_SECONDS,
    MAX_DEBOUNCE_SECONDS,
    MIN_SCAN_INTERVAL_SECONDS,
    SCAN_BUDGET,
    ReloadTimer,
    ScanTimer,
    SettleTimer,
)

STARTED = ScanTimer(fallback_due=60.0, budget=SCAN_BUDGET)


def test_reload_is_due_when_files_have_not_changed_for_a_moment() -> None:
    assert ReloadTimer(60.0).after_event(10.0).due == 10.0 + DEBOUNCE_SECONDS


@given(st.lists(st.floats(0, 0.019), min_size=30, max_size=200))
def test_reload_is_due_although_files_never_stop_changing(pauses: list[float]) -> None:
    timer, now = ReloadTimer(60.0).after_event(10.0), 10.0
    for pause in pauses:
        now += pause
        if timer.due <= now:
            break
        timer = timer.after_event(now)
    assert timer.due <= 10.0 + MAX_DEBOUNCE_SECONDS


def test_read_is_brought_forward_and_never_postponed() -> None:
    timer = ReloadTimer(60.0, changed_at=9.0)
    assert timer.no_later_than(20.0) == ReloadTimer(20.0, changed_at=9.0)
    assert timer.no_later_than(70.0) == timer


def test_files_are_read_again_after_the_interval() -> None:
    assert ReloadTimer(7.0, changed_at=6.9).after_read(7.0, 60.0) == ReloadTimer(67.0)


def test_scan_is_due_at_once_after_the_first_event() -> None:
    assert STARTED.after_scan(1.0, has_found=True).after_event(5.0).next == 5.0


def test_first_scans_that_find_changes_are_due_at_once_and_later_scans_wait() -> None:
    timer, now = STARTED, 5.0
    for _ in range(SCAN_BUDGET.capacity):
        assert timer.after_event(now).next == now
        timer = timer.after_scan(now, has_found=True)
        now += MIN_SCAN_INTERVAL_SECONDS
    waiting = timer.after_event(now)
    assert waiting.next == pytest.approx(5.0 + SCAN_BUDGET.refill_seconds)
    assert waiting.after_event(now + 0.1) == waiting


def test_scans_that_find_no_change_wait_little() -> None:
    timer = STARTED
    for _ in range(100):
        timer = timer.after_scan(5.0, has_found=False)
    assert timer.after_event(5.005).next == 5.0 + MIN_SCAN_INTERVAL_SECONDS


def test_full_scan_is_due_without_events() -> None:
    assert STARTED.next == 60.0
    assert STARTED.after_full_scan(7.0, 60.0, has_found=False).next == 67.0


def test_finished_scan_is_not_due_again() -> None:
    timer = STARTED.after_event(5.0).after_scan(5.0, has_found=False)
    assert timer.due is None
    assert timer.next == 60.0


def test_full_scan_counts_like_a_scan_after_an_event() -> None:
    assert STARTED.after_event(5.0).after_full_scan(7.0, 60.0, has_found=True) == ScanTimer(
        fallback_due=67.0, budget=SCAN_BUDGET.take(7.0), scanned_at=7.0
    )
    assert STARTED.after_full_scan(7.0, 60.0, has_found=False).budget == SCAN_BUDGET


def test_scan_after_an_event_does_not_postpone_the_full_scan() -> None:
    assert STARTED.after_scan(59.0, has_found=True).next == 60.0


def test_devices_are_scanned_again_one_and_five_seconds_after_the_last_event() -> None:
    assert SettleTimer().next == float("inf")
    timer = SettleTimer().after_event(10.0).after_event(10.5)
    assert timer.next == 11.5
    timer = timer.after_scan()
    assert timer.next == 15.5
    assert timer.after_event(12.0).next == 13.0
    assert timer.after_scan().next == float("inf")
