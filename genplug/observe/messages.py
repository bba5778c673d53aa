"""From changes to event_log entries: what is worth telling when lists, endpoints and configurations change.

No state.
"""

from collections.abc import Mapping, Sequence

from genplug.allocation.offer import ResourceOffer
from genplug.hardware.inventory import Inventory
from genplug.health.status import MonitorEvent, PoolExhausted, ProbeError, WorkerStartFailed
from genplug.health.verdict import DeviceHealth, HealthSnapshot
from genplug.kubelet.events import (
    CallAnswered,
    EndpointStatus,
    InternalErrorCaught,
    ListSent,
    Phase,
    PhaseChanged,
    Report,
)
from genplug.observe.events import Event, EventLog
from genplug.observe.stalls import stall_notes

_MAX_NAMED = 3
MAX_LINES = 20
"""Devices of one resource told one by one at a time; more are summed up."""


def log_report(event_log: EventLog, report: Report) -> None:
    """Write what an endpoint reported."""
    match report:
        case PhaseChanged(resource, previous, current):
            _log_phase_change(event_log, resource, previous, current)
        case ListSent(resource, devices, healthy):
            text = f"{resource}: list of {devices} devices sent, {healthy} healthy"
            event_log.emit(Event.LIST_SENT, text, resource=resource, devices=devices, healthy=healthy)
        case CallAnswered(resource, "Allocate", ids, seconds, ""):
            text = f"{resource}: {', '.join(ids) or 'nothing'} given to a container"
            event_log.emit(Event.ALLOCATED, text, resource=resource, devices=ids, seconds=seconds)
        case CallAnswered(resource, "Allocate", ids, seconds, error):
            event_log.emit(Event.ALLOCATION_REFUSED, error, resource=resource, devices=ids, seconds=seconds)
        case CallAnswered(resource, "PreStartContainer", ids, seconds, error) if error:
            event_log.emit(Event.PRE_START_FAILED, error, resource=resource, devices=ids, seconds=seconds)
        case InternalErrorCaught(resource, operation, exception):
            text = f"{resource}: {operation} failed: {exception!r}. This is a defect in genplug; please report it"
            event_log.emit_failure(text, exception, resource=resource, method=operation)


def log_device_changes(event_log: EventLog, before: HealthSnapshot | None, after: HealthSnapshot) -> None:
    """Write which devices came, went, or changed health."""
    for resource, judged in after.devices.items():
        known = {one.device.id: one for one in before.devices.get(resource, ())} if before else {}
        # At the first look only what is wrong is news.
        lines = _device_lines(resource, known, judged, is_first=before is None or resource not in before.devices)
        for event, text, device in lines[:MAX_LINES]:
            event_log.emit(event, text, resource=resource, device=device)
        if len(lines) > MAX_LINES:
            text = f"{resource}: and {len(lines) - MAX_LINES} more devices changed"
            event_log.emit(Event.DEVICES_CHANGED, text, resource=resource)


def log_offer_change(
    event_log: EventLog, before: ResourceOffer | None, after: ResourceOffer, notes: Sequence[str]
) -> None:
    """Write how many devices a resource offers, if that changed; and why, if there are none."""
    if before is not None and before.listed == after.listed:
        return
    name = after.resource.name
    healthy = sum(one.healthy for one in after.listed)
    unhealthy = len(after.listed) - healthy
    was = f", was {sum(one.healthy for one in before.listed)}" if before is not None else ""
    text = f"{name}: {healthy} healthy{was}" + (f", {unhealthy} unhealthy" if unhealthy else "")
    if not after.listed:
        text += "".join(f"; {note}" for note in notes[:3])
    event_log.emit(Event.DEVICES_CHANGED, text, resource=name, healthy=healthy, unhealthy=unhealthy)


def log_conflicts(event_log: EventLog, before: Inventory | None, after: Inventory) -> None:
    """Write which device nodes are claimed twice."""
    known = {conflict.message for conflict in before.conflicts} if before is not None else set()
    for conflict in after.conflicts:
        if conflict.message not in known:
            event_log.emit(Event.DEVICE_NODE_CONFLICT, conflict.message, path=conflict.path)


def log_stalls(event_log: EventLog, before: Inventory | None, after: Inventory) -> None:
    """Write which scans stall, and which are up to date again."""
    stalled = {stall.resource for stall in before.stalls} if before is not None else set()
    known = {(stall.resource, stall.reason) for stall in before.stalls} if before is not None else set()
    fresh = tuple(stall for stall in after.stalls if (stall.resource, stall.reason) not in known)
    for resource, notes in stall_notes(fresh).items():
        for note in notes:
            event_log.emit(Event.SCAN_STALLED, f"{resource}: scan stalled: {note}", resource=resource)
    for resource in sorted(stalled - {stall.resource for stall in after.stalls}):
        event_log.emit(Event.SCAN_RESUMED, f"{resource}: the scan is up to date again", resource=resource)


