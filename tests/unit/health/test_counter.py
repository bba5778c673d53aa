"""The history of a counter: increases within a window, and the number of samples that are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.health.counter import CounterHistory, add_sample
from genplug.spec.limits import MAX_COUNTER_SAMPLES


def test_counter_that_changes_at_each_run_keeps_a_limited_number_of_samples() -> None:
    history: CounterHistory | None = None
    window, period = 1000.0, 0.1
    for number in range(20_000):
        history = add_sample(history, float(number), number * period, window)
    assert history is not None
    assert len(history.samples) <= MAX_COUNTER_SAMPLES + 2
    # The window begins at a kept sample: its increase is slightly too large.
    expected = window / period
    assert expected <= history.increase(19_999 * period, window) <= expected * (1 + 4 / MAX_COUNTER_SAMPLES) + 1


def test_increase_is_exact_while_samples_are_far_apart() -> None:
    history: CounterHistory | None = None
    for at, value in ((0.0, 5.0), (10.0, 6.0), (20.0, 6.0), (30.0, 9.0), (40.0, 2.0)):
        history = add_sample(history, value, at, 60.0)
    assert history is not None
    assert history.increase(40.0, 60.0) == pytest.approx(6.0)
    assert history.increase(75.0, 60.0) == pytest.approx(5.0)


def play(*values: tuple[float, float], window: float) -> CounterHistory:
    """Return the history after values at the given times."""
    history: CounterHistory | None = None
    for at, value in values:
        history = add_sample(history, value, at, window)
    assert history is not None
    return history


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), min_size=1, max_size=30), st.integers(0, 100))
def test_increase_is_that_since_the_start_of_the_window(steps: list[tuple[int, int]], later: int) -> None:
    window = 50.0
    at = value = 0
    values = [(0.0, 0.0)]
    for passed, increase in steps:
        at, value = at + passed, value + increase
        values.append((at, value))
    history = play(*values, window=window)
    now = at + later
    start = max((value for at, value in values if at <= now - window), default=0)
    assert history.increase(now, window) == value - start


def test_increase_at_the_start_of_the_window_does_not_count() -> None:
    history = play((0, 0), (5, 1), window=10)
    assert history.increase(14.9, 10) == 1
    assert history.increase(15, 10) == 0


def test_counter_has_increased_while_the_increase_is_in_the_window() -> None:
    assert not play((0, 5), window=10).has_increased
    assert not play((0, 5), (5, 5), window=10).has_increased
    assert play((0, 5), (5, 6), window=10).has_increased
    assert play((0, 5), (5, 6), (14, 6), window=10).has_increased
    # A window contains its end, and not its start.
    assert not play((0, 5), (5, 6), (15, 6), window=10).has_increased


def test_increases_within_a_part_of_the_window_share_a_sample() -> None:
    window, part = MAX_COUNTER_SAMPLES / 2, 1.0
    assert play((0, 5), (0.5, 6), (0.75, 7), window=window).samples == ((0, 0), (0.75, 2))
    assert play((0, 5), (0.5, 6), (part, 7), window=window).samples == ((0, 0), (0.5, 1), (part, 2))
