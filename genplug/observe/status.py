"""The status of the agent as a frozen value, for readiness, metrics, ``/statusz`` and the demo.

``schemas/status.schema.json`` describes its JSON document. Times are seconds since the epoch here, and RFC 3339 in the
document.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, overload

from msgspec import Struct
from msgspec.structs import asdict

from genplug.health.status import NO_MONITOR_STATUS, MonitorStatus, PoolStatus
from genplug.kubelet.reports import DeviceUse
from genplug.observe.text import describe_exhausted_pool, format_time, join_names

if TYPE_CHECKING:
    from genplug.observe.dra_status import DraStatus

ListedT = TypeVar("ListedT", bound="Listed")
_get_id, _is_healthy = attrgetter("id"), attrgetter("healthy")
PUBLISHED, UNPUBLISHED = "published", "unpublished"
"""The phases of a resource that Dynamic Resource Allocation serves."""
FIRST_SCAN_REASON = "the first scan of the devices has not finished"
"""Why an agent with a configuration is not ready before it offers the first resource."""


class DeviceStatus(Struct, frozen=True):
    """The status of a grant, with the reason that the kubelet does not receive.

    ``probe`` is the name of the probe that found the device unhealthy, and empty for a healthy device. ``since`` is the
    time since which the device has its health and reason, or None if it is not known. ``numa_nodes`` are the NUMA nodes
    of the device, and empty if the kernel does not know any, or with ``topology: none``.
    """

    id: str
    paths: tuple[str, ...]
    healthy: bool
    reason: str
    probe: str = ""
    since: int | None = None
    numa_nodes: tuple[int, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the part of the document for this device."""
        return {
            "id": self.id,
            "paths": list(self.paths),
            "healthy": self.healthy,
            "reason": self.reason,
            "probe": self.probe,
            "since": _format_optional_time(self.since),
            "numaNodes": list(self.numa_nodes),
        }


class Listed(Protocol):
    """An entry of a device list, of which the numbers of a resource are counted."""

    @property
    def id(self) -> str:
        """The device ID."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether the kubelet receives it as Healthy."""
        ...


class LazyDevices(Sequence[DeviceStatus], Generic[ListedT]):
    """The status of devices, built when it is read for the first time.

    Readiness probes and metrics only count ``entries``: most statuses of thousands of devices are never read.
    """

    def __init__(self, entries: Sequence[ListedT], build: Callable[[ListedT], DeviceStatus]) -> None:
        self.entries = entries
        self._build = build

    def __repr__(self) -> str:
        return f"<LazyDevices [{len(self)}]>"

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> DeviceStatus: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[DeviceStatus]: ...

    def __getitem__(self, index: int | slice) -> DeviceStatus | Sequence[DeviceStatus]:
        return self._built[index]

    def __iter__(self) -> Iterator[DeviceStatus]:
        return iter(self._built)

    @cached_property
    def _built(self) -> tuple[DeviceStatus, ...]:
        return tuple(map(self._build, self.entries))


class Refusal(Struct, frozen=True):
    """The last Allocate request of a resource that was refused: seconds since the epoch, and the message."""

    time: float
    message: str

    def as_json(self) -> dict[str, object]:
        """Return the part of the document for the refusal."""
        return {"time": format_time(self.time), "message": self.message}


class ListChange(Struct, frozen=True):
    """The last change of the device list of a resource: seconds since the epoch, and what changed."""

    time: float
    message: str

    def as_json(self) -> dict[str, object]:
        """Return the part of the document for the change."""
        return {"time": format_time(self.time), "message": self.message}


