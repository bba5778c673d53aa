"""The state of the agent as one frozen value: what readiness, metrics, ``/statusz`` and the demo's table show."""

from datetime import UTC, datetime

from attrs import asdict, frozen

from genplug.health.status import NO_MONITOR_STATUS, MonitorStatus, PoolStatus


@frozen
class DeviceStatus:
    """One grant as the kubelet sees it, with the reason the kubelet is not told.

    ``probe`` is whose verdict it is, empty while healthy; ``since`` is when it was given (whole seconds since the
    epoch), None if that is not known.
    """

    id: str
    paths: tuple[str, ...]
    healthy: bool
    reason: str
    probe: str = ""
    since: int | None = None

    def as_json(self) -> dict[str, object]:
        """Return the device as ``schemas/status.schema.json`` describes it."""
        return {**asdict(self), "paths": list(self.paths), "since": _format_time(self.since)}


@frozen
class ResourceStatus:
    """One resource: its devices and where its endpoint is.

    ``is_registered`` means that the kubelet has a stream open; ``reason`` says why not. ``is_removed`` marks a resource
    that left the configuration and waits for its last pod, ``has_no_instances`` one whose name is a template that no
    device fills in: there is nothing to register.
    """

    name: str
    phase: str
    generation: int
    streams: int
    is_registered: bool
    is_removed: bool
    reason: str
    devices: tuple[DeviceStatus, ...]
    notes: tuple[str, ...]
    """Why there are no devices, or fewer than one may expect."""
    has_no_instances: bool = False

    @property
    def healthy(self) -> int:
        """How many devices may be handed out."""
        return sum(device.healthy for device in self.devices)

    @property
    def unhealthy(self) -> int:
        """How many are listed and must not be used."""
        return len(self.devices) - self.healthy

    def as_json(self) -> dict[str, object]:
        """Return the resource as ``schemas/status.schema.json`` describes it."""
        return {
            "name": self.name,
            "phase": self.phase,
            "generation": self.generation,
            "streams": self.streams,
            "registered": self.is_registered,
            "removed": self.is_removed,
            "hasNoInstances": self.has_no_instances,
            "reason": self.reason,
            "healthy": self.healthy,
            "unhealthy": self.unhealthy,
            "devices": [device.as_json() for device in self.devices],
            "notes": list(self.notes),
        }


@frozen
class ConfigStatus:
    """Which configuration is in force, and what is wrong with the newest files (``error``, empty when nothing is).

    ``loaded_at`` is the wall clock's time (seconds since the epoch) of the last success, None before it.
    """

    files: tuple[str, ...] = ()
    sha256: str = ""
    loaded_at: float | None = None
    error: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the configuration as ``schemas/status.schema.json`` describes it."""
        return {
            "files": list(self.files),
            "sha256": self.sha256,
            "loadedAt": _format_time(self.loaded_at),
            "error": self.error,
        }


@frozen
class ScanStatus:
    """Whether the scan of a resource is up to date. ``stalls`` says what is not and why, empty if everything is."""

    resource: str
    stalls: tuple[str, ...] = ()


@frozen
class Status:
    """The whole agent. ``kubelet`` says what it waits for there, empty when nothing."""

    version: str
    node: str | None
    config: ConfigStatus
    kubelet: str
    resources: tuple[ResourceStatus, ...]
    health: MonitorStatus = NO_MONITOR_STATUS
    scans: tuple[ScanStatus, ...] = ()
    failures: tuple[str, ...] = ()
    """Tasks of the agent that failed by an internal error and are started again."""

    @property
    def is_ready(self) -> bool:
        """Whether a configuration is in force and every resource of it is registered with a live stream."""
        return not self.unready

    @property
    def unready(self) -> tuple[str, ...]:
        """Everything that keeps the agent from being ready, one sentence each."""
        reasons = []
        if self.config.loaded_at is None:
            reasons.append(f"no configuration is loaded: {self.config.error or 'it has not been read yet'}")
        if self.kubelet:
            reasons.append(f"kubelet: {self.kubelet}")
        if self.health.is_exhausted:
            hung = self.health.read_workers.hung + self.health.call_workers.hung
            reasons.append(
                f"health: all probe workers are hung ({hung} reads or calls); only the presence of devices is monitored"
            )
        reasons += self.failures
        reasons += [f"{scan.resource}: scan stalled: {stall}" for scan in self.scans for stall in scan.stalls]
        reasons += [
            f"{resource.name}: not registered ({resource.phase}): {resource.reason or 'just starting'}"
            for resource in self.resources
            if not (resource.is_registered or resource.is_removed or resource.has_no_instances)
        ]
        return tuple(reasons)

    def as_json(self) -> dict[str, object]:
        """Return the document that ``/statusz`` serves, as ``schemas/status.schema.json`` describes it."""
        return {
            "apiVersion": "genplug.io/v1alpha1",
            "kind": "Status",
            "version": self.version,
            "node": self.node,
            "ready": self.is_ready,
            "unready": list(self.unready),
            "kubelet": self.kubelet,
            "config": self.config.as_json(),
            "resources": [resource.as_json() for resource in self.resources],
            "health": _health_as_json(self.health),
            "scans": [{"resource": scan.resource, "stalls": list(scan.stalls)} for scan in self.scans],
            "failures": list(self.failures),
        }


def _health_as_json(health: MonitorStatus) -> dict[str, object]:
    return {
        "probes": health.probes,
        "targets": health.targets,
        "runs": health.runs,
        "minRuns": health.min_runs,
        "cpuSeconds": health.cpu_seconds,
        "readWorkers": _pool_as_json(health.read_workers),
        "callWorkers": _pool_as_json(health.call_workers),
        "errors": [{**asdict(error), "devices": list(error.devices)} for error in health.errors],
    }


def _pool_as_json(pool: PoolStatus) -> dict[str, object]:
    return {
        "workers": pool.workers,
        "hung": pool.hung,
        "exhausted": pool.is_exhausted,
        "failedStarts": pool.failed_starts,
        "startError": pool.start_error,
    }


def _format_time(seconds: float | None) -> str | None:
    """Return seconds since the epoch as RFC 3339 in UTC, rounded down to a second."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
