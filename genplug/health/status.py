"""What the monitor tells of itself: how it stands with the probes, and what keeps them from looking. Frozen values."""

from typing import TypeAlias

from attrs import frozen


@frozen
class PoolStatus:
    """How many workers there are, how many questions hang, and whether that leaves no worker for the others."""

    workers: int = 0
    hung: int = 0
    is_exhausted: bool = False


NO_POOL_STATUS = PoolStatus()


@frozen
class ProbeError:
    """Why a probe cannot look at some devices of a resource (IDs), or could not until now (``resolved``)."""

    resource: str
    probe: str
    error: str
    devices: tuple[str, ...]
    resolved: bool = False


@frozen
class PoolExhausted:
    """So many workers hang that nobody is left to look, or that was so until now (``resolved``)."""

    hung: int
    resolved: bool = False


MonitorEvent: TypeAlias = ProbeError | PoolExhausted


@frozen
class MonitorStatus:
    """How it stands with the probes: how many there are, how often they looked, and what keeps them from it.

    ``looks`` counts answered questions: what several probes ask alike is one. ``rounds`` is how many looks each
    question has behind it at least. ``seconds`` is the processor time of the workers.
    """

    probes: int = 0
    targets: int = 0
    runs: int = 0
    min_runs: int = 0
    cpu_seconds: float = 0.0
    read_workers: PoolStatus = NO_POOL_STATUS
    call_workers: PoolStatus = NO_POOL_STATUS
    errors: tuple[ProbeError, ...] = ()

    @property
    def is_exhausted(self) -> bool:
        """Whether nobody is left to look."""
        return self.read_workers.is_exhausted or self.call_workers.is_exhausted


NO_MONITOR_STATUS = MonitorStatus()
