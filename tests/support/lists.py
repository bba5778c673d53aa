"""Checks of the device lists that a kubelet stand-in received."""

from genplug.kubelet.list_timer import LIST_BUDGET
from genplug.testing.kubelet import KubeletStandIn

_MIN_SECONDS = 0.8
"""Seconds between two lists on arrival when the budget is used up: a loaded machine delays each list differently."""


def assert_limited_rate(kubelet: KubeletStandIn, resource: str) -> None:
    """Check that no period has more changed lists of a resource on a stream than the budget allows."""
    times = [message.time for message in kubelet.messages(resource)]
    # The first list of a stream is not a change.
    ends = zip(times[1:], times[1 + LIST_BUDGET.capacity :], strict=False)
    assert all(last - first > _MIN_SECONDS for first, last in ends)