def log_rejected_names(event_log: EventLog, before: Inventory | None, after: Inventory) -> None:
    """Write which devices are left out because of the names that their resources would have."""
    known = {(one.path, one.reason) for one in before.outcomes if one.is_misnamed} if before is not None else set()
    lines = [one for one in after.outcomes if one.is_misnamed and (one.path, one.reason) not in known]
    for one in lines[:MAX_LINES]:
        event_log.emit(
            Event.RESOURCE_NAME_REJECTED, f"{one.resource}: {one.path} is left out: {one.reason}", resource=one.resource
        )
    if len(lines) > MAX_LINES:
        text = f"and {len(lines) - MAX_LINES} more devices are left out for the names of their resources"
        event_log.emit(Event.RESOURCE_NAME_REJECTED, text)


def log_monitor_event(event_log: EventLog, event: MonitorEvent) -> None:
    """Log an error of probes or of their workers, or its end."""
    match event:
        case PoolExhausted(hung, resolved=False):
            text = (
                f"all probe workers are hung ({hung} reads or calls): probing is suspended, devices keep their health, "
                "and only their presence is still monitored; 'genplug status' names the devices"
            )
            event_log.emit(Event.PROBE_WORKERS_EXHAUSTED, text, hung=hung)
        case PoolExhausted(hung):
            text = f"probes run again; {hung} reads or calls are still hung"
            event_log.emit(Event.PROBE_RECOVERED, text, hung=hung)
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
                named = ", ".join(devices[:_MAX_NAMED])
                more = f" and {len(devices) - _MAX_NAMED} more" if len(devices) > _MAX_NAMED else ""
                text = f"{resource}: probe {probe} cannot check {named}{more}: {error}"
                event_log.emit(Event.PROBE_ERROR, text, **facts)


def _log_phase_change(event_log: EventLog, resource: str, previous: EndpointStatus, current: EndpointStatus) -> None:
    facts = {"resource": resource, "generation": current.generation, "phase": current.phase.value}
    if current.is_registered and not previous.is_registered:
        event_log.emit(Event.REGISTERED, f"{resource}: registered, the kubelet listens", **facts)
    elif previous.is_registered and not current.is_registered:
        text = f"{resource}: the kubelet no longer listens: {current.reason or 'stopping'}"
        event_log.emit(Event.DISCONNECTED, text, **facts)
    elif current.failures > previous.failures and current.phase in (Phase.WAIT, Phase.SERVE):
        event_log.emit(Event.REGISTRATION_FAILED, f"{resource}: {current.reason}; will try again", **facts)
    else:
        text = f"{resource}: {previous.phase.value} → {current.phase.value}"
        event_log.emit(Event.ENDPOINT_PHASE_CHANGED, text + (f" ({current.reason})" if current.reason else ""), **facts)
    if current.phase is Phase.PAUSE and not current.has_kubelet:
        event_log.emit(Event.ENDPOINT_PHASE_CHANGED, f"{resource}: holds until kubelet.sock appears", **facts)


def _device_lines(
    resource: str, known: Mapping[str, DeviceHealth], judged: Sequence[DeviceHealth], *, is_first: bool
) -> list[tuple[Event, str, str]]:
    lines = []
    for one in judged:
        device, verdict = one.device, one.verdict
        was = known.get(device.id)
        if not verdict.healthy and (was is None or was.verdict != verdict):
            lines.append((Event.DEVICE_UNHEALTHY, f"{resource}: {device.id} is unhealthy: {verdict.reason}", device.id))
        elif verdict.healthy and was is not None and not was.verdict.healthy:
            lines.append((Event.DEVICE_HEALTHY, f"{resource}: {device.id} is healthy again", device.id))
        elif was is None and not is_first:
            text = f"{resource}: {device.id} is new ({', '.join(device.candidates)})"
            lines.append((Event.DEVICE_HEALTHY, text, device.id))
    listed = {one.device.id for one in judged}
    for name, one in known.items():
        if name not in listed:
            text = f"{resource}: {name} left the list; {one.verdict.reason or 'the configuration no longer matches it'}"
            lines.append((Event.DEVICE_REMOVED, text, name))
    return lines
