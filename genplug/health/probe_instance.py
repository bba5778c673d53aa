"""A probe of one device and its state, with the memory of its kind between runs."""

from typing import Any

from msgspec import Struct

from genplug.health.binding import BoundProbe
from genplug.health.thresholds import ProbeState
from genplug.health.verdict import DeviceRef


class ProbeInstance(Struct, eq=False, gc=False):
    """A bound probe with its state, watched ``since`` (monotonic seconds)."""

    bound: BoundProbe
    state: ProbeState
    since: float
    memory: Any = None
    log_position: int = -1
    """The number of the newest record of the kernel log that had a result for the device."""

    @property
    def id(self) -> tuple[DeviceRef, str]:
        """The device, and the name of the probe."""
        return self.bound.device, self.bound.spec.name

    @property
    def is_warning(self) -> bool:
        """Whether a failure of the probe does not make the device unhealthy."""
        return self.bound.spec.is_warning

    @property
    def is_sticky_failed(self) -> bool:
        """Whether the device remains Unhealthy until it disappears or the agent restarts."""
        return self.bound.spec.timing.sticky and not self.state.healthy

    @property
    def may_change_by_itself(self) -> bool:
        """Whether an unchanged answer may have another result as time passes."""
        polling = self.bound.kind.polling
        return polling is not None and polling.changes_with_time(self.memory)
