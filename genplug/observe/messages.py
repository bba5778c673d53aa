"""Texts of log events, and the decision which changes of devices, offers, endpoints and probes are logged. No state."""

from collections.abc import Callable, Mapping, Sequence

from genplug.allocation.offer import OfferChange
from genplug.hardware.inventory import Inventory
from genplug.health.status import KernelLogGap, MonitorEvent, PoolExhausted, ProbeError, ProbeWarning, WorkerStartFailed
from genplug.health.verdict import DeviceHealth, HealthSnapshot
from genplug.kubelet.reports import (
    CallAnswered,
    ClaimAnswered,
    ClaimCdiUnwritable,
    ClaimForgotten,
    DriverNotServing,
    DriverRefused,
    DriverRegistered,
    DriverReport,
    EndpointStatus,
    InternalErrorCaught,
    ListSent,
    Phase,
    PhaseChanged,
    RecordDamaged,
    Report,
    SocketNotRemoved,
)
from genplug.observe.events import Event, EventLog
from genplug.observe.stalls import describe_stalls
from genplug.observe.text import describe_exhausted_pool, describe_pool, join_names
from genplug.spec.replacement import find_replacements, list_replaced

MAX_LINES = 20
"""The number of devices of a resource that are logged at once; the others are counted in a line."""
_MAX_NOTES = 3


def log_report(event_log: EventLog, report: Report) -> None:
    """Log the report of an endpoint."""
    match report:
        case PhaseChanged(resource, previous, current):
            _log_phase_change(event_log, resource, previous, current)
        case ListSent(resource, devices, healthy):
            text = f"{resource}: device list sent: {devices} devices, {healthy} healthy"
            event_log.emit(Event.LIST_SENT, text, resource=resource, devices=devices, healthy=healthy)
        case CallAnswered(resource, "Allocate", ids, seconds, ""):
            text = f"{resource}: {', '.join(ids) or 'no devices'} allocated to a container"
            event_log.emit(Event.ALLOCATED, text, resource=resource, devices=ids, seconds=seconds)
        case CallAnswered(resource, "Allocate", ids, seconds, error):
            event_log.emit(Event.ALLOCATION_REFUSED, error, resource=resource, devices=ids, seconds=seconds)
        case CallAnswered(resource, "PreStartContainer", ids, seconds, error) if error:
            event_log.emit(Event.PRE_START_FAILED, error, resource=resource, devices=ids, seconds=seconds)
        case SocketNotRemoved(resource, path, error):
            text = f"{resource}: the socket {path} cannot be removed: {error}; the next agent removes it"
            event_log.emit(Event.SOCKET_NOT_REMOVED, text, resource=resource, path=path)
        case InternalErrorCaught(resource, operation, exception):
            text = f"{resource}: {operation} failed: {exception!r}. This is a defect in genplug; please report it"
            event_log.emit_failure(text, exception, resource=resource, method=operation)


def log_driver_report(event_log: EventLog, report: DriverReport) -> None:
    """Log the report of the driver of Dynamic Resource Allocation, or of its claims."""
    match report:
        case DriverRegistered(driver):
            event_log.emit(Event.DRA_REGISTERED, f"the kubelet has registered the driver {driver}", driver=driver)
        case DriverRefused(driver, error, retry_seconds):
            text = f"the kubelet does not register the driver {driver}: {error}; the agent retries"
            event_log.emit(Event.DRA_REFUSED, text, driver=driver, retry_seconds=retry_seconds)
        case DriverNotServing(driver, error, retry_seconds):
            text = f"the driver {driver} cannot be served: {error}"
            event_log.emit(Event.DRA_SERVE_FAILED, text, driver=driver, retry_seconds=retry_seconds)
        case ClaimAnswered():
            _log_claim(event_log, report)
        case ClaimForgotten(driver, claim, devices):
            text = (
                f"ResourceClaim {claim}: unprepared, because another claim needs {', '.join(devices)}, and neither the "
                "kubelet nor the API server has this claim any more"
            )
            event_log.emit(Event.CLAIM_FORGOTTEN, text, driver=driver, claim=str(claim), uid=claim.uid, devices=devices)
        case RecordDamaged(driver, uid, path, reason):
            text = (
                f"the record of the ResourceClaim with the UID {uid} is damaged, and is now {path}: {reason}; the "
                "claim is prepared from scratch when the kubelet asks for it"
            )
            event_log.emit(Event.RECORD_BAD, text, driver=driver, uid=uid, path=path)
        case ClaimCdiUnwritable(driver, error, retry_seconds):
            event_log.emit(
                Event.CDI_UNWRITABLE, f"{error}; the agent retries", driver=driver, retry_seconds=retry_seconds
            )
        case InternalErrorCaught(driver, operation, exception):
            text = f"{driver}: {operation} failed: {exception!r}. This is a defect in genplug; please report it"
            event_log.emit_failure(text, exception, resource=driver, method=operation)


