"""Metrics for Prometheus: gauges from the status, counters from the events. docs/reference/metrics.md lists them."""

import platform
from collections import Counter as Counted
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from genplug.health.status import MonitorStatus
from genplug.lean_imports import replace_modules
from genplug.observe.events import Event, EventLog, LogEvent
from genplug.observe.status import Status

# The servers and clients of the library, which the agent does not use, take 6.8 MiB of memory.
with replace_modules("gzip", "http.server", "socketserver", "ssl", "urllib.request", "wsgiref.simple_server"):
    from prometheus_client import (
        CollectorRegistry,
        Counter,
        GCCollector,
        Histogram,
        PlatformCollector,
        ProcessCollector,
    )
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from genplug.observe.dra_status import DraStatus

__all__ = ["Metrics", "choose_encoder"]

_ALLOCATE_BUCKET_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1.0)

_PREPARE_BUCKET_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 40.0)

_PUBLISH_BUCKET_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

_Labeled = TypeVar("_Labeled", Counter, Histogram)


class Metrics:
    """The metrics of an agent, with a registry of their own.

    The series of a resource end with the resource, because a name can be made of a value that changes.
    """

    def __init__(self, status: Callable[[], Status], event_log: EventLog) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(_StatusCollector(status, event_log))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"genplug_{name}", text, labels, registry=self.registry)

        self._registrations = counter(
            "registrations", "Completed registrations with the kubelet.", "resource", "result"
        )
        self._lists = counter("list_and_watch_updates", "Device lists sent to the kubelet.", "resource")
        self._allocations = counter("allocations", "Allocate calls.", "resource", "result")
        self._reloads = counter("config_reloads", "Configurations read after a change of the files.", "result")
        self._restarts = counter("kubelet_restarts", "Restarts of the kubelet: new kubelet.sock files.")
        self._health = counter("device_health_transitions", "Changes of the health of devices.", "resource", "to")
        self._internal_errors = counter("internal_errors", "Errors of genplug itself.", "resource")
        self._seconds = Histogram(
            "genplug_allocate_duration_seconds",
            "Duration of Allocate calls.",
            ("resource",),
            buckets=_ALLOCATE_BUCKET_SECONDS,
            registry=self.registry,
        )
        self._prepare_errors = counter(
            "dra_prepare_errors", "ResourceClaims that were not prepared.", "driver", "reason"
        )
        self._bad_records = counter("dra_records_bad", "Damaged records of ResourceClaims.", "driver")
        self._prepare_seconds = Histogram(
            "genplug_dra_prepare_seconds",
            "Time until a ResourceClaim was prepared or refused.",
            ("driver",),
            buckets=_PREPARE_BUCKET_SECONDS,
            registry=self.registry,
        )
        self._publish_seconds = Histogram(
            "genplug_dra_publish_seconds",
            "Time until changed devices were published as ResourceSlices.",
            ("driver",),
            buckets=_PUBLISH_BUCKET_SECONDS,
            registry=self.registry,
        )
        self._api_requests = counter("dra_api_requests", "Requests to the API server.", "verb", "code")
        self._series: dict[str, set[tuple[Counter | Histogram, tuple[str, ...]]]] = {}
        """The labels of the series of each resource."""
        event_log.listen(self._count)
        event_log.listen(self._count_claims)

    def _count(self, log_event: LogEvent) -> None:
        resource = str(log_event.facts.get("resource", ""))
        match log_event.event:
            case Event.RESOURCE_DRAINED:
                for metric, labels in self._series.pop(resource, set()):
                    metric.remove(*labels)
            case Event.REGISTERED:
                self._labels(self._registrations, resource, "success").inc()
            case Event.REGISTRATION_FAILED | Event.SERVE_FAILED:
                self._labels(self._registrations, resource, "failure").inc()
            case Event.LIST_SENT:
                self._labels(self._lists, resource).inc()
            case Event.ALLOCATED | Event.ALLOCATION_REFUSED:
                result = "success" if log_event.event is Event.ALLOCATED else "refused"
                self._labels(self._allocations, resource, result).inc()
                self._labels(self._seconds, resource).observe(float(str(log_event.facts["seconds"])))
            case Event.CONFIG_LOADED | Event.CONFIG_UNCHANGED:
                self._reloads.labels("success").inc()
            case Event.CONFIG_INVALID:
                self._reloads.labels("failure").inc()
            case Event.KUBELET_RESTARTED:
                self._restarts.inc()
            case Event.DEVICE_HEALTHY | Event.DEVICE_UNHEALTHY:
                to = "healthy" if log_event.event is Event.DEVICE_HEALTHY else "unhealthy"
                self._labels(self._health, resource, to).inc()
            case Event.INTERNAL_ERROR:
                self._labels(self._internal_errors, resource).inc()
            case _:
                pass

    def count_api_request(self, verb: str, code: str) -> None:
        """Count a request to the API server; the code is ``0`` for a request without an answer."""
        self._api_requests.labels(verb, code).inc()

    def _count_claims(self, log_event: LogEvent) -> None:
        driver = str(log_event.facts.get("driver", ""))
        match log_event.event:
            case Event.RECORD_BAD:
                self._bad_records.labels(driver).inc()
            case Event.SLICES_PUBLISHED:
                self._publish_seconds.labels(driver).observe(float(str(log_event.facts["seconds"])))
            case Event.CLAIM_PREPARED:
                self._prepare_seconds.labels(driver).observe(float(str(log_event.facts["seconds"])))
            case Event.CLAIM_REFUSED:
                self._prepare_seconds.labels(driver).observe(float(str(log_event.facts["seconds"])))
                self._prepare_errors.labels(driver, str(log_event.facts["reason"])).inc()
            case _:
                pass

    def _labels(self, metric: _Labeled, *labels: str) -> _Labeled:
        """Return the series of a resource, which is the first label."""
        self._series.setdefault(labels[0], set()).add((metric, labels))
        return metric.labels(*labels)


