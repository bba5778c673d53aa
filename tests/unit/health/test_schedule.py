"""Which requests are due when: sharing, spreading, and requests that take longer than their period."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from genplug.health.schedule import RequestTiming, Schedule
from genplug.health.workers.protocol import ProbeResponse

A, B = RequestTiming(("file", "", "/a"), 2, 10), RequestTiming(("file", "", "/b"), 2, 10)
RESPONSE = ProbeResponse("answer")
PROBES = [f"probe {number}" for number in range(200)]
"""Subscribers; they are told apart by identity."""


def subscribed(*timings: RequestTiming) -> Schedule[str]:
    schedule: Schedule[str] = Schedule()
    for number, timing in enumerate(timings):
        schedule.subscribe(timing, number, PROBES[number], 0, is_call=False, resource="x")
    return schedule


def run_due(schedule: Schedule[str], now: float) -> list[RequestTiming]:
    """Run what is due; return it."""
    due = schedule.take_due(now)
    for scheduled in due:
        scheduled.record_run(RESPONSE)
    return [scheduled.timing for scheduled in due]


def test_new_request_is_due_at_once() -> None:
    schedule = subscribed(A)
    assert schedule.next_due == 0
    assert run_due(schedule, 0) == [A]
    assert run_due(schedule, 0.1) == []


def test_subscribers_share_a_request() -> None:
    schedule = subscribed(A, A, B)
    assert len(schedule) == 2
    (scheduled, _) = schedule.take_due(0)
    assert scheduled.record_run(RESPONSE) == ("probe 0", "probe 1")
    assert (scheduled.runs, scheduled.response) == (1, RESPONSE)
    scheduled.record_run(RESPONSE)
    assert scheduled.runs == 2


def test_request_has_pool_and_resource_of_its_first_subscriber() -> None:
    schedule: Schedule[str] = Schedule()
    first = schedule.subscribe(A, 0, PROBES[0], 0, is_call=True, resource="vendor.example/a")
    second = schedule.subscribe(A, 1, PROBES[1], 0, is_call=True, resource="vendor.example/b")
    assert second is first
    assert (first.is_call, first.resource) == (True, "vendor.example/a")


def test_different_timeout_or_period_is_a_different_request() -> None:
    assert len(subscribed(A, A._replace(timeout=3), A._replace(period=5))) == 3


def test_request_is_run_once_in_a_period() -> None:
    schedule = subscribed(A)
    times = [step / 10 for step in range(1000)]
    ran = [now for now in times if run_due(schedule, now)]
    assert len(ran) == 11
    # The first run is at once, the next in the request's own part of the period.
    assert all(9.9 < later - earlier < 10.1 for earlier, later in pairwise(ran[1:]))


def test_running_request_is_not_started_again() -> None:
    schedule = subscribed(A)
    (scheduled,) = schedule.take_due(0)
    assert schedule.take_due(25) == []
    assert repr(schedule) == "<Schedule [requests: 1, 1 running]>"
    scheduled.record_run(RESPONSE)
    assert run_due(schedule, 60) == [A]
    assert repr(schedule) == "<Schedule [requests: 1, 0 running]>"


def test_request_without_subscribers_is_removed() -> None:
    schedule = subscribed(A, A)
    schedule.unsubscribe(A, 0, PROBES[0])
    assert len(schedule) == 1
    schedule.unsubscribe(A, 1, PROBES[1])
    assert (len(schedule), schedule.take_due(100), schedule.next_due) == (0, [], None)


def test_removed_request_does_not_delay_the_others() -> None:
    schedule = subscribed(A, B)
    schedule.unsubscribe(A, 0, PROBES[0])
    assert run_due(schedule, 0) == [B]


def test_replaced_subscriber_keeps_the_times_of_its_request() -> None:
    schedule = subscribed(A)
    run_due(schedule, 0)
    due = schedule.next_due
    schedule.subscribe(A, 0, "successor", 1, is_call=False, resource="x")
    schedule.unsubscribe(A, 0, PROBES[0])
    assert schedule.next_due == due
    (scheduled,) = schedule.take_due(20)
    assert scheduled.record_run(RESPONSE) == ("successor",)


def test_removed_request_that_returns_is_due_at_once() -> None:
    schedule = subscribed(A)
    run_due(schedule, 0)
    schedule.unsubscribe(A, 0, PROBES[0])
    schedule.subscribe(A, 0, PROBES[0], 3, is_call=False, resource="x")
    assert run_due(schedule, 3) == [A]


def test_min_runs_is_that_of_the_request_with_the_fewest_runs() -> None:
    assert Schedule[str]().min_runs == 0
    schedule = subscribed(A)
    run_due(schedule, 0)
    assert schedule.min_runs == 1
    schedule.subscribe(B, 1, PROBES[1], 5, is_call=False, resource="x")
    assert schedule.min_runs == 0


@given(st.integers(1, 200), st.floats(0.1, 3600))
def test_requests_are_spread_over_the_period(number: int, period: float) -> None:
    timings = [RequestTiming(("file", "", f"/{index}"), 2, period) for index in range(number)]
    schedule = subscribed(*timings)
    run_due(schedule, 0)
    tick = min(1.0, period / 10)
    ran = 0
    busiest = 0
    for step in range(1, int(period / tick) + 3):
        due = len(run_due(schedule, step * tick))
        ran += due
        busiest = max(busiest, due)
    assert ran >= number
    # An even load has number * tick / period requests in a tick.
    assert busiest <= 3 * number * tick / period + 3
