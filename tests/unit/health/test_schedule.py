"""Which requests are due when: sharing, spreading, and requests that take longer than their period."""

import math
import sys
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from genplug.health.schedule import MAX_GROUP_REQUESTS, DueRequests, RequestTiming, Schedule, ScheduledRequest
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
    due = take_due(schedule, now)
    for scheduled in due:
        scheduled.record_run(RESPONSE)
    return [scheduled.timing for scheduled in due]


def take_due(schedule: Schedule[str], now: float) -> list[ScheduledRequest[str]]:
    """Return the requests that are due, without their batches."""
    return [scheduled for due in schedule.take_due(now) for scheduled in due.requests]


def test_new_request_is_due_at_once() -> None:
    schedule = subscribed(A)
    assert schedule.next_due == 0
    assert run_due(schedule, 0) == [A]
    assert run_due(schedule, 0.1) == []


def test_subscribers_share_a_request() -> None:
    schedule = subscribed(A, A, B)
    assert len(schedule) == 2
    (scheduled, _) = take_due(schedule, 0)
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
    (scheduled,) = take_due(schedule, 0)
    assert take_due(schedule, 25) == []
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
    (scheduled,) = take_due(schedule, 20)
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


def grouped(count: int) -> Schedule[str]:
    """Return a schedule of requests that have run once, and that are due at the same time afterwards."""
    schedule: Schedule[str] = Schedule()
    number = 0
    while len(schedule) < count:
        timing = RequestTiming(("file", "", f"/{number}"), 2, 10)
        scheduled = schedule.subscribe(timing, number, "probe", 0, is_call=False, resource="x")
        if scheduled.group.slot != 5:
            schedule.unsubscribe(timing, number, "probe")
        number += 1
    run_due(schedule, 0)
    return schedule


def take_group(schedule: Schedule[str], now: float) -> DueRequests[str]:
    (due,) = schedule.take_due(now)
    return due


def confirm(due: DueRequests[str]) -> None:
    due.requests[0].group.record_unchanged(due.requests)


def test_group_is_due_with_the_same_batch_in_each_period() -> None:
    schedule = grouped(3)
    first = take_group(schedule, 10)
    assert len(first.requests) == 3
    confirm(first)
    second = take_group(schedule, 20)
    assert second == first
    assert second.batch is first.batch is not None


@given(st.floats(0.1, 86_400), st.integers(0, 10**7))
def test_group_is_due_again_after_the_present_time(period: float, turn: int) -> None:
    schedule: Schedule[str] = Schedule()
    group = schedule.subscribe(A._replace(period=period), 0, "probe", 0, is_call=False, resource="x").group
    tick = period / max(10, math.ceil(period))
    now = turn * tick
    due = group.next_due(now)
    assert now < due < now + 1.1 * period
    assert group.next_due(due) > due


def test_settled_requests_keep_no_memory() -> None:
    group = grouped(100).take_due(10)[0].requests[0].group
    assert len(group.unsettled) == 100
    for scheduled in group.requests:
        group.settle(scheduled)
    assert sys.getsizeof(group.unsettled) == sys.getsizeof(set())


def test_new_requests_are_due_without_a_batch() -> None:
    assert [(len(due.requests), due.batch) for due in subscribed(A, B).take_due(0)] == [(2, None)]


def test_changed_group_has_another_batch_with_the_same_key() -> None:
    schedule = grouped(3)
    first = take_group(schedule, 10)
    confirm(first)
    removed = first.requests[1]
    (number,) = removed.subscribers
    schedule.unsubscribe(removed.timing, number, "probe")
    second = take_group(schedule, 20)
    assert second.requests == (first.requests[0], first.requests[2])
    assert first.batch is not None
    assert second.batch is not None
    assert second.batch is not first.batch
    assert second.batch.key == first.batch.key


def test_other_requests_of_a_group_run_while_a_request_is_running() -> None:
    schedule = grouped(3)
    first = take_group(schedule, 10)
    hung, *others = first.requests
    hung.group.record_unchanged(others)
    second = take_group(schedule, 20)
    # The worker that keeps the group has not run these, so it does not know their last responses.
    assert (list(second.requests), second.batch) == (others, None)
    assert hung.group.batch is not first.batch
    assert [scheduled.runs for scheduled in first.requests] == [1, 2, 2]
    hung.record_run(RESPONSE)
    hung.group.record_unchanged(second.requests)
    assert take_group(schedule, 30).batch is hung.group.batch
    assert [scheduled.runs for scheduled in first.requests] == [2, 3, 3]


def test_unchanged_runs_of_a_group_count_for_each_request() -> None:
    schedule = grouped(3)
    assert schedule.min_runs == 1
    due = take_group(schedule, 10)
    assert repr(schedule) == "<Schedule [requests: 3, 3 running]>"
    confirm(due)
    assert repr(schedule) == "<Schedule [requests: 3, 0 running]>"
    assert [scheduled.runs for scheduled in due.requests] == [2, 2, 2]
    assert schedule.min_runs == 2


def test_request_that_joins_a_group_has_no_runs() -> None:
    schedule = grouped(2)
    confirm(take_group(schedule, 10))
    group = take_group(schedule, 20).requests[0].group
    number = 1000
    while len(group.requests) == 2:
        timing = RequestTiming(("file", "", f"/{number}"), 2, 10)
        joined = schedule.subscribe(timing, number, "probe", 20, is_call=False, resource="x")
        number += 1
    assert joined.runs == 0


def test_group_has_a_limited_number_of_requests() -> None:
    schedule = grouped(MAX_GROUP_REQUESTS + 1)
    due = schedule.take_due(10)
    assert [len(each.requests) for each in due] == [MAX_GROUP_REQUESTS, 1]
    batches = [each.batch for each in due]
    assert batches[0] is not None
    assert batches[1] is not None
    assert batches[0].key != batches[1].key


def test_many_new_requests_are_due_in_several_parts() -> None:
    timings = [RequestTiming(("file", "", f"/{number}"), 2, 10) for number in range(MAX_GROUP_REQUESTS + 1)]
    schedule: Schedule[str] = Schedule()
    for number, timing in enumerate(timings):
        schedule.subscribe(timing, number, "probe", 0, is_call=False, resource="x")
    assert [len(due.requests) for due in schedule.take_due(0)] == [MAX_GROUP_REQUESTS, 1]


def test_calls_and_reads_are_due_separately() -> None:
    schedule = subscribed(A)
    schedule.subscribe(B, 1, PROBES[1], 0, is_call=True, resource="x")
    assert [(due.requests[0].timing, due.is_call) for due in schedule.take_due(0)] == [(A, False), (B, True)]


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
