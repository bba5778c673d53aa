"""From changes to journal entries: what is worth telling when lists, endpoints and configurations change. No state."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from genplug.allocation.offer import Grant, ResourceOffer
from genplug.hardware.inventory import Inventory
from genplug.health.status import Exhausted, News, Trouble
from genplug.health.verdict import Judged, Judgement
from genplug.kubelet.endpoint_state import Generation, Phase
from genplug.kubelet.events import Allocated, CallFailed, ListSent, Moved, PreStarted, Report
from genplug.observe.events import Event, Journal
from genplug.observe.status import DeviceStatus, ResourceStatus

_MOST_NAMED = 3
MOST_LINES = 20
"""Devices of one resource told one by one at a time; more are summed up."""


def tell_report(journal: Journal, report: Report) -> None:
    """Write what an endpoint reported."""
    match report:
        case Moved(resource, before, after):
            _tell_move(journal, resource, before, after)
        case ListSent(resource, devices, healthy):
            text = f"{resource}: list of {devices} devices sent, {healthy} healthy"
            journal.write(Event.LIST_SENT, text, resource=resource, devices=devices, healthy=healthy)
        case Allocated(resource, ids, seconds, ""):
            text = f"{resource}: {', '.join(ids) or 'nothing'} given to a container"
            journal.write(Event.ALLOCATED, text, resource=resource, devices=ids, seconds=seconds)
        case Allocated(resource, ids, seconds, refusal):
            journal.write(Event.ALLOCATION_REFUSED, refusal, resource=resource, devices=ids, seconds=seconds)
        case PreStarted(resource, ids, seconds, refusal) if refusal:
            journal.write(Event.PRE_START_FAILED, refusal, resource=resource, devices=ids, seconds=seconds)
        case CallFailed(resource, method, error):
            text = f"{resource}: {method} failed: {error!r}. This is a mistake of genplug's own; please report it"
            journal.failure(text, error, resource=resource, method=method)


def tell_devices(journal: Journal, before: Judgement | None, after: Judgement) -> None:
    """Write which devices came, went, or changed health."""
    for resource, judged in after.devices.items():
        known = {one.device.id: one for one in before.devices.get(resource, ())} if before else {}
        # At the first look only what is wrong is news.
        lines = _device_lines(resource, known, judged, is_first=before is None or resource not in before.devices)
        for event, text, device in lines[:MOST_LINES]:
            journal.write(event, text, resource=resource, device=device)
        if len(lines) > MOST_LINES:
            text = f"{resource}: and {len(lines) - MOST_LINES} more devices changed"
            journal.write(Event.DEVICES_CHANGED, text, resource=resource)


def tell_offer(journal: Journal, before: ResourceOffer | None, after: ResourceOffer, notes: Sequence[str]) -> None:
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
    journal.write(Event.DEVICES_CHANGED, text, resource=name, healthy=healthy, unhealthy=unhealthy)


def tell_names(journal: Journal, before: Inventory | None, after: Inventory) -> None:
    """Write which devices are left out because of the names that their resources would have."""
    known = {(one.path, one.reason) for one in before.considered if one.is_misnamed} if before is not None else set()
    lines = [one for one in after.considered if one.is_misnamed and (one.path, one.reason) not in known]
    for one in lines[:MOST_LINES]:
        journal.write(
            Event.NAME_REFUSED, f"{one.resource}: {one.path} is left out: {one.reason}", resource=one.resource
        )
    if len(lines) > MOST_LINES:
        text = f"and {len(lines) - MOST_LINES} more devices are left out for the names of their resources"
        journal.write(Event.NAME_REFUSED, text)


def tell_health(journal: Journal, news: News) -> None:
    """Write what keeps probes from looking, and what does not any more."""
    match news:
        case Exhausted(hung, is_over=False):
            text = (
                f"{hung} reads of devices hang, and no more workers are started: probes do not look any more, devices "
                "are judged by presence and by what was known; genplug status names the devices"
            )
            journal.write(Event.PROBES_EXHAUSTED, text, hung=hung)
        case Exhausted(hung):
            journal.write(Event.PROBE_RECOVERED, f"probes look again; {hung} reads of devices still hang", hung=hung)
        case Trouble(resource, probe, error, devices, is_over):
            facts = {"resource": resource, "probe": probe, "devices": devices}
            if is_over:
                text = f"{resource}: probe {probe} can look again; it could not: {error}"
                journal.write(Event.PROBE_RECOVERED, text, **facts)
            else:
                named = ", ".join(devices[:_MOST_NAMED])
                more = f" and {len(devices) - _MOST_NAMED} more" if len(devices) > _MOST_NAMED else ""
                text = f"{resource}: probe {probe} cannot look at {named}{more}: {error}"
                journal.write(Event.PROBE_ERROR, text, **facts)


def offer_notes(inventory: Inventory) -> dict[str, tuple[str, ...]]:
    """Return, by resource, why it has fewer devices than one may expect: paths left out, globs that found nothing."""
    notes: dict[str, list[str]] = {}
    for unmatched in inventory.unmatched:
        text = f"nothing matches {unmatched.glob} ({unmatched.place})"
        notes.setdefault(unmatched.resource, []).append(text)
    for one in inventory.considered:
        if one.device is None:
            notes.setdefault(one.resource, []).append(f"{one.path}: {one.reason}")
    return {resource: tuple(lines) for resource, lines in notes.items()}


def resource_status(
    name: str, generation: Generation | None, offer: ResourceOffer, *, is_removed: bool, notes: Sequence[str]
) -> ResourceStatus:
    """Return the status of one resource; without a generation nothing serves it yet."""
    return ResourceStatus(
        name=name,
        phase=generation.phase.value if generation else "none",
        generation=generation.number if generation else 0,
        streams=generation.streams if generation else 0,
        is_registered=generation is not None and generation.is_live,
        is_removed=is_removed,
        reason=generation.reason if generation else "the kubelet's folder is not ours yet",
        devices=tuple(
            DeviceStatus(
                grant.id,
                tuple(path for judged in grant.devices for path in judged.device.candidates),
                grant.healthy,
                grant.reason,
                *_whose(grant),
            )
            for grant in offer.grants.values()
        ),
        notes=tuple(notes),
    )


def _whose(grant: Grant) -> tuple[str, str]:
    """Return the probe whose verdict decides about a grant, and when that was given (ISO 8601, UTC)."""
    verdict = max((one.verdict for one in grant.devices), key=lambda one: one.since)
    at = datetime.fromtimestamp(time.time() - time.monotonic() + verdict.since, UTC)
    return "" if grant.healthy else verdict.probe, at.isoformat(timespec="seconds").replace("+00:00", "Z")


def nameless_status(name: str, notes: Sequence[str]) -> ResourceStatus:
    """Return the status of a resource whose name is a template that no device fills in."""
    reason = "no device fills in its name, so there is nothing to register"
    return ResourceStatus(name, "none", 0, 0, False, False, reason, (), tuple(notes), is_nameless=True)  # noqa: FBT003 - its fields


def _tell_move(journal: Journal, resource: str, before: Generation, after: Generation) -> None:
    facts = {"resource": resource, "generation": after.number, "phase": after.phase.value}
    if after.is_live and not before.is_live:
        journal.write(Event.REGISTERED, f"{resource}: registered, the kubelet listens", **facts)
    elif before.is_live and not after.is_live:
        text = f"{resource}: the kubelet no longer listens: {after.reason or 'stopping'}"
        journal.write(Event.DISCONNECTED, text, **facts)
    elif after.failures > before.failures and after.phase in (Phase.WAIT, Phase.SERVE):
        journal.write(Event.REGISTRATION_FAILED, f"{resource}: {after.reason}; will try again", **facts)
    else:
        text = f"{resource}: {before.phase.value} → {after.phase.value}"
        journal.write(Event.ENDPOINT_MOVED, text + (f" ({after.reason})" if after.reason else ""), **facts)
    if after.phase is Phase.PAUSE and after.kubelet is None:
        journal.write(Event.ENDPOINT_MOVED, f"{resource}: holds until kubelet.sock appears", **facts)


def _device_lines(
    resource: str, known: Mapping[str, Judged], judged: Sequence[Judged], *, is_first: bool
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
            lines.append((Event.DEVICE_LEFT, text, name))
    return lines