class ResourceStatus(Struct, frozen=True):
    """The status of a resource, its endpoint and its devices.

    ``is_registered`` states whether the kubelet has an open stream; ``reason`` states why it has none. ``is_removed``
    marks a resource that was removed from the configuration and waits until no pod uses it. ``is_moved`` marks a name
    of a resource that Dynamic Resource Allocation serves now, while its endpoint is kept for pods that use devices by
    the device plugin API. ``has_no_instances`` marks a resource whose name contains a template for which no device has
    a value, so that it is not registered.
    """

    name: str
    phase: str
    generation: int
    streams: int
    is_registered: bool
    is_removed: bool
    reason: str
    devices: Sequence[DeviceStatus]
    notes: tuple[str, ...]
    """Reasons for which the resource has no devices, or fewer than expected."""
    has_no_instances: bool = False
    expected: int | None = None
    """The number of healthy devices that the configuration expects (``expect.min``)."""
    healthy_devices: int = 0
    """The number of healthy devices without their replicas, slices and tokens."""
    last_refusal: Refusal | None = None
    last_change: ListChange | None = None
    """The last change of the device list, or None before the first list."""
    omitted: int = 0
    """The number of devices, or of tokens of a pool, that are not listed because of a limit."""
    in_use: tuple[DeviceUse, ...] | None = None
    """The containers that use devices, or None if the kubelet has not reported them."""

    is_moved: bool = False
    kept_for_pods: int | None = None
    """The number of pods for which the endpoint is kept; None if it is not kept, or the kubelet has not reported."""

    @property
    def has_kept_endpoint(self) -> bool:
        """Whether the endpoint offers nothing, and is kept until no pod uses devices that it has given."""
        return self.is_removed or self.is_moved

    @property
    def is_published_later(self) -> bool:
        """Whether Dynamic Resource Allocation serves the resource, and its devices are not published yet."""
        return self.phase == UNPUBLISHED

    @property
    def shortage(self) -> str:
        """How many of the expected devices are missing, or an empty string."""
        if self.expected is None or self.is_removed or self.healthy_devices >= self.expected:
            return ""
        return f"{self.healthy_devices} of {self.expected} expected devices are healthy"

    @property
    def used_ids(self) -> frozenset[str] | None:
        """The IDs of listed devices that containers use, or None if the kubelet has not reported them."""
        if self.in_use is None:
            return None
        used = {device_id for use in self.in_use for device_id in use.ids}
        return frozenset(used.intersection(map(_get_id, self._listed)))

    @property
    def healthy(self) -> int:
        """The number of healthy devices."""
        return sum(map(_is_healthy, self._listed))

    @property
    def unhealthy(self) -> int:
        """The number of unhealthy devices."""
        return len(self.devices) - self.healthy

    @property
    def free(self) -> int | None:
        """The number of healthy devices that no container uses, or None if the kubelet has not reported the use."""
        used = self.used_ids
        if used is None:
            return None
        return self.healthy - len(used.intersection(map(_get_id, filter(_is_healthy, self._listed))))

    @property
    def _listed(self) -> Sequence[Listed]:
        """The devices, or what their status is built from."""
        return self.devices.entries if isinstance(self.devices, LazyDevices) else self.devices

    def __repr__(self) -> str:
        return f"<ResourceStatus {self}>"

    def __str__(self) -> str:
        words = ["moved"] if self.is_moved else ["removed"] if self.is_removed else []
        words.append("registered" if self.is_registered else f"not registered ({self.reason or 'starting'})")
        words += [f"phase {self.phase}", f"generation {self.generation}", f"streams {self.streams}"]
        words += [f"{self.healthy} healthy", f"{self.unhealthy} unhealthy", *self.notes]
        return f"{self.name}: {', '.join(words)}"

    def as_json(self) -> dict[str, object]:
        """Return the part of the document for this resource."""
        return {
            "name": self.name,
            "phase": self.phase,
            "generation": self.generation,
            "streams": self.streams,
            "registered": self.is_registered,
            "removed": self.is_removed,
            "moved": self.is_moved,
            "keptForPods": self.kept_for_pods,
            "hasNoInstances": self.has_no_instances,
            "reason": self.reason,
            "healthy": self.healthy,
            "unhealthy": self.unhealthy,
            "free": self.free,
            "devices": [device.as_json() for device in self.devices],
            "notes": list(self.notes),
            "expected": self.expected,
            "healthyDevices": self.healthy_devices,
            "lastChange": self.last_change.as_json() if self.last_change is not None else None,
            "lastRefusal": self.last_refusal.as_json() if self.last_refusal is not None else None,
            "inUse": None if self.in_use is None else list(map(_use_as_json, self.in_use)),
        }


