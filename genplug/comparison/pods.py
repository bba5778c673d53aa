"""Finds the pods that a change of the configuration affects, and states how."""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

from msgspec import Struct

from genplug.comparison.compare import Change, Comparison, DeviceChange


class PodUse(Struct, frozen=True):
    """A container that uses a resource.

    ``ids`` are the IDs in the list for the kubelet, or None if only the request of the container is known.
    """

    namespace: str
    pod: str
    container: str
    resource: str
    ids: tuple[str, ...] | None


class Effect(StrEnum):
    """The effect of a change on a pod that runs."""

    RESOURCE_REMOVED = "resourceRemoved"
    DEVICE_REMOVED = "deviceRemoved"
    ID_CHANGED = "idChanged"
    OTHER_HARDWARE = "otherHardware"
    EDITS_CHANGED = "editsChanged"


EFFECTS = {
    Effect.RESOURCE_REMOVED: "keeps its devices, and its containers can restart; a new pod that requests the resource "
    "cannot run on this node",
    Effect.DEVICE_REMOVED: "keeps the device; no other pod receives it after this pod ends",
    Effect.ID_CHANGED: "keeps the device; genplug offers the device under its new ID after this pod ends",
    Effect.OTHER_HARDWARE: "keeps the previous device; the ID belongs to other hardware after the change",
    Effect.EDITS_CHANGED: "keeps what its containers received; a new pod receives the changed values",
}
"""The effects as texts. The sources are docs/reference/configuration.md#reload and #identity, and
docs/internals/kubelet-contract.md §5.1: a container restart causes no new Allocate."""


class AffectedPod(Struct, frozen=True):
    """A container whose resource or devices change, with the IDs that change and the effect.

    ``is_certain`` is False if the container requests the resource, and its devices are not known.
    """

    use: PodUse
    ids: tuple[str, ...]
    effect: Effect
    is_certain: bool = True


def find_affected_pods(comparison: Comparison, uses: Iterable[PodUse]) -> tuple[AffectedPod, ...]:
    """Return the containers that a change affects, each once for each effect."""
    changes = {(change.old_resource, change.old.id): change for change in comparison.devices if change.old is not None}
    return tuple(affected for use in uses for affected in _find_effects(comparison, changes, use))


def _find_effects(
    comparison: Comparison, changes: Mapping[tuple[str | None, str], DeviceChange], use: PodUse
) -> Iterator[AffectedPod]:
    before, after = comparison.old.find_resource(use.resource), comparison.new.find_resource(use.resource)
    if before is None:
        return
    if after is None:
        yield AffectedPod(use, use.ids or (), Effect.RESOURCE_REMOVED)
        return
    effects: dict[Effect, dict[str, None]] = {}
    for grant in before.grants if use.ids is None else use.ids:
        devices = before.grants.get(grant, ())
        found = {_effect_of(changes[before.name, device]) for device in devices if (before.name, device) in changes}
        found.discard(None)
        if not found and devices and grant not in after.grants:
            # The device remains, with fewer replicas, slices or tokens.
            found = {Effect.DEVICE_REMOVED}
        for effect in Effect:
            if effect in found:
                effects.setdefault(effect, {})[grant] = None
    for effect, ids in effects.items():
        yield AffectedPod(use, tuple(ids), effect, is_certain=use.ids is not None)


def _effect_of(change: DeviceChange) -> Effect | None:
    match change.change:
        case Change.REMOVED:
            return Effect.DEVICE_REMOVED
        case Change.RENAMED | Change.MOVED:
            return Effect.ID_CHANGED
        case Change.CHANGED if change.is_other_hardware:
            return Effect.OTHER_HARDWARE
        case Change.CHANGED if change.edits:
            return Effect.EDITS_CHANGED
    return None
