"""The events of the agent, as a closed list, and the log that emits them.

Log lines and counters are both made from the same events, so they agree. docs/reference/events.md lists the events; a
test compares the page with this list.
"""

import logging
from collections.abc import Callable, Mapping
from enum import Enum

from msgspec import Struct


class Event(Enum):
    """An event: its name in the log (``code``), its level, and its meaning for the documentation."""

    STARTED = ("started", logging.INFO, "The agent has started. Keys: `version`, `node`, `root`, `kubelet_dir`.")
    STOPPING = (
        "stopping",
        logging.INFO,
        "The agent has received a signal to terminate. It closes its streams and removes its sockets.",
    )
    SYSTEM_ERROR = (
        "system_error",
        logging.ERROR,
        "The system refuses a file descriptor, a thread, memory or access to a file. The agent retries. Key: `task`.",
    )
    SYSTEM_RECOVERED = (
        "system_recovered",
        logging.INFO,
        "A part of the agent works again after an error. Key: `task`.",
    )
    STOP_TIMED_OUT = (
        "stop_timed_out",
        logging.WARNING,
        "An operation hangs, so the agent does not stop by itself. The process removes its sockets and exits.",
    )
    LOG_LINES_DROPPED = (
        "log_lines_dropped",
        logging.WARNING,
        "Lines of the log were dropped, because nothing read the log. Key: `lines`, their number.",
    )
    AUDIT_UNWRITABLE = (
        "audit_unwritable",
        logging.ERROR,
        "The audit log cannot be written. Its records wait, and are lost when too many wait. The agent retries.",
    )
    AUDIT_RECOVERED = (
        "audit_recovered",
        logging.INFO,
        "The audit log is written again. Key: `lost`, the number of records that were lost since the start.",
    )
    CONFIG_LOADED = (
        "config_loaded",
        logging.INFO,
        "A valid configuration has become active. Keys: `files`, `policy`, `config_sha256`.",
    )
    CONFIG_WARNING = (
        "config_warning",
        logging.WARNING,
        "The active configuration has warnings, which have no effect. Keys: `warnings` (locations and codes).",
    )
    POLICY_UNSAFE = (
        "policy_unsafe",
        logging.WARNING,
        "The policy allows device nodes that expose the host. Keys: `policy`, `unsafe` (entries of `devices.unsafe`).",
    )
    CONFIG_INVALID = (
        "config_invalid",
        logging.ERROR,
        "The configuration or policy is invalid. The last valid configuration remains active. Key: `errors`.",
    )
    CONFIG_UNCHANGED = ("config_unchanged", logging.DEBUG, "The files changed, but the configuration did not.")
    PLUGIN_DIR_UNUSABLE = (
        "plugin_dir_unusable",
        logging.ERROR,
        "The agent cannot use the directory of the kubelet. It retries.",
    )
    PLUGIN_DIR_LOCKED = (
        "plugin_dir_locked",
        logging.WARNING,
        "Another genplug process serves the node. The agent waits until that process terminates.",
    )
    PLUGIN_DIR_ACQUIRED = (
        "plugin_dir_acquired",
        logging.INFO,
        "The agent has locked the directory of the kubelet. Key: `leftovers`, the sockets that it removed.",
    )
    PLUGIN_DIR_REPLACED = (
        "plugin_dir_replaced",
        logging.ERROR,
        "The directory of the kubelet was replaced on the host. The agent exits to start again.",
    )
    KUBELET_RESTARTED = ("kubelet_restarted", logging.INFO, "The kubelet has created a new `kubelet.sock`.")
    KUBELET_SOCKET_MISSING = (
        "kubelet_socket_missing",
        logging.WARNING,
        "`kubelet.sock` does not exist. The agent waits for it.",
    )
    REGISTERED = (
        "registered",
        logging.INFO,
        "The resource is registered, and the kubelet has opened a stream. Keys: `generation`, `phase`.",
    )
    DISCONNECTED = (
        "disconnected",
        logging.WARNING,
        "The kubelet has closed the stream of the resource. Keys: `generation`, `phase`.",
    )
    REGISTRATION_FAILED = (
        "registration_failed",
        logging.WARNING,
        "A registration of the resource failed. The agent retries. Keys: `generation`, `phase`.",
    )
    SERVE_FAILED = (
        "serve_failed",
        logging.ERROR,
        "The agent cannot serve the resource on a socket of its own. It retries. Keys: `generation`, `phase`.",
    )
    SOCKET_NOT_REMOVED = (
        "socket_not_removed",
        logging.WARNING,
        "The agent cannot remove a socket of its own. The next agent or kubelet removes it. Key: `path`.",
    )
    ENDPOINT_PHASE_CHANGED = (
        "endpoint_phase_changed",
        logging.DEBUG,
        "The endpoint of the resource has entered another phase. Keys: `generation`, `phase`.",
    )
    LIST_SENT = (
        "list_sent",
        logging.DEBUG,
        "The agent has sent a device list to the kubelet. Keys: `devices`, `healthy`, the numbers of devices.",
    )
    DEVICES_CHANGED = (
        "devices_changed",
        logging.INFO,
        "The device list of the resource has changed. Keys: `healthy`, `unhealthy`, the numbers of devices.",
    )
    DEVICE_UNHEALTHY = (
        "device_unhealthy",
        logging.WARNING,
        "The device has become unhealthy. `msg` contains the reason.",
    )
    DEVICE_HEALTHY = ("device_healthy", logging.INFO, "The device has become healthy, or a healthy device was added.")
    DEVICE_REMOVED = (
        "device_removed",
        logging.WARNING,
        "The device has been removed from the list: it disappeared, or the configuration no longer matches it.",
    )
    DEVICE_NODE_CONFLICT = (
        "device_node_conflict",
        logging.ERROR,
        "Two devices claim the same hardware or the same ID. `msg` states which device has it. Key: `path`.",
    )
    DEVICE_WITHHELD = (
        "device_withheld",
        logging.INFO,
        "The device is not offered, because a pod or an earlier resource may have its hardware. `msg` states which.",
    )
    LIST_LIMITED = (
        "list_limited",
        logging.WARNING,
        "Devices of the resource are not in the list for the kubelet, because of a limit. Keys: `resource`, `omitted`.",
    )
    SCAN_STALLED = (
        "scan_stalled",
        logging.WARNING,
        "The scan of the resource waits for a file, or exceeds a limit. Affected devices remain as last known.",
    )
    SCAN_RESUMED = (
        "scan_resumed",
        logging.INFO,
        "The scan of the resource has finished after it was stalled. Its devices are up to date.",
    )
    RESOURCE_NAME_REJECTED = (
        "resource_name_rejected",
        logging.WARNING,
        "A device is left out, because its resource would have a name that is invalid or not allowed.",
    )
    RESOURCE_REMOVED = (
        "resource_removed",
        logging.INFO,
        "The resource was removed from the configuration, or gets `serve: dra`. Its device list is empty now.",
    )
    RESOURCE_DRAINED = (
        "resource_drained",
        logging.INFO,
        "No pod uses the removed resource any more. Its endpoint is closed.",
    )
    POD_RESOURCES_UNAVAILABLE = (
        "pod_resources_unavailable",
        logging.WARNING,
        "The pod-resources API of the kubelet does not respond. Removed resources remain until it does.",
    )
    ALLOCATED = (
        "allocated",
        logging.INFO,
        "A container has received devices. Keys: `devices`, `seconds`, the duration of the call.",
    )
    ALLOCATION_REFUSED = (
        "allocation_refused",
        logging.WARNING,
        "An allocation was refused. `msg` contains the reason. Keys: `devices`, `seconds`.",
    )
    PRE_START_FAILED = (
        "pre_start_failed",
        logging.WARNING,
        "The program of `preStart` failed. The kubelet retries. Keys: `devices`, `seconds`.",
    )
    INTERNAL_ERROR = (
        "internal_error",
        logging.ERROR,
        "genplug has a defect. Please report it with the traceback in the next line. Key: `method`.",
    )
    CDI_UNWRITABLE = ("cdi_unwritable", logging.ERROR, "A CDI file cannot be written or removed. The agent retries.")
    CDI_REMOVED = (
        "cdi_removed",
        logging.INFO,
        "The agent has removed a CDI file of an earlier process that no pod uses.",
    )
    DRA_REGISTERED = (
        "dra_registered",
        logging.INFO,
        "The kubelet has registered the driver of Dynamic Resource Allocation (DRA). Key: `driver`.",
    )
    DRA_ENDED = (
        "dra_ended",
        logging.INFO,
        "The driver has ended, because no resource has `serve: dra` and no ResourceClaim is prepared. Key: `driver`.",
    )
    DRA_REFUSED = (
        "dra_refused",
        logging.WARNING,
        "The kubelet does not register the driver. The agent retries. Keys: `driver`, `retry_seconds`.",
    )
    DRA_SERVE_FAILED = (
        "dra_serve_failed",
        logging.ERROR,
        "A socket of the driver was removed or cannot be created. The agent retries. Keys: `driver`, `retry_seconds`.",
    )
    DRA_UNSUPPORTED = (
        "dra_unsupported",
        logging.ERROR,
        "Kubernetes does not support DRA, so that resources with `serve: dra` are not offered. Key: `driver`.",
    )
    SLICES_PUBLISHED = (
        "slices_published",
        logging.INFO,
        "The API server has the devices as ResourceSlices. Keys: `driver`, `slices`, `devices`, `seconds`.",
    )
    SLICES_REFUSED = (
        "slices_refused",
        logging.ERROR,
        "The API server refuses ResourceSlices. The agent retries. Keys: `driver`, `status`; `slice` after a write.",
    )
    SLICES_RESTORED = (
        "slices_restored",
        logging.WARNING,
        "Another client has changed or deleted a ResourceSlice. Keys: `driver`, `slice`, `writer` (its field manager).",
    )
    TAINTS_DROPPED = (
        "taints_dropped",
        logging.WARNING,
        "The API server drops taints, so that unhealthy devices are not published. Key: `driver`.",
    )
    API_SERVER_AWAY = (
        "api_server_away",
        logging.WARNING,
        "The API server does not respond, or responds with an error. The agent retries. Key: `driver`.",
    )
    CLAIM_PREPARED = (
        "claim_prepared",
        logging.INFO,
        "A ResourceClaim is prepared, now or since an earlier call. Keys: `claim`, `uid`, `devices`, `seconds`.",
    )
    CLAIM_REFUSED = (
        "claim_refused",
        logging.WARNING,
        "A ResourceClaim is not prepared. The kubelet retries. Keys: `claim`, `uid`, `reason`, `seconds`.",
    )
    CLAIM_UNPREPARED = (
        "claim_unprepared",
        logging.INFO,
        "The devices of a ResourceClaim are free. Keys: `claim`, `uid`, `seconds`.",
    )
    CLAIM_UNPREPARE_FAILED = (
        "claim_unprepare_failed",
        logging.ERROR,
        "The files of a ResourceClaim cannot be removed. The kubelet retries. Keys: `claim`, `uid`, `reason`.",
    )
    CLAIM_FORGOTTEN = (
        "claim_forgotten",
        logging.WARNING,
        "The agent has freed the devices of a ResourceClaim that the kubelet has forgotten. Keys: `claim`, `uid`.",
    )
    RECORD_BAD = (
        "record_bad",
        logging.ERROR,
        "The record of a prepared ResourceClaim is damaged. The agent has moved it. Keys: `uid`, `path`.",
    )
    PROBE_ERROR = (
        "probe_error",
        logging.WARNING,
        "A probe has an error for devices. `onError` defines the effect on their health. Keys: `probe`, `devices`.",
    )
    PROBE_RECOVERED = (
        "probe_recovered",
        logging.INFO,
        "An error of a probe or of the probe workers no longer exists. Keys for a probe: `probe`, `devices`.",
    )
    PROBE_WARNING = (
        "probe_warning",
        logging.WARNING,
        "A probe with `severity: warning` fails for devices, which keep their health. Keys: `probe`, `devices`.",
    )
    PROBE_WARNING_RESOLVED = (
        "probe_warning_resolved",
        logging.INFO,
        "A probe with `severity: warning` passes again. Keys: `probe`, `devices`.",
    )
    PROBE_WORKERS_EXHAUSTED = (
        "probe_workers_exhausted",
        logging.ERROR,
        "So many runs hang that some probes are suspended; `msg` names them. Key: `hung`, the number of hanging runs.",
    )
    PROBE_WORKER_START_FAILED = (
        "probe_worker_start_failed",
        logging.ERROR,
        "A probe worker cannot be started. Probes have errors until a worker starts. Key: `error`, the reason.",
    )
    KERNEL_LOG_GAP = (
        "kernel_log_gap",
        logging.WARNING,
        "Lines of the kernel log were lost before `kernelLog` probes evaluated them. Logged at most once a minute.",
    )
    WATCH_DEGRADED = (
        "watch_degraded",
        logging.WARNING,
        "The agent receives no events for some directories, and detects their changes by polling.",
    )

    def __init__(self, code: str, level: int, meaning: str) -> None:
        self.code = code
        self.level = level
        self.meaning = meaning