class _StatusCollector(Collector):
    def __init__(self, status: Callable[[], Status], event_log: EventLog) -> None:
        self._status = status
        self._event_log = event_log

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        build = {"version": status.version, "python": platform.python_version()}
        yield InfoMetricFamily("genplug_build", "Versions of genplug and Python.", build)
        config = status.config
        yield InfoMetricFamily("genplug_config", "Checksum of the active configuration.", {"sha256": config.sha256})
        yield GaugeMetricFamily(
            "genplug_config_last_reload_successful",
            "1 if the newest files are active, 0 if they are invalid.",
            int(not config.error),
        )
        yield GaugeMetricFamily(
            "genplug_config_last_reload_success_timestamp_seconds",
            "Time at which a configuration last became active.",
            config.loaded_at or 0,
        )
        yield GaugeMetricFamily(
            "genplug_config_withdrawn_resources",
            "Resources of the active configuration that the policy refuses since it changed.",
            len(config.withdrawn),
        )
        yield GaugeMetricFamily(
            "genplug_config_warnings", "Warnings about the active configuration.", len(config.warnings)
        )
        yield GaugeMetricFamily(
            "genplug_watch_degraded",
            "1 if the kernel does not report changes of some files, so that the agent detects them later.",
            int(bool(status.unwatched)),
        )
        yield GaugeMetricFamily("genplug_ready", "1 if /readyz responds with 200.", int(status.is_ready))
        yield CounterMetricFamily(
            "genplug_log_lines_dropped",
            "Lines of the log that were dropped, because nothing read the log.",
            self._event_log.dropped_lines(),
        )
        if (audit := status.audit) is not None:
            yield CounterMetricFamily("genplug_audit_records_written", "Records of the audit log.", audit.written)
            yield CounterMetricFamily(
                "genplug_audit_records_lost", "Records that could not be written to the audit log.", audit.lost
            )
            yield GaugeMetricFamily(
                "genplug_audit_writable", "1 if the audit log can be written.", int(not audit.error)
            )
        devices = GaugeMetricFamily(
            "genplug_devices", "Devices in the list for the kubelet.", labels=("resource", "state")
        )
        registered = GaugeMetricFamily(
            "genplug_resource_registered",
            "1 if the resource is registered and the kubelet has an open stream.",
            labels=("resource",),
        )
        missing = GaugeMetricFamily(
            "genplug_devices_missing",
            "Devices that `expect.min` of the resource requires in addition to the healthy devices.",
            labels=("resource",),
        )
        omitted = GaugeMetricFamily(
            "genplug_devices_omitted",
            "Devices, or tokens of a pool, that are not in the list for the kubelet because of a limit.",
            labels=("resource",),
        )
        in_use = GaugeMetricFamily(
            "genplug_devices_in_use",
            "Devices in the list for the kubelet that containers use.",
            labels=("resource",),
        )
        free = GaugeMetricFamily(
            "genplug_devices_free", "Healthy devices that no container uses.", labels=("resource",)
        )
        streams = GaugeMetricFamily(
            "genplug_list_and_watch_streams", "Open ListAndWatch streams.", labels=("resource",)
        )
        for resource in status.resources:
            if not resource.is_removed:
                # An alert on missing devices must not fire for a resource that was removed.
                devices.add_metric((resource.name, "healthy"), resource.healthy)
                devices.add_metric((resource.name, "unhealthy"), resource.unhealthy)
                registered.add_metric((resource.name,), int(resource.is_registered))
                omitted.add_metric((resource.name,), resource.omitted)
                if (used := resource.used_ids) is not None:
                    in_use.add_metric((resource.name,), len(used))
                    free.add_metric((resource.name,), resource.free or 0)
                if resource.expected is not None:
                    missing.add_metric((resource.name,), max(resource.expected - resource.healthy_devices, 0))
            streams.add_metric((resource.name,), resource.streams)
        stalled = GaugeMetricFamily(
            "genplug_scan_stalled", "1 if a file operation of the scan of the resource hangs.", labels=("resource",)
        )
        conflicts = GaugeMetricFamily(
            "genplug_device_conflicts",
            "Devices that are left out, because another device has their hardware or their ID.",
            labels=("resource",),
        )
        withheld = GaugeMetricFamily(
            "genplug_devices_withheld",
            "Devices that are not offered, because a pod or an earlier resource may have their hardware.",
            labels=("resource",),
        )
        for scan in status.scans:
            stalled.add_metric((scan.resource,), int(bool(scan.stalls)))
            conflicts.add_metric((scan.resource,), scan.conflicts)
            withheld.add_metric((scan.resource,), scan.withheld)
        yield from (devices, in_use, free, missing, omitted, registered, streams, stalled, conflicts, withheld)
        yield from _collect_health(status.health)
        if status.dra is not None:
            yield from _collect_dra(status.dra)


