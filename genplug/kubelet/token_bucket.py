"""A token bucket: a few operations at once, then one for each interval. Pure; all times are monotonic seconds."""

from msgspec import Struct
from msgspec.structs import replace


class TokenBucket(Struct, frozen=True):
    """``capacity`` tokens, of which one returns every ``refill_seconds``; an operation takes a token.

    It is full at first. In any period of ``n * refill_seconds``, at most ``capacity + n`` tokens are taken.
    """

    capacity: int
    refill_seconds: float
    full_at: float = float("-inf")
    """When all tokens are back."""

    @property
    def available_at(self) -> float:
        """When a token is available: in the past if one is available now."""
        return self.full_at - (self.capacity - 1) * self.refill_seconds

    def take(self, now: float) -> "TokenBucket":
        """Return the bucket without a token; call this only if one is available."""
        return replace(self, full_at=max(self.full_at, now) + self.refill_seconds)