class LogEvent(Struct, frozen=True):
    """An occurrence of an event: a text for people, and facts for programs."""

    event: Event
    text: str
    facts: Mapping[str, object] = {}


class EventLog:
    """Emits events to the logger ``genplug`` and to listeners, such as the metrics.

    ``dropped_lines`` returns the number of lines that could not be written.
    """

    def __init__(self, dropped_lines: Callable[[], int] = lambda: 0) -> None:
        self.dropped_lines = dropped_lines
        self._logger = logging.getLogger("genplug")
        # Without a handler, Python would print warnings to stderr in a program that does not set up logging.
        self._logger.addHandler(logging.NullHandler())
        self._listeners: list[Callable[[LogEvent], None]] = []

    def listen(self, listener: Callable[[LogEvent], None]) -> None:
        """Call a listener with every event from now on."""
        self._listeners.append(listener)

    def emit(self, event: Event, text: str, **facts: object) -> None:
        """Emit an event."""
        log_event = LogEvent(event, text, facts)
        if self._logger.isEnabledFor(event.level):
            self._logger.log(event.level, "%s", text, extra={"log_event": log_event})
        for listener in self._listeners:
            listener(log_event)

    def emit_failure(self, text: str, error: BaseException, **facts: object) -> None:
        """Emit ``internal_error``, and log the traceback of the error."""
        self.emit(Event.INTERNAL_ERROR, text, **facts)
        self._logger.error("%s", text, exc_info=error)
