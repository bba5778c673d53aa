"""Counters by their increase over a window of time; a counter that starts anew has not fallen. Pure."""

from attrs import frozen


@frozen
class CounterHistory:
    """A counter's history: ``total`` counts through resets, ``samples`` are its totals by time within the window."""

    last: float
    total: float
    samples: tuple[tuple[float, float], ...]


def add_sample(before: CounterHistory | None, value: float, now: float, window: float) -> CounterHistory:
    """Return the history after another look."""
    if before is None:
        return CounterHistory(value, 0.0, ((now, 0.0),))
    # After a driver's reload or a device's reset it begins at 0 again: what it shows has come since.
    total = before.total + (value - before.last if value >= before.last else value)
    kept = [sample for sample in before.samples if sample[0] >= now - window]
    # The last one before the window is where the window begins.
    older = before.samples[len(before.samples) - len(kept) - 1 : len(before.samples) - len(kept)]
    samples = (*older, *kept)
    if not samples or samples[-1][1] != total:
        samples = (*samples, (now, total))
    return CounterHistory(value, total, samples)


def increase_in_window(history: CounterHistory, now: float, window: float) -> float:
    """Return by how much the counter rose in the window that ends now."""
    before = [total for at, total in history.samples if at <= now - window]
    start = before[-1] if before else history.samples[0][1]
    return history.total - start
