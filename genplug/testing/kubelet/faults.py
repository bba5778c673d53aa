"""Fault injection for the kubelet stand-in. Without a call of a test, the stand-in has no fault.

A gate blocks a call of the stand-in until the test opens it. The test can wait until a call has reached the gate, so it
needs no sleep to know that the call hangs.
"""
# ruff: noqa: ASYNC109 - a test passes its timeout with the wait

import asyncio
from typing import Self

from msgspec import Struct

from genplug.testing.kubelet.condition import Condition

ALL_RESOURCES = "*"
"""A fault of all resources."""


class RegisterRefusedError(Exception):
    """The kubelet answers Register with the status UNKNOWN and this message."""


class Gate:
    """A gate at which calls wait. It opens for a number of calls, or for all of them when the context ends."""

    def __init__(self) -> None:
        self.arrived = 0
        """The number of calls that have reached the gate."""
        self._passes: float = 0
        self._condition = Condition()

    async def pass_through(self) -> None:
        """Wait until the gate is open for this call."""
        self.arrived += 1
        self._condition.notify_all()
        await self._condition.wait_for(lambda: self._passes > 0)
        self._passes -= 1

    async def wait_reached(self, times: int = 1, timeout: float = 30) -> None:
        """Wait until a number of calls have reached the gate.

        Raises:
            TimeoutError: fewer calls reached it within ``timeout`` seconds.
        """
        await self._condition.wait_for(
            lambda: self.arrived >= times, timeout, lambda: f"{self.arrived} of {times} calls have reached the gate"
        )

    def open(self, times: float = float("inf")) -> None:
        """Open the gate for a number of calls, including calls that arrive later; without a number, for all calls."""
        self._passes += times
        self._condition.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.open()


class _Faults(Struct):
    refusal: str = ""
    delay: float = 0.0
    is_ignored: bool = False
    register_gate: Gate | None = None
    read_gate: Gate | None = None


class FaultInjector:
    """The faults of one kubelet, by resource; they continue after a restart of the kubelet.

    If a resource has faults of its own, those of ``ALL_RESOURCES`` do not apply to it.
    """

    def __init__(self) -> None:
        self._by_resource: dict[str, _Faults] = {}

    def refuse_register(self, message: str, resource: str = ALL_RESOURCES) -> None:
        """Answer Register with the status UNKNOWN and a message."""
        self._get_or_add(resource).refusal = message

    def delay_register(self, seconds: float, resource: str = ALL_RESOURCES) -> None:
        """Wait before Register is processed."""
        self._get_or_add(resource).delay = seconds

    def hang_register(self, resource: str = ALL_RESOURCES) -> Gate:
        """Block Register at a gate before it is processed; return the gate."""
        self._get_or_add(resource).register_gate = gate = Gate()
        return gate

    def ignore_register(self, resource: str = ALL_RESOURCES) -> None:
        """Answer Register with OK and do not dial the plugin, like a kubelet up to 1.24 whose dial fails."""
        self._get_or_add(resource).is_ignored = True

    def stop_reading(self, resource: str = ALL_RESOURCES) -> Gate:
        """Open lists without reading them; return a gate, of which each ``open(1)`` lets the kubelet read a message."""
        self._get_or_add(resource).read_gate = gate = Gate()
        return gate

    def clear(self, resource: str = ALL_RESOURCES) -> None:
        """Remove the faults of a resource and open its gates; ``ALL_RESOURCES`` removes all faults."""
        for name in [name for name in self._by_resource if resource in (ALL_RESOURCES, name)]:
            faults = self._by_resource.pop(name)
            for gate in (faults.register_gate, faults.read_gate):
                if gate is not None:
                    gate.open()

    async def apply_to_register(self, resource: str) -> None:
        """Delay, block or refuse a Register call.

        Raises:
            RegisterRefusedError: the call is to be refused.
        """
        faults = self._find(resource)
        if faults.delay:
            await asyncio.sleep(faults.delay)
        if faults.register_gate is not None:
            await faults.register_gate.pass_through()
        if faults.refusal:
            raise RegisterRefusedError(faults.refusal)

    async def apply_to_read(self, resource: str) -> None:
        """Block until the next message may be read."""
        if (gate := self._find(resource).read_gate) is not None:
            await gate.pass_through()

    def is_ignored(self, resource: str) -> bool:
        """Return whether the kubelet does not dial the plugin of this resource."""
        return self._find(resource).is_ignored

    def _get_or_add(self, resource: str) -> _Faults:
        return self._by_resource.setdefault(resource, _Faults())

    def _find(self, resource: str) -> _Faults:
        return self._by_resource.get(resource) or self._by_resource.get(ALL_RESOURCES) or _Faults()
