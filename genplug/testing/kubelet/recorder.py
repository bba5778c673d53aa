"""What a test sees of a kubelet stand-in over all its starts, and how it waits for more."""
# ruff: noqa: ASYNC109 - a test says how long it waits where it waits

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from genplug.testing.kubelet.condition import Condition
from genplug.testing.kubelet.records import Devices, ListMessage, RegisterAttempt, Registration


class Recorder(ABC):
    """The record of a kubelet."""

    def __init__(self) -> None:
        self._attempts: list[RegisterAttempt] = []
        self._registrations: list[Registration] = []
        self._messages: dict[str, list[ListMessage]] = {}
        self._condition = Condition()

    @abstractmethod
    def devices(self, resource: str) -> Devices:
        """Return a resource's devices as the kubelet has them now; empty for an unknown resource."""

    @abstractmethod
    def stream_count(self, resource: str) -> int:
        """Return how many lists of a resource the kubelet has open."""

    @property
    def attempts(self) -> tuple[RegisterAttempt, ...]:
        """Every call of Register as it arrived."""
        return tuple(self._attempts)

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """Every call of Register that was answered with OK."""
        return tuple(self._registrations)

    def messages(self, resource: str) -> tuple[ListMessage, ...]:
        """Return every list of a resource in the order of arrival, of all streams."""
        return tuple(self._messages.get(resource, ()))

    async def wait_for(
        self, claim: Callable[[], bool], timeout: float | None = 10, missing: Callable[[], str] | None = None
    ) -> None:
        """Wait until a claim about this kubelet holds; it is looked at after every change.

        Raises:
            TimeoutError: not within ``timeout`` seconds; ``missing`` says what did not come.
        """
        await self._condition.wait_for(claim, timeout, missing)

    async def wait_for_list(
        self,
        resource: str,
        claim: Callable[[Devices], bool] = bool,
        *,
        healthy: Iterable[str] | None = None,
        unhealthy: Iterable[str] | None = None,
        timeout: float = 10,
    ) -> Devices:
        """Wait until a resource's devices are as claimed, and return them; without a claim, until there are any.

        ``healthy`` and ``unhealthy``, where given, are all the healthy and all the unhealthy IDs; they replace a claim.

        Raises:
            TimeoutError: not within ``timeout`` seconds.
        """
        claims = {"healthy": healthy, "unhealthy": unhealthy}
        wanted = {name: frozenset(ids) for name, ids in claims.items() if ids is not None}

        def holds() -> bool:
            devices = self.devices(resource)
            return all(getattr(devices, name) == ids for name, ids in wanted.items()) if wanted else claim(devices)

        def missing() -> str:
            devices = self.devices(resource)
            awaited = " and ".join(f"{name} {sorted(ids)}" for name, ids in wanted.items()) or "what was claimed"
            return (
                f"{resource} is not {awaited}, but healthy {sorted(devices.healthy)}, unhealthy "
                f"{sorted(devices.unhealthy)}, with {self.stream_count(resource)} streams and {self._tries(resource)}"
            )

        await self.wait_for(holds, timeout, missing)
        return self.devices(resource)

    async def wait_disconnected(self, *resources: str, timeout: float = 10) -> None:
        """Wait until the kubelet knows that the plugins of resources are gone: no list of them is open.

        Raises:
            TimeoutError: not within ``timeout`` seconds.
        """
        await self.wait_for(
            lambda: not any(map(self.stream_count, resources)), timeout, lambda: f"{resources} still have lists"
        )

    async def wait_registered(self, resource: str, times: int = 1, timeout: float = 10) -> Registration:
        """Wait until a resource was registered so often, and return the newest registration.

        Raises:
            TimeoutError: not within ``timeout`` seconds.
        """

        def registrations() -> list[Registration]:
            return [one for one in self._registrations if one.resource == resource]

        await self.wait_for(
            lambda: len(registrations()) >= times, timeout, lambda: f"{resource} has {self._tries(resource)}"
        )
        return registrations()[-1]

    def record(self, record: RegisterAttempt | Registration | ListMessage) -> None:
        """Record what happened, and wake whoever waits for it."""
        match record:
            case RegisterAttempt():
                self._attempts.append(record)
            case Registration():
                self._registrations.append(record)
            case ListMessage():
                self._messages.setdefault(record.resource, []).append(record)
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits, to look again."""
        self._condition.notify_all()

    def _tries(self, resource: str) -> str:
        attempts = sum(one.resource == resource for one in self._attempts)
        registrations = sum(one.resource == resource for one in self._registrations)
        return f"{attempts} calls of Register, {registrations} accepted"