def _log_claim(event_log: EventLog, report: ClaimAnswered) -> None:
    claim = report.claim
    facts = {"driver": report.driver, "claim": str(claim), "uid": claim.uid, "seconds": report.seconds}
    if report.method == "NodePrepareResources":
        if report.code is not None:
            event_log.emit(Event.CLAIM_REFUSED, report.error, **facts, reason=report.code.value)
        else:
            text = f"ResourceClaim {claim}: {', '.join(report.devices) or 'no devices'} prepared"
            event_log.emit(Event.CLAIM_PREPARED, text, **facts, devices=report.devices)
    elif report.code is not None:
        event_log.emit(Event.CLAIM_UNPREPARE_FAILED, report.error, **facts, reason=report.code.value)
    else:
        event_log.emit(Event.CLAIM_UNPREPARED, f"ResourceClaim {claim}: unprepared", **facts)


def log_device_changes(event_log: EventLog, previous: HealthSnapshot | None, current: HealthSnapshot) -> None:
    """Log the devices that were added, were removed, or have another health."""
    for resource, devices in current.devices.items():
        # After the first scan of a resource, only unhealthy devices are logged.
        is_first = previous is None or resource not in previous.devices
        old = previous.devices[resource] if previous is not None and not is_first else ()
        if old is devices:
            continue
        removed, new = list_replaced(old, devices, find_replacements(old, devices))
        known = {health.device.id: health for health in removed}
        changes = _list_device_changes(resource, known, new, is_first=is_first)
        for event, text, device in changes[:MAX_LINES]:
            event_log.emit(event, text, resource=resource, device=device)
        if len(changes) > MAX_LINES:
            text = f"{resource}: and {len(changes) - MAX_LINES} more devices changed"
            event_log.emit(Event.DEVICES_CHANGED, text, resource=resource)


def log_offer_change(event_log: EventLog, change: OfferChange, notes: Callable[[], Sequence[str]]) -> None:
    """Log the numbers of devices of a resource if its list has changed, with reasons if the list is empty.

    ``notes`` returns the reasons. Log also why devices are not listed because of a limit.
    """
    previous, current = change.previous, change.current
    name = current.resource.name
    if current.omission and (previous is None or previous.omission != current.omission):
        event_log.emit(Event.LIST_LIMITED, f"{name}: {current.omission}", resource=name, omitted=current.omitted)
    if not change.is_list_changed:
        return
    healthy, unhealthy = current.healthy, len(current.entries) - current.healthy
    text = f"{name}: {healthy} healthy" + (f", {unhealthy} unhealthy" if unhealthy else "")
    if previous is not None:
        text += f" (previously {previous.healthy} healthy)"
    expected = current.resource.expected
    if expected is not None and current.healthy_devices < expected:
        text += f"; {current.healthy_devices} of {expected} expected devices are healthy"
    if not current.entries:
        text += "".join(f"; {note}" for note in notes()[:_MAX_NOTES])
    event_log.emit(Event.DEVICES_CHANGED, text, resource=name, healthy=healthy, unhealthy=unhealthy)


