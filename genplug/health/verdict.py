"""Verdicts: whether a device may be handed out, why not, and since when."""

from collections.abc import Mapping
from typing import NamedTuple

from attrs import field, frozen

from genplug.hardware.inventory import Device, Inventory
from genplug.spec.model import Resource

PRESENCE = "presence"
"""What looks at whether a device's nodes are there: the probe that every device has."""


class DeviceRef(NamedTuple):
    """Which device of which resource."""

    resource: str
    device: str


@frozen
class ProbeFailure:
    """What a probe finds wrong with a device: the probe's name, and the reason with the value seen and wanted."""

    probe: str
    reason: str


@frozen
class ProbeResults:
    """What probes say: what is wrong with a device, in the order of its probes; nothing of one that is well.

    ``awaited`` are new devices of which no verdict is known yet, and until when (monotonic seconds) to wait for it.
    """

    failures: Mapping[DeviceRef, tuple[ProbeFailure, ...]] = field(factory=dict)
    pending: Mapping[DeviceRef, float] = field(factory=dict)


@frozen
class Verdict:
    """Whether a device may be handed out.

    ``reason`` is one line an operator understands, empty while healthy; ``since`` is monotonic seconds; ``probe`` is
    whose verdict it is, empty while healthy.
    """

    healthy: bool
    reason: str
    since: float
    probe: str = ""


@frozen
class DeviceHealth:
    """A device with its verdict. ``gone_since`` is set (monotonic seconds) while it, or a part of it, is missing.

    ``gone`` are the paths of the nodes that are missing; ``device`` still holds them.
    """

    device: Device
    verdict: Verdict
    gone_since: float | None = None
    gone: tuple[str, ...] = ()
    failures: tuple[ProbeFailure, ...] = ()


@frozen
class HealthSnapshot:
    """All devices of the node by resource, gone ones included while they linger.

    ``next_change`` is the monotonic time at which judging again without any event would give another result (a gone
    device's time is over), or None. ``inventory`` is what was judged, ``resources`` says what each resource is, those
    included whose last device lingers and that had their name from it.
    """

    devices: Mapping[str, tuple[DeviceHealth, ...]]
    next_change: float | None = None
    inventory: Inventory | None = field(default=None, eq=False, repr=False)
    resources: Mapping[str, Resource] = field(factory=dict, eq=False, repr=False)
