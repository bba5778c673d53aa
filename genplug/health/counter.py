"""Counters that only increase, and their increase within a window of time. Pure; times are monotonic seconds."""

from msgspec import Struct

from genplug.spec.limits import MAX_COUNTER_SAMPLES


class CounterLimit(Struct, frozen=True):
    """The maximum increase of a counter within a window of time."""

    max_increase: float
    window_seconds: float


class CounterHistory(Struct, frozen=True):
    """The values of a counter so far.

    ``total`` is the increase since the first value, including resets of the counter.
    ``samples`` are the times and totals within the window, and the last sample at or before its start.
    """

    last: float
    total: float
    samples: tuple[tuple[float, float], ...]

    @property
    def has_increased(self) -> bool:
        """Whether the counter increased within the window, so that the increase changes as the window moves."""
        return self.samples[0][1] != self.total

    def increase(self, now: float, window_seconds: float) -> float:
        """Return the increase of the counter in the window that ends now."""
        before_window = [total for at, total in self.samples if at <= now - window_seconds]
        start = before_window[-1] if before_window else self.samples[0][1]
        return self.total - start


def add_sample(history: CounterHistory | None, value: float, now: float, window_seconds: float) -> CounterHistory:
    """Return the history with another value of the counter, which is the first value if there is no history."""
    if history is None:
        return CounterHistory(value, 0.0, ((now, 0.0),))
    # After its driver was reloaded, a counter starts at 0 again: its value is the increase.
    total = history.total + (value - history.last if value >= history.last else value)
    kept = [sample for sample in history.samples if sample[0] > now - window_seconds]
    # The last sample before these is the value at which the window starts.
    older = history.samples[len(history.samples) - len(kept) - 1 : len(history.samples) - len(kept)]
    samples = (*older, *kept)
    if samples and samples[-1][1] == total:
        return CounterHistory(value, total, samples)
    if len(samples) > 1 and now - samples[-2][0] < 2 * window_seconds / MAX_COUNTER_SAMPLES:
        # The increase of this part of the window counts from its start.
        samples = samples[:-1]
    samples = (*samples, (now, total))
    return CounterHistory(value, total, samples)
