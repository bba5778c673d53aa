"""The functions by which the driver of Dynamic Resource Allocation notifies other parts of the agent."""

from collections.abc import Callable, Iterable

RETRY_SECONDS = 5.0
"""Seconds between two attempts to read the records of prepared claims."""


class DriverHooks:
    """The functions that the driver calls when something happens. The agent replaces the functions that it needs."""

    def __init__(self) -> None:
        self.on_prepared: Callable[[str, Iterable[str]], None] = lambda _resource, _ids: None
        """Called with the name of a resource and the IDs of the devices that a claim got."""
        self.on_reserved: Callable[[str, Iterable[str]], None] = lambda _resource, _ids: None
        """Called with the name of a resource and the IDs of the devices that a claim is being prepared for."""
        self.on_restored: Callable[[], None] = lambda: None
        """Called when the claims of earlier processes are known."""
        self.on_claims_changed: Callable[[], None] = lambda: None
        """Called when a claim holds devices, or does not hold them any more."""
        self.count_request: Callable[[str, str], None] = lambda _verb, _code: None
        """Called with the verb and the status of each request to the API server."""
