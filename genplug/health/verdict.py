"""Verdicts: whether a device may be handed out, why not, and since when."""

from collections.abc import Mapping

from attrs import field, frozen

from genplug.config.model import Resource
from genplug.hardware.inventory import Device, Inventory


@frozen
class Verdict:
    """``reason`` is one line an operator understands, empty while healthy; ``since`` is monotonic seconds."""

    healthy: bool
    reason: str
    since: float


@frozen
class Judged:
    """A device with its verdict. ``gone_since`` is set (monotonic seconds) while it, or a part of it, is missing.

    ``gone`` are the paths of the nodes that are missing; ``device`` still holds them.
    """

    device: Device
    verdict: Verdict
    gone_since: float | None = None
    gone: tuple[str, ...] = ()


@frozen
class Judgement:
    """All devices of the node by resource, gone ones included while they linger.

    ``next_change`` is the monotonic time at which judging again without any event would give another result (a gone
    device's time is over), or None. ``inventory`` is what was judged, ``resources`` says what each resource is, those
    included whose last device lingers and that had their name from it.
    """

    devices: Mapping[str, tuple[Judged, ...]]
    next_change: float | None = None
    inventory: Inventory | None = field(default=None, eq=False, repr=False)
    resources: Mapping[str, Resource] = field(factory=dict, eq=False, repr=False)
