"""The history of a counter: increases within a window, and the number of samples that are kept."""

import pytest

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
