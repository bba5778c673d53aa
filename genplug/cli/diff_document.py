"""The result of ``genplug diff``: a report of each pool and node, and the document of ``-o json``."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from genplug.comparison.compare import Change, Comparison, DeviceChange, ResourceChange
from genplug.comparison.plan import Plan, PlannedDevice, PlannedResource
from genplug.comparison.pods import EFFECTS, AffectedPod


class Report(Struct, frozen=True):
    """The differences of a pool on a node.

    ``pool`` is empty if the input has no pools, and ``node`` if the comparison is without a node or with this node.
    ``pods`` can be unknown: None.
    """

    pool: str
    node: str
    comparison: Comparison
    pods: tuple[AffectedPod, ...] | None

    @property
    def label(self) -> str:
        """The pool and the node, as a heading."""
        parts = [f"pool {self.pool}"] if self.pool else []
        return ", ".join([*parts, *([f"node {self.node}"] if self.node else [])])


def count_devices(plan: Plan) -> int:
    """Return the number of devices of all resources of a plan."""
    return sum(len(resource.devices) for resource in plan.resources.values())


def count_changes(changes: Iterable[ResourceChange | DeviceChange]) -> str:
    """Return the numbers of changes as text, for example ``1 added, 2 changed``; empty without a change."""
    kinds = [change.change for change in changes]
    names = {change: change.value for change in Change} | {Change.RENAMED: "with another ID"}
    return ", ".join(f"{kinds.count(change)} {names[change]}" for change in Change if change in kinds)


def sort_by_urgency(changes: Sequence[DeviceChange]) -> list[DeviceChange]:
    """Return the changes of devices with those first that affect running pods the most, for tables that are cut."""
    order = (Change.REMOVED, Change.MOVED, Change.RENAMED, Change.CHANGED, Change.ADDED)
    return sorted(changes, key=lambda change: (order.index(change.change), not change.is_other_hardware))


def build_document(reports: Sequence[Report]) -> dict[str, Any]:
    """Return the document of ``-o json``."""
    return {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "ConfigDiff",
        "different": any(not report.comparison.is_empty for report in reports),
        "comparisons": [_build_report(report) for report in reports],
    }


def _build_report(report: Report) -> dict[str, Any]:
    comparison = report.comparison
    has_node = comparison.new.has_node
    return {
        "pool": report.pool,
        "node": report.node,
        "hasNode": has_node,
        "devices": {
            "old": count_devices(comparison.old) if has_node else None,
            "new": count_devices(comparison.new) if has_node else None,
        },
        "resources": [_build_resource(change, has_node=has_node) for change in comparison.resources],
        "deviceChanges": [_build_device_change(change) for change in comparison.devices],
        "warnings": {"added": list(comparison.added_remarks), "removed": list(comparison.removed_remarks)},
        "pods": None if report.pods is None else [_build_pod(pod) for pod in report.pods],
    }


def _build_resource(change: ResourceChange, *, has_node: bool) -> dict[str, Any]:
    return {
        "name": change.name,
        "change": change.change.value,
        "old": _build_counts(change.old, has_node=has_node),
        "new": _build_counts(change.new, has_node=has_node),
        "keys": [{"key": key.name, "old": key.old, "new": key.new} for key in change.settings],
    }


def _build_counts(resource: PlannedResource | None, *, has_node: bool) -> dict[str, Any] | None:
    if resource is None or not has_node:
        return None
    return {"devices": len(resource.devices), "listed": len(resource.grants), "note": resource.note}


def _build_device_change(change: DeviceChange) -> dict[str, Any]:
    return {
        "change": change.change.value,
        "old": _build_device(change.old_resource, change.old),
        "new": _build_device(change.new_resource, change.new),
        "otherHardware": change.is_other_hardware,
        "edits": [asdict(edit) for edit in change.edits],
    }


def _build_device(resource: str | None, device: PlannedDevice | None) -> dict[str, Any] | None:
    if device is None:
        return None
    return {
        "resource": resource,
        "id": device.id,
        "paths": list(device.paths),
        "hardware": sorted(device.hardware),
        "problem": device.problem,
    }


def _build_pod(affected: AffectedPod) -> dict[str, Any]:
    use = affected.use
    return {
        "namespace": use.namespace,
        "pod": use.pod,
        "container": use.container,
        "resource": use.resource,
        "devices": list(affected.ids) if affected.is_certain else [],
        "certain": affected.is_certain,
        "effect": affected.effect.value,
        "description": EFFECTS[affected.effect],
    }
