"""Shares the number of candidates that a node may have among its resources, whose scans run in several threads."""

from collections.abc import Iterable
from threading import Lock

from genplug.hardware.scan_errors import SearchLimitError
from genplug.spec.limits import MAX_CANDIDATES


class CandidateBudget:
    """The candidates of each resource; all resources together have at most ``limit``, and about twice that if all grow.

    Each resource can have an equal share of the limit in any case, so that no resource is without candidates because
    others have many.
    """

    def __init__(self, resources: Iterable[str] = (), limit: int = MAX_CANDIDATES) -> None:
        self._limit = limit
        self._lock = Lock()
        self._counts = dict.fromkeys(resources, 0)

    def __repr__(self) -> str:
        return f"<CandidateBudget [{sum(self._counts.values())} of {self._limit}]>"

    def set_resources(self, resources: Iterable[str]) -> None:
        """Set the resources of the configuration; the candidates of other resources do not count any more."""
        with self._lock:
            self._counts = {name: self._counts.get(name, 0) for name in resources}

    def take(self, resource: str, count: int) -> None:
        """Record that a resource has ``count`` candidates, before they are examined.

        Raises:
            SearchLimitError: the resources would have too many candidates together. The previous number is kept.
        """
        with self._lock:
            others = sum(self._counts.values()) - self._counts.get(resource, 0)
            share = self._limit // max(len(self._counts), 1)
            if count > max(self._limit - others, share):
                raise SearchLimitError(
                    f"the globs of all resources match more than {self._limit} paths together, the maximum, and this "
                    f"resource has more than its share of {share}; use globs that match fewer paths"
                )
            self._counts[resource] = count