def log_conflicts(event_log: EventLog, previous: Inventory | None, current: Inventory) -> None:
    """Log the new conflicts: device nodes that two devices claim."""
    known = {conflict.message for conflict in previous.conflicts} if previous is not None else set()
    for conflict in current.conflicts:
        if conflict.message not in known:
            event_log.emit(Event.DEVICE_NODE_CONFLICT, conflict.message, path=conflict.path)


def log_withheld(event_log: EventLog, previous: Inventory | None, current: Inventory) -> None:
    """Log the devices that are newly withheld until the kubelet reports that no pod uses another ID of them."""
    known = previous.withheld if previous is not None else {}
    new = [(owner, reason) for owner, reason in current.withheld.items() if known.get(owner) != reason]
    for (resource, device), reason in new[:MAX_LINES]:
        event_log.emit(Event.DEVICE_WITHHELD, f"{resource}: {device} is {reason}", resource=resource, device=device)
    if len(new) > MAX_LINES:
        event_log.emit(Event.DEVICE_WITHHELD, f"and {len(new) - MAX_LINES} more devices are withheld")


def log_stalls(event_log: EventLog, previous: Inventory | None, current: Inventory) -> None:
    """Log the scans that have stalled, and those that are up to date again."""
    stalled = {stall.resource for stall in previous.stalls} if previous is not None else set()
    known = {(stall.resource, stall.reason) for stall in previous.stalls} if previous is not None else set()
    new = tuple(stall for stall in current.stalls if (stall.resource, stall.reason) not in known)
    # Only a file operation that hangs has a start; the reasons of the others say what to change.
    for is_hung, hint in ((True, "; reset the device, or restore the file system"), (False, "")):
        stalls = [stall for stall in new if (stall.since is not None) == is_hung]
        for resource, texts in describe_stalls(stalls).items():
            for text in texts:
                event_log.emit(Event.SCAN_STALLED, f"{resource}: scan stalled: {text}{hint}", resource=resource)
    for resource in sorted(stalled - {stall.resource for stall in current.stalls}):
        event_log.emit(Event.SCAN_RESUMED, f"{resource}: the scan is up to date again", resource=resource)


def log_rejected_names(event_log: EventLog, previous: Inventory | None, current: Inventory) -> None:
    """Log the devices that are newly left out because of the names that their resources would have."""
    misnamed = [outcome for outcome in previous.left_out if outcome.is_misnamed] if previous is not None else []
    known = {(outcome.path, outcome.reason) for outcome in misnamed}
    rejected = [
        outcome for outcome in current.left_out if outcome.is_misnamed and (outcome.path, outcome.reason) not in known
    ]
    for outcome in rejected[:MAX_LINES]:
        text = f"{outcome.resource}: {outcome.path} is left out: {outcome.reason}"
        event_log.emit(Event.RESOURCE_NAME_REJECTED, text, resource=outcome.resource)
    if len(rejected) > MAX_LINES:
        text = f"and {len(rejected) - MAX_LINES} more devices are left out because of the names of their resources"
        event_log.emit(Event.RESOURCE_NAME_REJECTED, text)