def _collect_dra(dra: "DraStatus") -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "genplug_dra_registered",
        "1 if the kubelet has registered the driver of Dynamic Resource Allocation.",
        int(dra.is_registered),
    )
    yield GaugeMetricFamily(
        "genplug_dra_publish_failing",
        "1 if the last request of the publisher to the API server failed.",
        int(bool(dra.publish_error)),
    )
    yield GaugeMetricFamily("genplug_dra_prepared_claims", "Prepared ResourceClaims.", len(dra.claims))
    slices = GaugeMetricFamily("genplug_dra_slices", "ResourceSlices of the resource.", labels=("resource",))
    devices = GaugeMetricFamily(
        "genplug_dra_devices",
        "Devices of the resource: published with and without a taint, withheld for pods, and left out otherwise.",
        labels=("resource", "state"),
    )
    for resource in dra.resources:
        name, withheld = resource.resource, len(resource.withheld)
        slices.add_metric((name,), resource.slices)
        devices.add_metric((name, "published"), resource.devices - resource.tainted)
        devices.add_metric((name, "tainted"), resource.tainted)
        devices.add_metric((name, "withheld"), withheld)
        devices.add_metric((name, "left_out"), max(len(resource.left_out) - withheld, 0))
    yield from (slices, devices)


def _collect_health(health: MonitorStatus) -> Iterable[Metric]:
    yield GaugeMetricFamily("genplug_probes", "Probes, counted for each device.", health.probes)
    yield GaugeMetricFamily("genplug_probe_targets", "Distinct files and calls that the probes use.", health.targets)
    yield CounterMetricFamily("genplug_probe_runs", "Completed probe runs.", health.runs)
    errors = GaugeMetricFamily(
        "genplug_probe_errors", "Devices for which the probe has an error.", labels=("resource", "probe")
    )
    warnings = GaugeMetricFamily(
        "genplug_probe_warnings",
        "Devices for which a probe with the severity of a warning fails.",
        labels=("resource", "probe"),
    )
    for family, reports in ((errors, health.errors), (warnings, health.warnings)):
        counts: Counted[tuple[str, str]] = Counted()
        for report in reports:
            counts[report.resource, report.probe] += len(report.devices)
        for labels, number in counts.items():
            family.add_metric(labels, number)
    workers = GaugeMetricFamily("genplug_probe_workers", "Worker processes that run probes.", labels=("state",))
    # Only workers of the read pool hang; in the call pool, calls hang.
    hung = health.read_workers.hung
    workers.add_metric(("working",), health.read_workers.workers + health.call_workers.workers - hung)
    workers.add_metric(("hung",), hung)
    yield from (errors, warnings, workers)
    yield CounterMetricFamily(
        "genplug_probe_worker_cpu_seconds", "CPU time of the worker processes.", health.cpu_seconds
    )
    yield CounterMetricFamily(
        "genplug_probe_worker_start_failures",
        "Worker processes that could not be started.",
        health.read_workers.failed_starts + health.call_workers.failed_starts,
    )
    yield GaugeMetricFamily(
        "genplug_probe_workers_exhausted",
        "1 if a pool of probe workers is exhausted, so that its probes do not run.",
        int(health.is_exhausted),
    )