class ConfigStatus(Struct, frozen=True):
    """The active configuration, and the error of the newest files, which is empty if they are active.

    ``loaded_at`` is the time at which the configuration became active, or None if no configuration is active.
    ``withdrawn`` are the resource names that ``policy`` forbids since then, although the configuration has them;
    ``resources`` is the number of names that the configuration had. ``warnings`` are the texts of its warnings.
    """

    files: tuple[str, ...] = ()
    sha256: str = ""
    loaded_at: float | None = None
    error: str = ""
    public_errors: tuple[str, ...] = ()
    """The codes and locations of the errors, without lines and values of the files, for clients on other hosts."""
    policy: str = ""
    resources: int = 0
    withdrawn: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def withdrawal(self) -> str:
        """Which resources the policy forbids and since when, or an empty string."""
        if not self.withdrawn or self.loaded_at is None:
            return ""
        count, since = f"{len(self.withdrawn)} of {self.resources} resources", format_time(self.loaded_at)
        return f"{self.policy} refuses {count}, removed at {since}: {join_names(self.withdrawn)}"

    def as_json(self) -> dict[str, object]:
        """Return the part of the document for the configuration."""
        return {
            "files": list(self.files),
            "sha256": self.sha256,
            "loadedAt": _format_optional_time(self.loaded_at),
            "error": self.error,
            "policy": self.policy,
            "withdrawn": list(self.withdrawn),
            "warnings": list(self.warnings),
        }


class ScanStatus(Struct, frozen=True):
    """The status of the scan of a resource.

    ``stalls`` lists the devices that are not up to date, with the reasons. ``conflicts`` counts the devices that are
    left out because another device has their hardware, ``withheld`` those that wait until no pod uses another ID of it,
    or until an earlier resource that may claim them has been scanned.
    """

    resource: str
    stalls: tuple[str, ...] = ()
    conflicts: int = 0
    withheld: int = 0


class AuditStatus(Struct, frozen=True):
    """The state of the audit log.

    ``written`` and ``lost`` count records since the start. ``error`` is the reason for which records cannot be written
    now, and empty if they can be. With ``is_required``, the agent is not ready while there is an error.
    """

    directory: str
    written: int
    lost: int
    error: str
    is_required: bool = False

    def as_json(self) -> dict[str, object]:
        """Return the part of the document for the audit log."""
        return {
            "directory": self.directory,
            "written": self.written,
            "lost": self.lost,
            "error": self.error,
            "required": self.is_required,
        }


