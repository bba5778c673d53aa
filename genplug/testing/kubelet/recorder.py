"""Record what a kubelet stand-in receives, over all its starts, and wait for it."""
# ruff: noqa: ASYNC109 - a test passes its timeout with the wait

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from genplug.testing.condition import Condition
from genplug.testing.kubelet.records import Devices, ListMessage, RegisterAttempt, Registration


class Recorder(ABC):
    """The records of a kubelet."""

    def __init__(self) -> None:
        self._attempts: list[RegisterAttempt] = []
        self._registrations: list[Registration] = []
        self._messages: dict[str, list[ListMessage]] = {}
        self._condition = Condition()

    @abstractmethod
    def devices(self, resource: str) -> Devices:
        """Return the devices of a resource as the kubelet knows them now; empty for an unknown resource."""

    @abstractmethod
    def stream_count(self, resource: str) -> int:
        """Return the number of open ListAndWatch streams of a resource."""

    @property
    def attempts(self) -> tuple[RegisterAttempt, ...]:
        """All calls of Register, in the order of arrival."""
        return tuple(self._attempts)

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """All calls of Register that were answered with OK."""
        return tuple(self._registrations)

    def messages(self, resource: str) -> tuple[ListMessage, ...]:
        """Return all lists of a resource from all streams, in the order of arrival."""
        return tuple(self._messages.get(resource, ()))

    async def wait_for(
        self,
        predicate: Callable[[], bool],
        timeout: float | None = 30,
        describe: Callable[[], str] | None = None,
    ) -> None:
        """Wait until a predicate about this kubelet holds; it is evaluated after every change.

        Raises:
            TimeoutError: the predicate did not hold within ``timeout`` seconds. The message is the result of
                ``describe``, or the state of the kubelet.
        """
        await self._condition.wait_for(predicate, timeout, describe or (lambda: repr(self)))

    async def wait_for_list(
        self,
        resource: str,
        predicate: Callable[[Devices], bool] = bool,
        *,
        healthy: Iterable[str] | None = None,
        unhealthy: Iterable[str] | None = None,
        timeout: float = 30,
    ) -> Devices:
        """Wait until a predicate about the devices of a resource holds; return the devices.

        ``healthy`` and ``unhealthy`` are the IDs of all healthy and of all unhealthy devices; they replace the
        predicate. Without arguments, wait until the resource has devices.

        Raises:
            TimeoutError: the predicate did not hold within ``timeout`` seconds.
        """
        arguments = {"healthy": healthy, "unhealthy": unhealthy}
        expected = {name: frozenset(ids) for name, ids in arguments.items() if ids is not None}

        def is_as_expected() -> bool:
            devices = self.devices(resource)
            if not expected:
                return predicate(devices)
            return all(getattr(devices, name) == ids for name, ids in expected.items())

        def describe() -> str:
            devices = self.devices(resource)
            wanted = (
                ", ".join(f"{name} {sorted(ids)}" for name, ids in expected.items()) or "a list as in the predicate"
            )
            return (
                f"{resource}: expected {wanted}; found healthy {sorted(devices.healthy)}, "
                f"unhealthy {sorted(devices.unhealthy)}. {self._describe_calls(resource)}"
            )

        await self.wait_for(is_as_expected, timeout, describe)
        return self.devices(resource)

    async def wait_disconnected(self, *resources: str, timeout: float = 30) -> None:
        """Wait until no ListAndWatch stream of the resources is open.

        Raises:
            TimeoutError: a stream was still open after ``timeout`` seconds.
        """
        await self.wait_for(lambda: not any(map(self.stream_count, resources)), timeout)

    async def wait_registered(self, resource: str, times: int = 1, timeout: float = 30) -> Registration:
        """Wait until a resource was registered a number of times; return the last registration.

        Raises:
            TimeoutError: there were fewer registrations within ``timeout`` seconds.
        """

        def list_registrations() -> list[Registration]:
            return [registration for registration in self._registrations if registration.resource == resource]

        await self.wait_for(
            lambda: len(list_registrations()) >= times,
            timeout,
            lambda: f"{resource}: expected {times} registrations. {self._describe_calls(resource)}",
        )
        return list_registrations()[-1]

    def record(self, record: RegisterAttempt | Registration | ListMessage) -> None:
        """Add a record and wake all waiting callers."""
        match record:
            case RegisterAttempt():
                self._attempts.append(record)
            case Registration():
                self._registrations.append(record)
            case ListMessage():
                self._messages.setdefault(record.resource, []).append(record)
        self.notify()

    def notify(self) -> None:
        """Wake all waiting callers, which evaluate their predicates again."""
        self._condition.notify_all()

    def _describe_calls(self, resource: str) -> str:
        attempts = sum(attempt.resource == resource for attempt in self._attempts)
        registrations = sum(registration.resource == resource for registration in self._registrations)
        return f"Register calls: {attempts}, accepted: {registrations}, open streams: {self.stream_count(resource)}"
