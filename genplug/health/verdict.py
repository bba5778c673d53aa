"""Verdicts about the health of devices, with reasons and times. Frozen values."""

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct, field

from genplug.hardware.inventory import Device, Inventory
from genplug.spec.model import Resource
from genplug.struct_values import compare_without, hide_in_repr

PRESENCE = "presence"
"""The name of the check that every device has: whether its nodes exist, and whether it has faults."""


class DeviceRef(NamedTuple):
    """A device of a resource, by name and ID."""

    resource: str
    device: str


class ProbeFailure(Struct, frozen=True, gc=False):
    """A failure of a probe: the name of the probe, and the reason with the value found and the value expected."""

    probe: str
    reason: str


class ProbeResults(Struct, frozen=True):
    """The current results of all probes.

    ``failures`` has the failures of each device that has any, in the order of its probes. ``warnings`` has the failures
    of probes that do not make a device unhealthy.
    ``pending`` has the new devices without a first result, with the end of the wait for it (monotonic seconds).
    """

    failures: Mapping[DeviceRef, tuple[ProbeFailure, ...]] = {}
    pending: Mapping[DeviceRef, float] = {}
    warnings: Mapping[DeviceRef, tuple[ProbeFailure, ...]] = {}


class Verdict(Struct, frozen=True, gc=False):
    """The health of a device ``since`` a time (monotonic seconds).

    ``reason`` is one line for operators, and ``probe`` the check that failed; both are empty for a healthy device.
    """

    healthy: bool
    reason: str
    since: float
    probe: str = ""


class DeviceHealth(Struct, frozen=True, gc=False):
    """A device and its verdict.

    ``gone_since`` is set (monotonic seconds) while the device is absent, and after its return until it has the first
    results of its probes.
    """

    device: Device
    verdict: Verdict
    gone_since: float | None = None
    failures: tuple[ProbeFailure, ...] = ()


class ResourceHealth(Struct, frozen=True):
    """The health of the devices of a resource, in natural order.

    ``present`` has the entry of each of ``devices``, or None for a new device that waits for the first results of its
    probes; ``waiting`` counts those. ``absent`` has the entries of the devices that linger, and ``listed`` all entries.
    """

    devices: tuple[Device, ...] = ()
    present: tuple[DeviceHealth | None, ...] = ()
    absent: tuple[DeviceHealth, ...] = ()
    listed: tuple[DeviceHealth, ...] = ()
    waiting: int = 0


NO_HEALTH = ResourceHealth()


@compare_without("inventory", "resources", "parts", "results")
@hide_in_repr("inventory", "resources", "parts", "results")
class HealthSnapshot(Struct, frozen=True):
    """The health of all devices by resource, including those that linger.

    ``next_change`` is the time at which another evaluation has another result without an event (monotonic seconds), or
    None. ``inventory`` is the evaluated inventory, and ``results`` are the evaluated results of probes. ``resources``
    are the resources by name, including instances whose devices only linger. The next evaluation starts from ``parts``.
    """

    devices: Mapping[str, tuple[DeviceHealth, ...]]
    next_change: float | None = None
    inventory: Inventory | None = None
    resources: Mapping[str, Resource] = {}
    parts: Mapping[str, ResourceHealth] = {}
    results: ProbeResults = field(default_factory=ProbeResults)
