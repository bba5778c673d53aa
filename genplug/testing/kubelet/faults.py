"""What a kubelet may do to a plugin beyond its duty. Everything is off until a test asks for it.

A gate is a door: whoever comes to it is counted and waits until it is opened, so a test knows without sleeping that a
call hangs, and decides when it goes on.
"""
# ruff: noqa: ASYNC109 - a test says how long it waits where it waits

import asyncio
from typing import Self

from attrs import define

from genplug.testing.kubelet.condition import Condition

EVERY = "*"
"""Stands for every resource."""


class RefusedError(Exception):
    """Register is answered with UNKNOWN and this text."""


class Gate:
    """A door, shut until it is opened for good or for some; as a context manager it is opened at the end."""

    def __init__(self) -> None:
        self.arrived = 0
        """How many came so far."""
        self._passes: float = 0
        self._news = Condition()

    async def pass_through(self) -> None:
        """Wait at the door."""
        self.arrived += 1
        self._news.notify_all()
        await self._news.wait_for(lambda: self._passes > 0)
        self._passes -= 1

    async def wait_reached(self, times: int = 1, timeout: float = 10) -> None:
        """Wait until so many have come to the door.

        Raises:
            TimeoutError: fewer came within ``timeout`` seconds.
        """
        await self._news.wait_for(
            lambda: self.arrived >= times, timeout, lambda: f"{self.arrived} of {times} came to the gate"
        )

    def open(self, times: float = float("inf")) -> None:
        """Let so many pass, those to come included; without a number, everybody from now on."""
        self._passes += times
        self._news.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.open()


@define
class _Faults:
    refusal: str = ""
    delay: float = 0.0
    is_ignored: bool = False
    register: Gate | None = None
    reading: Gate | None = None


class FaultInjector:
    """The faults of one kubelet, by resource; they outlive its restarts.

    What was asked for one resource goes before what was asked for ``EVERY``.
    """

    def __init__(self) -> None:
        self._by_resource: dict[str, _Faults] = {}

    def refuse_register(self, text: str, resource: str = EVERY) -> None:
        """Answer Register with the code UNKNOWN and a text."""
        self._made(resource).refusal = text

    def delay_register(self, seconds: float, resource: str = EVERY) -> None:
        """Take time before looking at a Register."""
        self._made(resource).delay = seconds

    def hang_register(self, resource: str = EVERY) -> Gate:
        """Let Register hang at a gate, before any check."""
        self._made(resource).register = gate = Gate()
        return gate

    def ignore_register(self, resource: str = EVERY) -> None:
        """Answer Register with OK and dial nobody: what a failed dial looks like until 1.24."""
        self._made(resource).is_ignored = True

    def stop_reading(self, resource: str = EVERY) -> Gate:
        """Open lists and read nothing of them; each ``open(1)`` of the gate lets one message be read."""
        self._made(resource).reading = gate = Gate()
        return gate

    def clear(self, resource: str = EVERY) -> None:
        """Forget the faults of a resource and open its holds; ``EVERY`` means all resources."""
        for name in [name for name in self._by_resource if resource in (EVERY, name)]:
            faults = self._by_resource.pop(name)
            for gate in (faults.register, faults.reading):
                if gate is not None:
                    gate.open()

    async def before_register(self, resource: str) -> None:
        """Do to a Register what was asked for.

        Raises:
            RefusedError: it is to be refused.
        """
        faults = self._of(resource)
        if faults.delay:
            await asyncio.sleep(faults.delay)
        if faults.register is not None:
            await faults.register.pass_through()
        if faults.refusal:
            raise RefusedError(faults.refusal)

    async def before_read(self, resource: str) -> None:
        """Wait, if reading is held, until the next message may be read."""
        if (gate := self._of(resource).reading) is not None:
            await gate.pass_through()

    def is_ignored(self, resource: str) -> bool:
        """Say whether nobody is to dial this resource's plugin."""
        return self._of(resource).is_ignored

    def _made(self, resource: str) -> _Faults:
        return self._by_resource.setdefault(resource, _Faults())

    def _of(self, resource: str) -> _Faults:
        return self._by_resource.get(resource) or self._by_resource.get(EVERY) or _Faults()
