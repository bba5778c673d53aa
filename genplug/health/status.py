"""Status of the probe monitor: what runs, what hangs, and what is wrong. Frozen values."""

from typing import TypeAlias

from attrs import frozen


@frozen
class PoolStatus:
    """Status of one pool of worker processes.

    ``hung`` counts the workers of the read pool that hang, or the calls of the call pool.
    ``is_exhausted`` is whether so many hang that the pool runs no more requests.
    ``failed_starts`` counts workers that could not be started; ``start_error`` is the last reason, empty once a worker
    has answered.
    """

    workers: int = 0
    hung: int = 0
    is_exhausted: bool = False
    failed_starts: int = 0
    start_error: str = ""


NO_POOL_STATUS = PoolStatus()


@frozen
class ProbeError:
    """A probe cannot run for some devices (IDs) of a resource; with ``resolved`` it can again."""

    resource: str
    probe: str
    error: str
    devices: tuple[str, ...]
    resolved: bool = False


@frozen
class PoolExhausted:
    """So many runs of a pool hang that its probes are suspended; with ``resolved``, the pool runs them again.

    ``is_call`` selects the pool for probes that call other programs, else the pool for reads is meant.
    """

    is_call: bool
    hung: int
    resolved: bool = False


@frozen
class WorkerStartFailed:
    """Worker processes cannot be started; with ``resolved`` they can again."""

    error: str
    resolved: bool = False


MonitorEvent: TypeAlias = ProbeError | PoolExhausted | WorkerStartFailed


@frozen
class MonitorStatus:
    """Status of the probe monitor.

    ``targets`` are the requests of all probes, each counted once; ``runs`` counts completed requests, and ``min_runs``
    is how often each request has been run at least. ``cpu_seconds`` is the processor time of the workers.
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
        """Whether so many workers of a pool hang that its probes are not run any more."""
        return self.read_workers.is_exhausted or self.call_workers.is_exhausted


NO_MONITOR_STATUS = MonitorStatus()
