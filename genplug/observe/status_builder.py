"""Build the status of resources from offers, inventories and endpoints."""

import time
from collections.abc import Sequence

from genplug.allocation.offer import Grant, ResourceOffer
from genplug.hardware.inventory import Inventory
from genplug.kubelet.events import EndpointStatus
from genplug.observe.stalls import stall_notes
from genplug.observe.status import DeviceStatus, ResourceStatus, ScanStatus
from genplug.spec.model import Config


def resource_status(
    name: str, endpoint: EndpointStatus | None, offer: ResourceOffer, *, is_removed: bool, notes: Sequence[str]
) -> ResourceStatus:
    """Return the status of one resource; without an endpoint, nothing serves it yet."""
    return ResourceStatus(
        name=name,
        phase=endpoint.phase.value if endpoint else "none",
        generation=endpoint.generation if endpoint else 0,
        streams=endpoint.streams if endpoint else 0,
        is_registered=endpoint is not None and endpoint.is_registered,
        is_removed=is_removed,
        reason=endpoint.reason if endpoint else "the kubelet's directory is not ours yet",
        devices=tuple(
            DeviceStatus(
                grant.id,
                tuple(path for judged in grant.devices for path in judged.device.candidates),
                grant.healthy,
                grant.reason,
                *_deciding_probe(grant),
            )
            for grant in offer.grants.values()
        ),
        notes=tuple(notes),
    )


def status_unscanned(name: str) -> ResourceStatus:
    """Return the status of a resource whose first scan has not finished."""
    reason = "its first scan has not finished, so its devices are not known"
    return ResourceStatus(name, "none", 0, 0, False, False, reason, (), ())  # noqa: FBT003 - its fields


def status_without_instances(name: str, notes: Sequence[str]) -> ResourceStatus:
    """Return the status of a resource whose name is a template that no device fills in."""
    reason = "no device fills in its name, so there is nothing to register"
    return ResourceStatus(name, "none", 0, 0, False, False, reason, (), tuple(notes), has_no_instances=True)  # noqa: FBT003 - its fields


def offer_notes(inventory: Inventory) -> dict[str, tuple[str, ...]]:
    """Return, by resource, why it has fewer devices than one may expect: paths left out, globs that found nothing."""
    notes: dict[str, list[str]] = {}
    for unmatched in inventory.unmatched_globs:
        text = f"nothing matches {unmatched.glob} ({unmatched.location})"
        notes.setdefault(unmatched.resource, []).append(text)
    for one in inventory.outcomes:
        if one.device is None:
            notes.setdefault(one.resource, []).append(f"{one.path}: {one.reason}")
    for resource, stalls in stall_notes(inventory.stalls).items():
        notes[resource] = [*(f"scan stalled: {stall}" for stall in stalls), *notes.get(resource, ())]
    return {resource: tuple(lines) for resource, lines in notes.items()}


def scan_statuses(config: Config, inventory: Inventory) -> tuple[ScanStatus, ...]:
    """Return for each resource of a configuration whether its scan is up to date."""
    stalls = stall_notes(inventory.stalls)
    return tuple(ScanStatus(name, stalls.get(name, ())) for name in config.resources)


def _deciding_probe(grant: Grant) -> tuple[str, int]:
    """Return the probe whose verdict decides about a grant, and when that was given (whole seconds since the epoch)."""
    verdict = max((one.verdict for one in grant.devices), key=lambda one: one.since)
    # Whole seconds: the difference of the two clocks is not exactly the same in two calls.
    return "" if grant.healthy else verdict.probe, int(time.time() - time.monotonic() + verdict.since)
