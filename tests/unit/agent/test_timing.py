"""When the agent looks again: bursts are joined, the first news waits for nothing."""

from hypothesis import given
from hypothesis import strategies as st

from genplug.agent.debounce import IDLE_SCAN_INTERVAL, MAX_PATIENCE, QUIET, SCAN_INTERVAL, ReloadTimer, ScanTimer


def test_a_changed_file_is_read_when_writing_has_been_quiet_for_a_moment() -> None:
    assert ReloadTimer(60.0).after_event(10.0).due == 10.0 + QUIET


@given(st.lists(st.floats(0, 0.019), min_size=30, max_size=200))
def test_files_that_never_stop_changing_are_read_all_the_same(pauses: list[float]) -> None:
    reading, now = ReloadTimer(60.0).after_event(10.0), 10.0
    for pause in pauses:
        now += pause
        if reading.due <= now:
            break
        reading = reading.after_event(now)
    assert reading.due <= 10.0 + MAX_PATIENCE


def test_the_first_event_after_a_quiet_time_is_scanned_for_at_once() -> None:
    quiet = ScanTimer(fallback_due=60.0).after_scan(1.0, 60.0, has_found=True)
    assert quiet.after_event(5.0).next == 5.0


def test_a_burst_after_a_find_waits_out_the_second() -> None:
    found = ScanTimer(fallback_due=60.0).after_scan(5.0, 60.0, has_found=True)
    assert found.after_event(5.1).next == 5.0 + SCAN_INTERVAL
    assert found.after_event(5.1).after_event(5.9).next == 5.0 + SCAN_INTERVAL


def test_noise_that_changes_nothing_does_not_hold_up_news() -> None:
    nothing = ScanTimer(fallback_due=60.0).after_scan(5.0, 60.0, has_found=False)
    assert nothing.after_event(5.01).next == 5.0 + IDLE_SCAN_INTERVAL


def test_without_events_the_net_is_what_is_due() -> None:
    assert ScanTimer(fallback_due=60.0).next == 60.0
    assert ScanTimer(fallback_due=0.0).after_scan(7.0, 60.0, has_found=False).next == 67.0
