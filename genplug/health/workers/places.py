"""The places of a pool for runs that wait, of which no resource can take all."""

import asyncio
from collections import Counter


class Places:
    """A number of places for the runs of resources. For one event loop.

    A resource has at most ``per_resource`` places. The last ``reserved`` places are for resources without a place, so
    that many slow runs of a few resources do not delay the others.
    """

    def __init__(self, total: int, per_resource: int, reserved: int) -> None:
        self.total = total
        self.per_resource = per_resource
        self._reserved = reserved
        self._used: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"<Places [{self.used} of {self.total} used, {len(self._waiting)} waiting]>"

    @property
    def used(self) -> int:
        """The number of places in use."""
        return self._used.total()

    def count(self, resource: str) -> int:
        """Return the number of places of a resource."""
        return self._used[resource]

    def is_free(self, resource: str) -> bool:
        """Return whether there is a place for another run of a resource."""
        count = self._used[resource]
        shared = self.total if not count else self.total - self._reserved
        return count < self.per_resource and self.used < shared

    def shortage(self, resource: str, noun: str) -> str:
        """Return why there is no place for a resource; ``noun`` names the runs: "reads", "calls"."""
        if (count := self._used[resource]) >= self.per_resource:
            return f"{count} other {noun} of {resource} use all places of a resource"
        (busiest, _), *others = self._used.most_common()
        more = f" and {len(others)} other resources" if others else ""
        return f"{self.used} {noun} of {busiest}{more} use all places"

    def take(self, resource: str) -> None:
        """Take a place, even if none is free: the run is in progress."""
        self._used[resource] += 1

    async def wait(self, resource: str, seconds: float) -> bool:
        """Take a place when one is free; return false if none is free within ``seconds``."""
        if self.is_free(resource):
            self.take(resource)
            return True
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((resource, turn))
        try:
            await asyncio.wait({turn}, timeout=seconds)
        except asyncio.CancelledError:
            if turn.done():
                self.release(resource)
            raise
        finally:
            self._waiting = [entry for entry in self._waiting if entry[1] is not turn]
        return turn.done()

    def release(self, resource: str) -> None:
        """Give a place back; the waiting resource with the fewest places gets the next one, the first among equals."""
        self._used[resource] -= 1
        if not self._used[resource]:
            del self._used[resource]
        while free := [entry for entry in self._waiting if not entry[1].done() and self.is_free(entry[0])]:
            name, turn = min(free, key=lambda entry: self._used[entry[0]])
            self.take(name)
            turn.set_result(None)