def log_monitor_event(event_log: EventLog, event: MonitorEvent) -> None:
    """Log an error of probes or of their workers, or its end."""
    match event:
        case PoolExhausted(is_call, hung, resolved=False):
            text = (
                f"{describe_exhausted_pool(hung, is_call=is_call)}; devices keep their health unless 'onError' is set; "
                "'genplug status' names the devices"
            )
            event_log.emit(Event.PROBE_WORKERS_EXHAUSTED, text, hung=hung)
        case PoolExhausted(is_call, hung):
            text = f"{describe_pool(is_call=is_call)} run again; {hung} runs still hang"
            event_log.emit(Event.PROBE_RECOVERED, text, hung=hung)
        case KernelLogGap():
            text = (
                "lines of the kernel log were overwritten or cleared before genplug read them, so that 'kernelLog' "
                "probes may have missed a failure; compare with 'dmesg' on the node"
            )
            event_log.emit(Event.KERNEL_LOG_GAP, text)
        case WorkerStartFailed(error, resolved=False):
            text = f"cannot start a probe worker: {error}; probes have errors until a worker starts"
            event_log.emit(Event.PROBE_WORKER_START_FAILED, text, error=error)
        case WorkerStartFailed(error):
            event_log.emit(Event.PROBE_RECOVERED, f"probe workers start again; previous error: {error}", error=error)
        case ProbeError(resource, probe, error, devices, resolved):
            facts = {"resource": resource, "probe": probe, "devices": devices}
            if resolved:
                text = f"{resource}: probe {probe} recovered; previous error: {error}"
                event_log.emit(Event.PROBE_RECOVERED, text, **facts)
            else:
                text = f"{resource}: probe {probe} cannot check {join_names(devices)}: {error}"
                event_log.emit(Event.PROBE_ERROR, text, **facts)
        case ProbeWarning(resource, probe, reason, devices, resolved):
            facts = {"resource": resource, "probe": probe, "devices": devices}
            if resolved:
                text = f"{resource}: the warning of probe {probe} has ended; previous warning: {reason}"
                event_log.emit(Event.PROBE_WARNING_RESOLVED, text, **facts)
            else:
                text = f"{resource}: probe {probe} warns about {join_names(devices)}: {reason}; the health is unchanged"
                event_log.emit(Event.PROBE_WARNING, text, **facts)


def _log_phase_change(event_log: EventLog, resource: str, previous: EndpointStatus, current: EndpointStatus) -> None:
    facts = {"resource": resource, "generation": current.generation, "phase": current.phase.value}
    if current.is_registered and not previous.is_registered:
        event_log.emit(Event.REGISTERED, f"{resource}: registered; the kubelet has opened a stream", **facts)
    elif previous.is_registered and not current.is_registered:
        text = f"{resource}: disconnected: {current.reason or 'the agent stops'}"
        event_log.emit(Event.DISCONNECTED, text, **facts)
    elif current.failures > previous.failures and current.phase is Phase.SERVE:
        # Attempts follow each other for as long as a file system is full or read-only: each reason is logged once.
        if current.reason != previous.reason:
            event_log.emit(Event.SERVE_FAILED, f"{resource}: {current.reason}; the agent retries", **facts)
    elif current.failures > previous.failures and current.phase is Phase.WAIT:
        event_log.emit(Event.REGISTRATION_FAILED, f"{resource}: {current.reason}; the agent retries", **facts)
    else:
        text = f"{resource}: {previous.phase.value} → {current.phase.value}"
        event_log.emit(Event.ENDPOINT_PHASE_CHANGED, text + (f" ({current.reason})" if current.reason else ""), **facts)
    if current.phase is Phase.PAUSE and not current.has_kubelet:
        event_log.emit(Event.ENDPOINT_PHASE_CHANGED, f"{resource}: waits until kubelet.sock exists", **facts)


def _list_device_changes(
    resource: str, previous: Mapping[str, DeviceHealth], current: Sequence[DeviceHealth], *, is_first: bool
) -> list[tuple[Event, str, str]]:
    """Return an event, a text and a device ID for each device that has changed."""
    changes = []
    for health in current:
        device, verdict = health.device, health.verdict
        known = previous.get(device.id)
        if not verdict.healthy and (known is None or known.verdict != verdict):
            text = f"{resource}: {device.id} is unhealthy: {verdict.reason}"
            changes.append((Event.DEVICE_UNHEALTHY, text, device.id))
        elif verdict.healthy and known is not None and not known.verdict.healthy:
            changes.append((Event.DEVICE_HEALTHY, f"{resource}: {device.id} is healthy again", device.id))
        elif known is None and not is_first:
            text = f"{resource}: {device.id} is added ({', '.join(device.candidates)})"
            changes.append((Event.DEVICE_HEALTHY, text, device.id))
    listed = {health.device.id for health in current}
    for device_id, health in previous.items():
        if device_id not in listed:
            reason = health.verdict.reason or "the configuration no longer matches it"
            changes.append((Event.DEVICE_REMOVED, f"{resource}: {device_id} is removed: {reason}", device_id))
    return changes
