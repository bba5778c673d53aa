"""The times from the last change of a settle to the true device lists, by group, and the slowest settles."""

import heapq
from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from genplug.testing.soak.model import World
from genplug.testing.soak.steps import Step

MAX_SLOWEST: Final = 5
"""The number of settles of each group that are kept with their steps."""
WITHHELD_SECONDS: Final = 45.0
"""The time after a move of a device to another resource within which the agent can withhold the device.

An allocation counts as a use for 30 s, because a report of the kubelet may not include it, and the agent asks for the
reports every 10 s (``Ledger.grace`` and ``Settings.drain_seconds``). The rest is for a busy machine.
"""


class Group(StrEnum):
    """The kinds of changes that precede a settle."""

    DEVICE_CHANGES = "deviceChanges"
    """Devices without probes were added, and devices were removed; nothing else happened."""
    PROBE_RESULTS = "probeResults"
    """Devices with probes were added, or the results of probes changed: a list waits for runs of the probes."""
    OTHERS = "others"
    """All other steps, for example of the configuration, of probes and of the kubelet."""
    MOVES = "moves"
    """The agent could withhold devices that it had listed under another resource, because a pod may use them."""


_DEVICE_KINDS: Final = frozenset({"unplug", "plug", "flap", "replug", "many-devices"})
_PROBE_KINDS: Final = frozenset({"status-file", "probe-program", "hang-read", "eio"})


def classify_settle(steps: Iterable[Step], world: World, withheld: Collection[str]) -> Group:
    """Return the group of a settle after these steps, before which the agent may withhold some devices."""
    steps = tuple(steps)
    kinds = {step.kind for step in steps}
    if withheld:
        return Group.MOVES
    if not kinds <= _DEVICE_KINDS | _PROBE_KINDS:
        return Group.OTHERS
    added = {
        device
        for step in steps
        if step.kind in {"plug", "flap", "replug"} or (step.kind, step.value) == ("many-devices", "plug")
        for device in step.devices
    }
    has_probes = any(world.family_of(device).probe for device in added)
    return Group.PROBE_RESULTS if has_probes or kinds & _PROBE_KINDS else Group.DEVICE_CHANGES


class Settle(Struct, frozen=True):
    """A settle whose lists had to change.

    ``step`` is the number of the last step, ``steps`` are the steps before the settle, and ``previous_steps`` those
    before the previous settle, each with its number. ``time`` is the UTC time of the last change, as in the log of the
    agent. ``awaited`` are the differences that the last list removed.
    """

    group: Group
    seconds: float
    step: int
    steps: tuple[str, ...]
    previous_steps: tuple[str, ...]
    time: str
    awaited: str


class SettleTimes(Struct):
    """The times of a group in seconds, and its slowest settles."""

    seconds: list[float] = []
    slowest: list[Settle] = []

    def add(self, settle: Settle) -> None:
        """Add a settle."""
        self.seconds.append(settle.seconds)
        self.slowest = heapq.nlargest(MAX_SLOWEST, [*self.slowest, settle], key=lambda kept: kept.seconds)


class Moves:
    """The devices that the agent may withhold because they moved to another resource."""

    def __init__(self) -> None:
        self._moved_at: dict[str, float] = {}
        """When each of these devices moved (monotonic seconds)."""

    def record(self, previous: World, world: World, now: float) -> None:
        """Record the moves between two states."""
        changed = previous.configuration.without ^ world.configuration.without
        for family in world.families:
            if any(other.claims == family.name for other in world.families) and family.name in changed:
                self._moved_at |= dict.fromkeys(family.devices, now)

    def withheld(self, world: World, now: float) -> frozenset[str]:
        """Return the devices that exist and may be withheld."""
        return frozenset(
            device
            for device, moved_at in self._moved_at.items()
            if device in world.present and now < moved_at + WITHHELD_SECONDS
        )

    def settle(self, world: World) -> None:
        """Record that all lists are as expected: the devices that exist are not withheld."""
        self._moved_at = {device: time for device, time in self._moved_at.items() if device not in world.present}
