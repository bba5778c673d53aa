"""The token bucket: a burst at once, then a constant rate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.kubelet.token_bucket import TokenBucket

BUCKETS = st.builds(TokenBucket, st.integers(1, 6), st.sampled_from([0.25, 0.5, 1.0, 2.0]))
# Multiples of 1/64 are exact, so that the comparisons below are exact, too.
PAUSES = st.lists(st.integers(0, 256).map(lambda number: number / 64), min_size=1, max_size=60)


def take_all(bucket: TokenBucket, pauses: list[float]) -> list[float]:
    """Return the times of operations that each wait for a pause, and then for a token."""
    now, times = 100.0, []
    for pause in pauses:
        now = max(now + pause, bucket.available_at)
        bucket = bucket.take(now)
        times.append(now)
    return times


@given(BUCKETS)
def test_full_bucket_gives_all_tokens_at_once(bucket: TokenBucket) -> None:
    times = take_all(bucket, [0.0] * (bucket.capacity + 1))
    assert times == [100.0] * bucket.capacity + [100.0 + bucket.refill_seconds]


@given(BUCKETS, PAUSES)
def test_any_period_has_a_limited_number_of_operations(bucket: TokenBucket, pauses: list[float]) -> None:
    times = take_all(bucket, pauses)
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            taken, most = last - first + 1, bucket.capacity + (times[last] - start) / bucket.refill_seconds
            assert taken <= math.floor(most)


@given(BUCKETS, PAUSES)
def test_operation_waits_for_one_interval_at_most(bucket: TokenBucket, pauses: list[float]) -> None:
    times = take_all(bucket, pauses)
    for before, now, pause in zip([100.0, *times], times, pauses, strict=False):
        assert now <= before + max(pause, bucket.refill_seconds)


def test_bucket_is_full_after_a_quiet_time() -> None:
    bucket = TokenBucket(3, 1.0).take(0.0).take(0.0).take(0.0)
    assert bucket.available_at == pytest.approx(1.0)
    assert [bucket.take(10.0).available_at, bucket.take(10.0).take(10.0).available_at] == [9.0, 10.0]
