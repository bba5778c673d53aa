"""The status of the probe monitor, and its events. Frozen values."""

from typing import TypeAlias

from msgspec import Struct


class PoolStatus(Struct, frozen=True):
    """The status of a pool of worker processes.

    ``hung`` counts the workers of the read pool that hang, or the calls of the call pool.
    ``is_exhausted`` is whether so many hang that the pool runs no more requests.
    ``failed_starts`` counts workers that could not be started; ``start_error`` is the last reason, empty after a worker
    responded.
    """

    workers: int = 0
    hung: int = 0
    is_exhausted: bool = False
    failed_starts: int = 0
    start_error: str = ""


NO_POOL_STATUS = PoolStatus()


class ProbeError(Struct, frozen=True):
    """A probe cannot run for some devices (IDs) of a resource; with ``resolved``, it can run again."""

    resource: str
    probe: str
    error: str
    devices: tuple[str, ...]
    resolved: bool = False


class ProbeWarning(Struct, frozen=True):
    """A probe with the severity of a warning fails for some devices (IDs); with ``resolved``, it passes again."""

    resource: str
    probe: str
    reason: str
    devices: tuple[str, ...]
    resolved: bool = False


class PoolExhausted(Struct, frozen=True):
    """So many runs of a pool hang that its probes are suspended; with ``resolved``, the pool runs them again.

    ``is_call`` selects the pool for probes that call other programs, else the pool for reads is meant.
    """

    is_call: bool
    hung: int
    resolved: bool = False


class WorkerStartFailed(Struct, frozen=True):
    """Worker processes cannot be started; with ``resolved``, they can be started again."""

    error: str
    resolved: bool = False


class KernelLogGap(Struct, frozen=True):
    """Records of the kernel log were lost before they were read."""


MonitorEvent: TypeAlias = ProbeError | ProbeWarning | PoolExhausted | WorkerStartFailed | KernelLogGap


class MonitorStatus(Struct, frozen=True):
    """The status of the probe monitor.

    ``targets`` is the number of distinct requests of all probes. ``runs`` counts completed runs, and ``min_runs`` is
    the number of runs that each request has completed at least. ``cpu_seconds`` is the processor time of the workers.
    """

    probes: int = 0
    targets: int = 0
    runs: int = 0
    min_runs: int = 0
    cpu_seconds: float = 0.0
    read_workers: PoolStatus = NO_POOL_STATUS
    call_workers: PoolStatus = NO_POOL_STATUS
    errors: tuple[ProbeError, ...] = ()
    warnings: tuple[ProbeWarning, ...] = ()

    @property
    def is_exhausted(self) -> bool:
        """Whether so many runs of a pool hang that its probes are suspended."""
        return self.read_workers.is_exhausted or self.call_workers.is_exhausted


NO_MONITOR_STATUS = MonitorStatus()