class Status(Struct, frozen=True):
    """The status of the agent.

    ``kubelet`` is what the agent waits for in the directory of the kubelet, and empty if it does not wait.
    """

    version: str
    node: str | None
    config: ConfigStatus
    kubelet: str
    resources: tuple[ResourceStatus, ...]
    health: MonitorStatus = NO_MONITOR_STATUS
    scans: tuple[ScanStatus, ...] = ()
    failures: tuple[str, ...] = ()
    """The tasks of the agent that failed by an internal error and are started again."""
    unwatched: tuple[str, ...] = ()
    """Why changes of some files are not reported, so that the agent polls them."""
    audit: AuditStatus | None = None
    """The state of the audit log, or None if there is none."""
    dra: "DraStatus | None" = None
    """The state of Dynamic Resource Allocation, or None if it serves no resource and no claim is prepared."""

    @property
    def _lacks_audit(self) -> bool:
        """Whether the audit log is required and cannot be written."""
        return self.audit is not None and self.audit.is_required and bool(self.audit.error)

    @property
    def is_ready(self) -> bool:
        """Whether a configuration is active, and every resource of it is registered and up to date."""
        return not self.unready

    @property
    def _awaits_first_scan(self) -> bool:
        """Whether the configuration has resources and the agent has not published any of them since its start."""
        is_loaded = self.config.loaded_at is not None
        return is_loaded and self.config.resources > len(self.config.withdrawn) and not self.resources

    @property
    def unready(self) -> tuple[str, ...]:
        """The reasons for which the agent is not ready."""
        reasons = []
        if self.config.loaded_at is None:
            reasons.append(f"no configuration is loaded: {self.config.error or 'it has not been read yet'}")
        if self._awaits_first_scan:
            reasons.append(FIRST_SCAN_REASON)
        if self.kubelet:
            reasons.append(f"kubelet: {self.kubelet}")
        reasons += [
            f"health: {describe_exhausted_pool(pool.hung, is_call=is_call)}"
            for pool, is_call in ((self.health.read_workers, False), (self.health.call_workers, True))
            if pool.is_exhausted
        ]
        reasons += filter(None, (self.config.withdrawal,))
        if self.audit is not None and self._lacks_audit:
            reasons.append(f"audit log: {self.audit.error}")
        reasons += self.failures
        reasons += [f"{scan.resource}: scan stalled: {stall}" for scan in self.scans for stall in scan.stalls]
        unregistered: dict[str, list[str]] = {}
        for resource in self.resources:
            if not (resource.is_registered or resource.is_removed or resource.has_no_instances):
                state = "not published" if resource.is_published_later else f"not registered ({resource.phase})"
                reason = f"{state}: {resource.reason or 'starting'}"
                unregistered.setdefault(reason, []).append(resource.name)
        # A reason such as a missing kubelet concerns all resources: it is one line.
        reasons += [f"{join_names(names)}: {reason}" for reason, names in unregistered.items()]
        return tuple(reasons)

    @property
    def public_unready(self) -> tuple[str, ...]:
        """The reasons of :attr:`unready` for clients on other hosts: no text of files, devices or other programs."""
        reasons = []
        if self.config.loaded_at is None:
            reasons += ["no configuration is loaded", *self.config.public_errors]
        if self._awaits_first_scan:
            reasons.append(FIRST_SCAN_REASON)
        if self.kubelet:
            reasons.append("kubelet: the agent waits for the directory or the socket of the kubelet")
        reasons += [
            f"health: {describe_exhausted_pool(pool.hung, is_call=is_call)}"
            for pool, is_call in ((self.health.read_workers, False), (self.health.call_workers, True))
            if pool.is_exhausted
        ]
        if self.config.withdrawn:
            reasons.append(f"the policy refuses {len(self.config.withdrawn)} of {self.config.resources} resources")
        if self._lacks_audit:
            reasons.append("the audit log cannot be written")
        if self.failures:
            reasons.append(f"{len(self.failures)} tasks of the agent failed and are started again")
        reasons += [f"{scan.resource}: scan stalled" for scan in self.scans if scan.stalls]
        reasons += [
            f"{resource.name}: not {'published' if resource.is_published_later else f'registered ({resource.phase})'}"
            for resource in self.resources
            if not (resource.is_registered or resource.is_removed or resource.has_no_instances)
        ]
        return tuple(reasons)

    def __repr__(self) -> str:
        return f"<Status {self}>"

    def __str__(self) -> str:
        config = self.config.sha256[:12] or "none"
        lines = [f"genplug {self.version}: {'ready' if self.is_ready else 'not ready'}, configuration {config}"]
        return "; ".join([*lines, *self.unready, *map(str, self.resources)])

    def as_json(self) -> dict[str, object]:
        """Return the document that ``/statusz`` serves."""
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
            "scans": [{**asdict(scan), "stalls": list(scan.stalls)} for scan in self.scans],
            "failures": list(self.failures),
            "unwatched": list(self.unwatched),
            "audit": self.audit.as_json() if self.audit is not None else None,
            "dra": self.dra.as_json() if self.dra is not None else None,
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
        "warnings": [{**asdict(warning), "devices": list(warning.devices)} for warning in health.warnings],
    }


def _use_as_json(use: DeviceUse) -> dict[str, object]:
    return {"namespace": use.namespace, "pod": use.pod, "container": use.container, "devices": list(use.ids)}


def _pool_as_json(pool: PoolStatus) -> dict[str, object]:
    return {
        "workers": pool.workers,
        "hung": pool.hung,
        "exhausted": pool.is_exhausted,
        "failedStarts": pool.failed_starts,
        "startError": pool.start_error,
    }


def _format_optional_time(epoch_seconds: float | None) -> str | None:
    return None if epoch_seconds is None else format_time(epoch_seconds)
