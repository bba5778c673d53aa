"""The time at which a changed device list is sent on a stream. Pure; all times are monotonic seconds."""

from typing import Final

from genplug.kubelet.token_bucket import TokenBucket

LIST_BUDGET: Final = TokenBucket(capacity=5, refill_seconds=0.95)
"""How many changed lists a stream sends: each list costs the kubelet a checkpoint with fsync (§4).

A replaced device, or an edit of the configuration, is a change of few lists, which are sent at once. Of a device that
appears and disappears all the time, a change is in a list within a second.
"""
LATE_CHANGE_SECONDS: Final = 0.3
"""Seconds after a change for which a list that had to wait for the budget also waits for further changes.

Of devices that change all the time, a scan follows 0.2 s after the previous one. A list that is sent between two scans
lacks the changes since the first of them. They would have to wait for the budget again, and would be listed after more
than a second.
"""


def list_due(budget: TokenBucket, changed_at: float) -> float:
    """Return when a list is sent whose last change was at a time; a further change can make it due at once.

    A list that has to wait for the budget waits for further changes, too, but not for those that come when the budget
    allows a list: changes that do not end do not delay it longer.
    """
    if changed_at >= budget.available_at:
        return changed_at
    return max(budget.available_at, changed_at + LATE_CHANGE_SECONDS)
