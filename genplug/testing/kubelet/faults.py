"""Fault injection for the kubelet stand-in. Without a call of a test, the stand-in has no fault."""

import asyncio

from msgspec import Struct

from genplug.testing.gate import Gate

ALL_RESOURCES = "*"
"""A fault of all resources."""


class RegisterRefusedError(Exception):
    """The kubelet answers Register with the status UNKNOWN and this message."""


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
