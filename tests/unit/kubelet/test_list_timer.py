"""The time of a list: a change is listed within a second, also if devices change all the time."""

from collections.abc import Sequence
from itertools import accumulate
from random import Random

import pytest

from genplug.agent.debounce import SCAN_BUDGET, ScanTimer
from genplug.kubelet.list_timer import LATE_CHANGE_SECONDS, LIST_BUDGET, list_due

MAX_SECONDS = 1.0
SCAN_SECONDS = 0.03
"""Seconds of a scan, and of the work until its result is the offer of the endpoint."""


def play(events: Sequence[float]) -> tuple[float, list[float]]:
    """Return when the list has the changes of all events, and when lists were sent; each event changes a device."""
    scans, budget = ScanTimer(fallback_due=float("inf"), budget=SCAN_BUDGET), LIST_BUDGET
    pending = list(events)
    scanned = offered = listed = 0
    offers: list[tuple[float, int]] = []
    changed_at, sent = 0.0, []
    while listed < len(events):
        list_at = list_due(budget, changed_at) if offered != listed else float("inf")
        now = min(
            pending[0] if pending else float("inf"), scans.next, offers[0][0] if offers else float("inf"), list_at
        )
        if pending and now == pending[0]:
            pending.pop(0)
            scans = scans.after_event(now)
        elif offers and now == offers[0][0]:
            changed_at, offered = offers.pop(0)
        elif now == scans.next:
            found = len(events) - len(pending)
            scans = scans.after_scan(now + SCAN_SECONDS, has_found=found > scanned)
            scanned = found
            offers.append((now + SCAN_SECONDS, found))
        else:
            budget, listed = budget.take(now), offered
            sent.append(now)
    return sent[-1], sent


def test_last_of_many_changes_is_listed_within_a_second() -> None:
    random = Random(1)
    for _ in range(500):
        pause = random.choice((0.02, 0.05, 0.1, 0.19, 0.25, 0.3))
        events = list(accumulate(pause * random.uniform(0.5, 1.5) for _ in range(random.randint(1, 120))))
        settled, sent = play(events)
        assert settled - events[-1] <= MAX_SECONDS, events
        assert len(sent) <= LIST_BUDGET.capacity + 1 + (settled - events[0]) / LIST_BUDGET.refill_seconds


def test_change_is_listed_at_once_while_the_budget_allows_it() -> None:
    assert list_due(LIST_BUDGET, 7.0) == 7.0
    assert list_due(LIST_BUDGET.take(7.0), 7.01) == 7.01


def test_list_that_waited_for_the_budget_waits_for_a_change_that_may_follow() -> None:
    budget = LIST_BUDGET
    for _ in range(LIST_BUDGET.capacity):
        budget = budget.take(10.0)
    end = 10.0 + LIST_BUDGET.refill_seconds
    assert list_due(budget, 10.1) == pytest.approx(end)
    assert list_due(budget, end - 0.1) == pytest.approx(end - 0.1 + LATE_CHANGE_SECONDS)
    assert list_due(budget, end + 0.1) == pytest.approx(end + 0.1)
    assert list_due(budget, budget.available_at) == budget.available_at
